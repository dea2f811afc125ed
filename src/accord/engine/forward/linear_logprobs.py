"""Log-probs of given tokens from hidden states, without keeping a tensor of rows times vocabulary that is not needed.

log π(y) = z_y − log Σ_v exp z_v needs no more than a tile of logits z at once: some rows, a range of the vocabulary.
Of few logits the exponentials are kept, as the probabilities that they are but for a factor of their row: gradients are
products of them as they stand, and no other pass over rows times vocabulary is made. Of many, forward keeps
the log-sum of each row, and backward computes the same tiles again (cut cross-entropy, arXiv:2411.09009, in plain
torch): one product more, and a memory that does not grow with the vocabulary. Tiles are as wide as stays in a CPU's
cache, and a pass reads the head once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accord.engine.forward.dtype import computed_in

KEPT = 2**24  # exponentials at most; of more logits, tiles are computed again
TILE = {"cpu": 2**21, "cuda": 2**25}  # numbers
ROWS = 2048  # of a tile at most
ROWS_OF_ALL = 64  # rows over the whole vocabulary at least: a product of fewer is bound by reading the head


@dataclass(frozen=True, slots=True)
class LogitTransform:
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

    @property
    def steep(self) -> float:
        """d logits / d raw where no cap bends it."""
        return self.factor / self.temperature

    def slope(self, logits: Tensor) -> Tensor | float:
        """d logits / d raw, at these logits."""
        return self.steep * (1.0 - (logits * (self.temperature / self.cap)) ** 2) if self.cap else self.steep


def linear_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, transform: LogitTransform
) -> Tensor:
    """Log-probs of `targets` (R,) of the rows `hidden` (R, d) under the head (V, d)."""
    return _logprobs(hidden, weight, bias, targets, transform, with_entropy=False)[0]


def linear_logprobs_and_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, transform: LogitTransform
) -> tuple[Tensor, Tensor]:
    """The same with the entropy in nats (R,) at each row, which has no gradient."""
    return _logprobs(hidden, weight, bias, targets, transform, with_entropy=True)


def _logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    transform: LogitTransform,
    *,
    with_entropy: bool,
) -> tuple[Tensor, Tensor]:
    tensors = hidden, weight, bias, targets
    if len(hidden) * len(weight) > KEPT or transform.cap:  # with which the slope differs from logit to logit
        logprobs, entropy = _Tiled.apply(*tensors, _Asked(transform, with_entropy))
    else:
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, weight, bias))
        logprobs, entropy = _Kept.apply(*tensors, _Asked(transform, with_entropy, keep))
    return logprobs, entropy


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a pass is to give, beside log-probs; `keep` what its backward needs."""

    transform: LogitTransform
    with_entropy: bool
    keep: bool = True


