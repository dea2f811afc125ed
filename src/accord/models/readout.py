"""Log-probs of given tokens from hidden states, without a tensor of rows times vocabulary.

log π(y) = z_y − log Σ_v exp z_v needs no more than a few rows of logits z at once. Forward keeps the log-sum of each
row, backward computes the same rows again (cut cross-entropy, arXiv:2411.09009, in plain torch): one product more,
and a memory that does not grow with the vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**24  # numbers; more rows than fit are computed in pieces


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


def linear_logprobs(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, readout: Readout
) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` (R,) and entropies in nats (R,) of the rows `hidden` (R, d) under the head (V, d).

    The entropy has no gradient.
    """
    logprobs, entropy = _LinearLogprobs.apply(hidden, weight, bias, targets, readout)
    return logprobs, entropy


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, readout: Readout
    ) -> tuple[Tensor, Tensor]:
        device = hidden.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        lowered = weight.to(low)
        logprobs, entropy, logsums = (hidden.new_empty(len(hidden), dtype=torch.float32) for _ in range(3))
        for rows in _pieces(len(hidden), len(weight)):
            logits = _logits(hidden[rows], lowered, bias, readout)
            logsum = logits.logsumexp(-1)
            logprobs[rows] = logits.gather(1, targets[rows].unsqueeze(1)).squeeze(1) - logsum
            shares = (logits - logsum.unsqueeze(1)).exp_()
            entropy[rows] = logsum - shares.mul_(logits).sum(-1)
            logsums[rows] = logsum
        ctx.save_for_backward(hidden, weight, bias, targets, logsums)
        ctx.readout, ctx.low = readout, low
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, targets, logsums = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        lowered = weight.to(ctx.low)
        grad_hidden = torch.empty_like(hidden) if to_hidden else None
        grad_weight = torch.zeros_like(weight) if to_weight else None
        grad_bias = torch.zeros_like(bias) if to_bias else None
        for rows in _pieces(len(hidden), len(weight)):
            logits = _logits(hidden[rows], lowered, bias, ctx.readout)
            slope = ctx.readout.slope(logits)
            # d log π(y) / d z = 1[y] − π
            flow = (logits - logsums[rows].unsqueeze(1)).exp_().neg_()
            flow.scatter_add_(1, targets[rows].unsqueeze(1), torch.ones_like(flow[:, :1]))
            flow = flow.mul_(grads[0][rows].unsqueeze(1)).mul_(slope).to(ctx.low)
            if grad_hidden is not None:
                grad_hidden[rows] = (flow @ lowered).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += (flow.T @ hidden[rows].to(ctx.low)).to(weight.dtype)
            if grad_bias is not None:
                grad_bias += flow.sum(0).to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, readout: Readout) -> Tensor:
    with torch.autocast(hidden.device.type, enabled=False):
        raw = hidden.to(weight.dtype) @ weight.T
        return readout(raw if bias is None else raw + bias)


def _pieces(rows: int, vocabulary: int) -> list[slice]:
    """Ranges of rows whose logits are at most `LOGITS_AT_ONCE` numbers (one row at least)."""
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
