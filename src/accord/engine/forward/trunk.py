"""The trunk of common decoders over a packing, without what no head reads.

transformers' own forward computes the last layer at every token. Heads read a few of them: here the last layer's
queries, output and MLP are computed at those alone, which of a short model with long prompts is a sixth of the work.
Its norms and rotations also keep more tensors than their gradients need; on a CPU, where such operations are bound by
memory, they are functions with gradients of their own.

Layers' submodules are called as they are, so adapters and compiled parts serve. `engine.forward.causal` compares with
the model's plain forward before the first use.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from accord.engine.forward.attention import attend_packed
from accord.engine.forward.recompute import again
from accord.engine.forward.within import within
from accord.engine.packing import Attention, Packing

FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3"})  # RMSNorm, rotary positions, gated MLPs

Rotation = tuple[Tensor, Tensor]  # cosines and sines (T, 1, size)


def trunk_states(base: Any, packing: Packing) -> Tensor:
    """Hidden states (R, d) behind the last norm at the packing's rows; `base` is a model of `FAMILIES` without head."""
    x = base.embed_tokens(packing.ids)
    cosine, sine = (t[0].unsqueeze(1) for t in base.rotary_emb(x, packing.positions.unsqueeze(0)))
    *layers, last = base.layers
    for layer in layers:
        x = _kept(layer)(within, layer, _layer, layer, x, (cosine, sine), packing.attention)
    attention, rows = packing.ending
    x = _kept(last)(within, last, _layer, last, x, (cosine, sine), attention)
    return _norm(base.norm, x.index_select(0, rows))


def _kept(layer: Any) -> Callable[..., Tensor]:
    """How a layer's function is called: plainly, or so that its activations are computed again."""
    return again if layer.gradient_checkpointing and torch.is_grad_enabled() else _plainly


def _plainly(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    return function(*inputs)


def _layer(layer: Any, x: Tensor, rotation: Rotation, attention: Attention) -> Tensor:
    """Residual stream (T, d) to that (Q, d) of the tokens `attention.at`."""
    own = layer.self_attn

    def heads(linear: nn.Module, hidden: Tensor) -> Tensor:
        return linear(hidden).unflatten(-1, (-1, own.head_dim))

    hidden = _norm(layer.input_layernorm, x)
    key, value = heads(own.k_proj, hidden), heads(own.v_proj, hidden)
    asked = rotation
    if len(attention.at) < len(x):
        x, hidden = (t.index_select(0, attention.at) for t in (x, hidden))
        asked = rotation[0][attention.at], rotation[1][attention.at]
    query = heads(own.q_proj, hidden)
    if hasattr(own, "q_norm"):
        query, key = _norm(own.q_norm, query), _norm(own.k_norm, key)
    seen = attend_packed(attention, _rotated(query, asked), _rotated(key, rotation), value, scaling=own.scaling)
    x = x + own.o_proj(seen.flatten(1))
    out: Tensor = x + layer.mlp(_norm(layer.post_attention_layernorm, x))
    return out


def _norm(module: Any, x: Tensor) -> Tensor:
    if x.device.type != "cpu" or x.dtype != torch.float32 or module._compiled_call_impl is not None:
        out: Tensor = module(x)
        return out
    out = _RMSNorm.apply(x, module.weight, module.variance_epsilon)
    return out


def _rotated(x: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (T, heads, size), each pair of numbers half a size apart turned by its angle."""
    out: Tensor = _Rotation.apply(x, *rotation)
    return out


class _RMSNorm(torch.autograd.Function):
    """y = u·w with u = x·r, r = 1/√(mean x² + ε); dx = r·(h − u·mean(h·u)) with h = w·dy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        unit = x * scale
        ctx.save_for_backward(unit, scale, weight)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        unit, scale, weight = ctx.saved_tensors
        product = grad * unit
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            with torch.autocast(grad.device.type, enabled=False):
                mean = (product @ weight).div_(unit.shape[-1]).unsqueeze(-1)
            to_x = (grad * weight).addcmul_(unit, mean, value=-1).mul_(scale)
        if ctx.needs_input_grad[1]:
            to_weight = product.flatten(0, -2).sum(0)
        return to_x, to_weight, None


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        return _turned(x, cosine, sine, 1.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        return _turned(grad, cosine, sine, -1.0), None, None


def _turned(x: Tensor, cosine: Tensor, sine: Tensor, sign: float) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out = torch.empty(x.shape, dtype=torch.promote_types(x.dtype, cosine.dtype), device=x.device)
    cosines, sines = cosine.chunk(2, dim=-1), sine.chunk(2, dim=-1)
    above, below = out.chunk(2, dim=-1)
    torch.mul(first, cosines[0], out=above).addcmul_(second, sines[0], value=-sign)
    torch.mul(second, cosines[1], out=below).addcmul_(first, sines[1], value=sign)
    return out
