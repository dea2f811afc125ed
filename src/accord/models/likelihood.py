"""How likely a model holds texts that go on behind a shared context, and which of them greedy decoding says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from accord.engine.forward.causal import hidden_states, logits_head, token_logprobs
from accord.engine.forward.dtype import exact
from accord.engine.packing import Group, Packing, cut_by_tokens, pack

ROWS = 1024  # of logits in memory at once


@dataclass(frozen=True, slots=True)
class Likelihood:
    """log p of a text of so many tokens, in nats; `greedy` says whether each of them is the likeliest there."""

    logprob: float
    tokens: int
    greedy: bool = False


@torch.no_grad()
def likelihoods(
    model: nn.Module, groups: Sequence[Group], micro_tokens: int, device: torch.device, *, greedy: bool = False
) -> Iterator[list[Likelihood]]:
    """Of every group the likelihood of its replies, of which each context is computed once.

    Whether they are what greedy decoding says is only found with `greedy`, which needs all logits. A tie of two logits
    is the lower id's.
    """
    for part in cut_by_tokens(groups, lambda group: group.tokens, micro_tokens):
        packing = pack(part).to(device)
        logprobs, likeliest = _with_likeliest(model, packing) if greedy else (token_logprobs(model, packing), None)
        sums = _by_reply(exact(logprobs), packing)
        counts = torch.bincount(packing.owner, minlength=packing.replies).tolist()
        hits = counts if likeliest is None else _by_reply(likeliest.float(), packing)
        flat = iter(zip(sums, counts, hits, strict=True))
        for group in part:
            replies = [next(flat) for _ in group.replies]
            yield [Likelihood(total, n, likeliest is not None and hit == n) for total, n, hit in replies]


def _with_likeliest(model: nn.Module, packing: Packing) -> tuple[Tensor, Tensor]:
    """Log-probs (R,) of the targets, and whether each is the likeliest token there."""
    head, hidden = logits_head(model), hidden_states(model, packing)
    found = []
    for start in range(0, len(hidden), ROWS):
        logits = head(hidden[start : start + ROWS]).float()
        targets = packing.targets[start : start + ROWS]
        chosen = logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)
        found.append((chosen, logits.argmax(1) == targets))
    return torch.cat([chosen for chosen, _ in found]), torch.cat([hit for _, hit in found])


def _by_reply(values: Tensor, packing: Packing) -> list[float]:
    """Sums over each reply's tokens."""
    sums = torch.zeros(packing.replies, dtype=values.dtype, device=values.device)
    listed: list[float] = sums.index_add(0, packing.owner, values).tolist()
    return listed
