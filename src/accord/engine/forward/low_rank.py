"""A frozen linear layer with its adapter as one node of the graph, which keeps nothing but what goes into it.

Hu et al. 2021 (arXiv:2106.09685), eq. 3: y = W x + b + s B A x. In operations of their own A x is kept for the backward
pass. That is little, but it lies where something large was freed, which then fits there no more: a quarter of what
SmolLM2 took on a CPU were such gaps. Here A x is computed again, and the gradient of x is added up in one place.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.nn import functional as F

from accord.engine.forward.dtype import computed_in

Grads = tuple[Tensor | None, None, Tensor, Tensor, None]


class LowRankLinear(Linear):
    """peft's layer, whose one plain adapter on a frozen matrix is computed in one node; any other is left to peft."""

    def forward(self, x: Tensor, *args: Any, **more: Any) -> Tensor:
        base, name = self.base_layer, self._plain()
        result: Tensor
        if not name or args or more:
            result = super().forward(x, *args, **more)
        else:
            down, up = self.lora_A[name].weight, self.lora_B[name].weight
            result = _Product.apply(x, base, down, up, self.scaling[name])
        return result

    def _plain(self) -> str:
        """The name of the one adapter that is a sum of matrices and nothing else; none where it is otherwise now."""
        if self.disable_adapters or self.merged or any(p.requires_grad for p in self.base_layer.parameters()):
            return ""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if len(names) != 1 or names[0] in self.lora_variant:
            return ""
        (name,) = names
        dropped = self.training and not isinstance(self.lora_dropout[name], nn.Identity)
        return "" if dropped or self.lora_B[name].bias is not None else str(name)


class _Product(torch.autograd.Function):
    """x (..., in), a frozen layer of (out, in), down (r, in), up (out, r): (..., out).

    The layer is kept and not its weight, which may be made of fewer bits at every use.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, base: Any, down: Tensor, up: Tensor, scaling: float) -> Tensor:
        ctx.save_for_backward(x, down, up)
        ctx.base, ctx.scaling, ctx.dtype = base, scaling, computed_in(x)
        rows = x.reshape(-1, x.shape[-1]).to(ctx.dtype)
        out = F.linear(rows, base.weight.to(ctx.dtype), None if base.bias is None else base.bias.to(ctx.dtype))
        out.addmm_(_scaled(rows @ down.to(ctx.dtype).T, scaling), up.to(ctx.dtype).T)
        return out.view(*x.shape[:-1], len(up))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Grads:
        x, down, up = ctx.saved_tensors
        low: torch.dtype = ctx.dtype
        a, b = down.to(low), up.to(low)
        out = grads[0].reshape(-1, len(up)).to(low)
        rows = x.reshape(-1, x.shape[-1]).to(low)
        inner = _scaled(out @ b, ctx.scaling)
        before = None
        if ctx.needs_input_grad[0]:
            before = (out @ ctx.base.weight.to(low)).addmm_(inner, a).view(x.shape).to(x.dtype)
        of_up = out.T @ _scaled(rows @ a.T, ctx.scaling)
        return before, None, (inner.T @ rows).to(down.dtype), of_up.to(up.dtype), None


def _scaled(product: Tensor, scaling: float) -> Tensor:
    return product if scaling == 1.0 else product.mul_(scaling)


def in_one_node(model: nn.Module) -> nn.Module:
    """The model itself, every layer of peft's that is a plain linear one under adapters now computed so."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.__class__ = LowRankLinear
    return model
