"""Implicit rewards: what the direct family compares instead of the scores of a preference model.

A policy π and a reference π_ref define the reward β · log π(y|x) / π_ref(y|x), up to a term of the prompt alone
(Rafailov et al. 2023, arXiv:2305.18290, eq. 5). Whether log-probs are summed or averaged over a reply's tokens is
`reduction`; β and τ are not portable between the two (a mean is smaller by the length of the reply).
"""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["sum", "mean"]


def sequence_logprobs(logprobs: Tensor, owner: Tensor, replies: int, reduction: Reduction) -> Tensor:
    """Log-probs (R,) of tokens to those of `replies` sequences; `owner` (R,) numbers the sequence of each token.

    A sequence without a token has 0, under both reductions.
    """
    sums = logprobs.new_zeros(replies).index_add(0, owner, logprobs)
    return reduce(sums, token_counts(owner, replies), reduction)


def token_counts(owner: Tensor, replies: int) -> Tensor:
    """Tokens of each sequence, (replies,) f32."""
    return torch.bincount(owner, minlength=replies).float()


def reduce(sums: Tensor, tokens: Tensor, reduction: Reduction) -> Tensor:
    """Summed log-probs, or log-ratios, as they are or per token; any shape, `tokens` the same."""
    return sums if reduction == "sum" else sums / tokens.clamp(min=1)


def reward_metrics(
    chosen: Tensor,
    rejected: Tensor,
    logps_chosen: Tensor,
    logps_rejected: Tensor,
    weights: Tensor,
    count: Tensor | float,
) -> dict[str, Tensor]:
    """Means over pairs under TRL's names, all (N,): implicit rewards, summed log-probs, weights.

    Equal rewards count one half in `rewards/accuracies`.
    """
    margins = chosen - rejected
    right = (margins > 0).float() + 0.5 * (margins == 0).float()
    columns = {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": right,
        "rewards/margins": margins,
        "logps/chosen": logps_chosen,
        "logps/rejected": logps_rejected,
    }
    return {name: (weights * column).detach().sum() / count for name, column in columns.items()}
