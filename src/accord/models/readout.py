"""Log-probs of given tokens from hidden states, without a tensor of rows times vocabulary.

log π(y) = z_y − log Σ_v exp z_v needs no more than a tile of logits z at once: some rows, a range of the vocabulary.
Forward keeps the log-sum of each row, backward computes the same tiles again (cut cross-entropy, arXiv:2411.09009, in
plain torch): one product more, and a memory that does not grow with the vocabulary. Tiles are as wide as stays in a
CPU's cache, and a pass reads the head once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accord.models.kernels import computed_in

LOGITS_AT_ONCE = 2**24  # numbers; more are computed in tiles
TILE = {"cpu": 2**21, "cuda": 2**25}  # numbers
ROWS = 2048  # of a tile at most


@dataclass(frozen=True, slots=True)
class Readout:
    """What stands between the head's product and the logits: factor, then cap·tanh(·/cap), then 1/temperature."""

    factor: float = 1.0
    cap: float = 0.0
    temperature: float = 1.0

    def __call__(self, raw: Tensor) -> Tensor:
        """Logits in f32."""
        out = raw.float()
        if self.factor != 1.0:
            out = out * self.factor
        if self.cap:
            out = self.cap * torch.tanh(out / self.cap)
        return out if self.temperature == 1.0 else out / self.temperature

    def slope(self, logits: Tensor) -> Tensor | float:
        """d logits / d raw, at these logits."""
        steep = self.factor / self.temperature
        return steep * (1.0 - (logits * (self.temperature / self.cap)) ** 2) if self.cap else steep


def linear_logprobs(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, readout: Readout) -> Tensor:
    """Log-probs of `targets` (R,) of the rows `hidden` (R, d) under the head (V, d)."""
    logprobs: Tensor = _LinearLogprobs.apply(hidden, weight, bias, targets, readout, False)[0]
    return logprobs


def linear_logprobs_and_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, readout: Readout
) -> tuple[Tensor, Tensor]:
    """The same with the entropy in nats (R,) at each row, which has no gradient."""
    logprobs, entropy = _LinearLogprobs.apply(hidden, weight, bias, targets, readout, True)
    return logprobs, entropy


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        readout: Readout,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor]:
        low = computed_in(hidden)
        chosen, expected = (hidden.new_zeros(len(hidden), dtype=torch.float32) for _ in range(2))
        logsums = torch.full_like(chosen, float("-inf"))
        for rows, some in _tiles(hidden, weight):
            logits = _logits(hidden[rows], weight[some], None if bias is None else bias[some], readout, low)
            total = torch.logaddexp(logsums[rows], logits.logsumexp(-1))
            at, inside = _within(targets[rows], some)
            chosen[rows] = torch.where(inside, logits.gather(1, at.unsqueeze(1)).squeeze(1), chosen[rows])
            if with_entropy:
                shares = (logits - total.unsqueeze(1)).exp_()
                expected[rows] = expected[rows] * (logsums[rows] - total).exp() + shares.mul_(logits).sum(-1)
            logsums[rows] = total
        ctx.save_for_backward(hidden, weight, bias, targets, logsums)
        ctx.readout, ctx.low = readout, low
        entropy = logsums - expected
        ctx.mark_non_differentiable(entropy)
        return chosen - logsums, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None, None]:
        hidden, weight, bias, targets, logsums = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if to_hidden else None
        grad_weight = torch.zeros_like(weight) if to_weight else None
        grad_bias = torch.zeros_like(bias) if to_bias else None
        for rows, some in _tiles(hidden, weight):
            logits = _logits(hidden[rows], weight[some], None if bias is None else bias[some], ctx.readout, ctx.low)
            slope = ctx.readout.slope(logits)
            # d log π(y) / d z = 1[y] − π
            flow = (logits - logsums[rows].unsqueeze(1)).exp_().neg_()
            at, inside = _within(targets[rows], some)
            flow.scatter_add_(1, at.unsqueeze(1), inside.to(flow.dtype).unsqueeze(1))
            flow = flow.mul_(grads[0][rows].unsqueeze(1) * slope).to(ctx.low)
            if grad_hidden is not None:
                _add_product(grad_hidden[rows], flow, weight[some].to(ctx.low))
            if grad_weight is not None:
                _add_product(grad_weight[some], flow.T, hidden[rows].to(ctx.low))
            if grad_bias is not None:
                grad_bias[some] += flow.sum(0).to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, readout: Readout, low: torch.dtype) -> Tensor:
    with torch.autocast(hidden.device.type, enabled=False):
        raw = hidden.to(low) @ weight.to(low).T
        return readout(raw if bias is None else raw + bias)


def _add_product(into: Tensor, a: Tensor, b: Tensor) -> None:
    """into += a b, without a tensor for the product where the types are one."""
    if into.dtype == a.dtype:
        into.addmm_(a, b)
    else:
        into += (a @ b).to(into.dtype)


def _within(targets: Tensor, some: slice) -> tuple[Tensor, Tensor]:
    """Places of the targets in a range of the vocabulary, and whether they lie in it; those outside have place 0."""
    inside = (targets >= some.start) & (targets < some.stop)
    return torch.where(inside, targets - some.start, 0), inside


def _tiles(hidden: Tensor, weight: Tensor) -> Iterator[tuple[slice, slice]]:
    """Ranges of rows and of the vocabulary whose logits are at most a tile (one row of one token at least)."""
    tile = TILE.get(hidden.device.type, TILE["cpu"])
    for rows in _ranges(len(hidden), min(ROWS, tile)):
        for some in _ranges(len(weight), max(1, tile // (rows.stop - rows.start))):
            yield rows, some


def _ranges(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
