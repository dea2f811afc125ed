"""Rankings of any length: Plackett–Luce, and the ordered pairs of a ranking."""

from collections.abc import Sequence

import torch
from torch import Tensor


def plackett_luce_values(scores: Tensor, ranks: Tensor) -> Tensor:
    """−log P(ranking) (N,) under Plackett–Luce: Σ_k −log( e^{s_k} / Σ_{j no better than k} e^{s_j} ).

    Plackett 1975, Luce 1959; Rafailov et al. 2023 (arXiv:2305.18290) appendix A.3 for its use in DPO. `scores` and
    `ranks` are (N, K); rank 1 is the best, 0 stands where no reply is, and what `scores` holds there has no influence.
    Two replies are Bradley–Terry. A tie says nothing about the order of its members: each is compared with what is
    ranked strictly worse.
    """
    present = ranks > 0
    scores = torch.where(present, scores, torch.zeros_like(scores))
    worse = worse_of(ranks)
    competitors = worse | torch.eye(scores.shape[1], dtype=torch.bool, device=scores.device)
    table = scores.unsqueeze(1).expand(-1, scores.shape[1], -1)
    # a finite stand-in for −inf keeps 0 · inf out of the gradient
    above = torch.where(competitors, table, torch.full_like(table, -1e30)).logsumexp(dim=2) - scores
    return torch.where(worse.any(dim=2), above, torch.zeros_like(above)).sum(dim=1)


def worse_of(ranks: Tensor) -> Tensor:
    """(N, K, K) bool: [n, i, j] says that reply j is ranked strictly worse than i."""
    present = (ranks > 0).unsqueeze(2)  # of i; what is ranked worse than anything has a rank
    return present & (ranks.unsqueeze(1) > ranks.unsqueeze(2))


def ranked_pairs(ranks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Every (better, worse) pair of a ranking's places; ties give none."""
    count = range(len(ranks))
    return tuple((i, j) for i in count for j in count if ranks[i] < ranks[j])


def tied_pairs(ranks: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Every pair of places with equal ranks, each once."""
    count = range(len(ranks))
    return tuple((i, j) for i in count for j in count if i < j and ranks[i] == ranks[j])
