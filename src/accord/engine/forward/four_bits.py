"""A frozen matrix in 4 bits, for the base under adapters (Dettmers et al. 2023, QLoRA, arXiv:2305.14314).

Blocks of 64 numbers have a scale of their own, an f32 number, and four bits name one of 16 shares of it, those between
which normal numbers lie alike (NF4). The code and its kernels are bitsandbytes', on a CPU as on a GPU.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from accord.engine.forward.dtype import computed_in

BLOCK = 64  # numbers that share a scale
Known = dict[int, tuple[Tensor, nn.Parameter, nn.Parameter]]  # by the id of a parameter: it, its codes and scales


class FourBitLinear(nn.Module):
    """A linear layer that nothing trains; `weight` (out, in) is made of its codes at every use, in bf16 or f32."""

    def __init__(
        self,
        codes: nn.Parameter,
        scales: nn.Parameter,
        bias: nn.Parameter | None,
        shape: torch.Size,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.codes, self.scales, self.bias, self.shape, self.dtype = codes, scales, bias, shape, dtype

    @property
    def weight(self) -> Tensor:
        import bitsandbytes.functional as kernels

        known: Any = kernels.QuantState(
            absmax=self.scales,
            shape=self.shape,
            code=kernels.get_4bit_type("nf4", device=self.codes.device),
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=self.dtype,
        )
        made: Tensor = kernels.dequantize_4bit(self.codes, known)
        return made

    def forward(self, x: Tensor) -> Tensor:
        low = computed_in(x)
        return F.linear(x.to(low), self.weight.to(low), None if self.bias is None else self.bias.to(low))


@torch.no_grad()
def in_four_bits(linear: nn.Linear, dtype: torch.dtype, known: Known) -> FourBitLinear:
    """The layer with its matrix in 4 bits; `dtype` is that of the products. A parameter that is `known` is once."""
    import bitsandbytes.functional as kernels

    weight = linear.weight
    if id(weight) not in known:
        codes, state = kernels.quantize_4bit(weight.float().contiguous(), blocksize=BLOCK, quant_type="nf4")
        known[id(weight)] = (weight, nn.Parameter(codes, False), nn.Parameter(state.absmax, False))
    return FourBitLinear(*known[id(weight)][1:], linear.bias, weight.shape, dtype)