class _Kept(torch.autograd.Function):
    """With e = exp(z − max z) of every logit kept: π = e / Σ e.

    d log π(y) / d z = 1[y] − π; a row's factors, the loss's gradient and 1 / Σ e, are put to what is as narrow as the
    hidden states, never to rows times vocabulary. Without gradients nothing is kept, and the numbers are the same.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, asked: _Asked
    ) -> tuple[Tensor, Tensor]:
        low = computed_in(hidden)
        kept = hidden.new_empty((len(hidden), len(weight)), dtype=low) if asked.keep else None
        chosen, totals, expected = (hidden.new_zeros(len(hidden), dtype=torch.float32) for _ in range(3))
        for rows in _ranges(len(hidden), max(ROWS_OF_ALL, min(ROWS, _tile(hidden) // len(weight)))):
            shifted = _logits(hidden[rows], weight, bias, asked.transform, low)
            shifted.sub_(shifted.amax(-1, keepdim=True))
            chosen[rows] = shifted.gather(1, targets[rows].unsqueeze(1)).squeeze(1)
            into = kept[rows] if kept is not None and kept.dtype == shifted.dtype else None
            exps = torch.exp(shifted, out=into)
            if kept is not None and into is None:
                kept[rows] = exps
            totals[rows] = exps.sum(-1)
            if asked.with_entropy:
                expected[rows] = shifted.mul_(exps).sum(-1)
        ctx.save_for_backward(hidden, weight, bias, targets, kept, totals)
        ctx.steep = asked.transform.steep
        entropy = totals.log() - expected / totals
        ctx.mark_non_differentiable(entropy)
        return chosen - totals.log(), entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets, kept, totals = ctx.saved_tensors
        flow = (grads[0] * ctx.steep).unsqueeze(1)
        spread = flow / totals.unsqueeze(1)
        to_hidden = to_weight = to_bias = None
        with torch.autocast(hidden.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                to_hidden = weight.index_select(0, targets).mul_(flow)
                to_hidden.sub_((kept @ weight.to(kept.dtype)).mul_(spread))
            if ctx.needs_input_grad[1]:
                to_weight = (kept.T @ (hidden * spread).to(kept.dtype)).to(weight.dtype).neg_()
                to_weight.index_add_(0, targets, (hidden * flow).to(weight.dtype))
            if ctx.needs_input_grad[2]:
                to_bias = (kept.T @ spread.to(kept.dtype)).to(bias.dtype).neg_().squeeze(1)
                to_bias.index_add_(0, targets, flow.squeeze(1).to(bias.dtype))
        return to_hidden, to_weight, to_bias, None, None


class _Tiled(torch.autograd.Function):
    """With the log-sum of every row kept, and the logits computed again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, asked: _Asked
    ) -> tuple[Tensor, Tensor]:
        low = computed_in(hidden)
        chosen, expected = (hidden.new_zeros(len(hidden), dtype=torch.float32) for _ in range(2))
        logsums = torch.full_like(chosen, float("-inf"))
        for rows, some in _tiles(hidden, weight):
            shifted = _logits(hidden[rows], weight[some], None if bias is None else bias[some], asked.transform, low)
            at, inside = _within(targets[rows], some)
            chosen[rows] = torch.where(inside, shifted.gather(1, at.unsqueeze(1)).squeeze(1), chosen[rows])
            highest = shifted.amax(-1, keepdim=True)
            shifted.sub_(highest)
            exps = shifted.exp() if asked.with_entropy else shifted.exp_()
            here = exps.sum(-1)
            tile = highest.squeeze(1) + here.log()
            total = torch.logaddexp(logsums[rows], tile)
            if asked.with_entropy:
                mean = highest.squeeze(1) + shifted.mul_(exps).sum(-1) / here
                expected[rows] = expected[rows] * (logsums[rows] - total).exp() + mean * (tile - total).exp()
            logsums[rows] = total
        ctx.save_for_backward(hidden, weight, bias, targets, logsums)
        ctx.transform, ctx.low = asked.transform, low
        entropy = logsums - expected
        ctx.mark_non_differentiable(entropy)
        return chosen - logsums, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, targets, logsums = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if to_hidden else None
        grad_weight = torch.zeros_like(weight) if to_weight else None
        grad_bias = torch.zeros_like(bias) if to_bias else None
        for rows, some in _tiles(hidden, weight):
            logits = _logits(hidden[rows], weight[some], None if bias is None else bias[some], ctx.transform, ctx.low)
            slope = ctx.transform.slope(logits)
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
        return grad_hidden, grad_weight, grad_bias, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, transform: LogitTransform, low: torch.dtype) -> Tensor:
    with torch.autocast(hidden.device.type, enabled=False):
        raw = hidden.to(low) @ weight.to(low).T
        return transform(raw if bias is None else raw + bias)


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
    tile = _tile(hidden)
    for rows in _ranges(len(hidden), min(ROWS, tile)):
        for some in _ranges(len(weight), max(1, tile // (rows.stop - rows.start))):
            yield rows, some


def _tile(hidden: Tensor) -> int:
    """Numbers of a tile on this device."""
    return TILE.get(hidden.device.type, TILE["cpu"])


def _ranges(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
