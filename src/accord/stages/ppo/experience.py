"""What one iteration knows of its rollouts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from accord.engine.packing import Group
from accord.records import Prompt, Rollout

CAP = 2.0  # of the ratio by which a token of older weights is weighed


@dataclass(frozen=True)
class Experience:
    """One iteration's rollouts. B replies, prompt by prompt, T slots; everything on the CPU, masked slots are 0.

    `groups` hold a prompt and its replies, which share its tokens. `scores[name]` (B,) are normalised and enter
    advantages, `raw_costs[name]` (B,) are what limits are held on, in logits or a scorer's own units. `values[signal]`,
    `logprobs`, `reference` (log-probs under it) and `kl` (B, T); `kl` is each token's KL by `--kl_estimator`.
    `reward` (B,) is the weighted sum of the rewards' scores; `inside[limit]` (B,) is True for the replies whose prompt
    the limit holds on. `sampler_gap` is mean |log p of the sampler − log p of the trainer|, of some of the replies.
    Where older weights drew them, `sampled` (B, T) are the log-probs of those, and `importance` (B, T) what each token
    weighs for it.
    """

    prompts: list[Prompt]
    rollouts: list[Rollout]
    groups: list[Group]
    mask: Tensor
    logprobs: Tensor
    reference: Tensor
    kl: Tensor
    scores: dict[str, Tensor]
    values: dict[str, Tensor]
    raw_costs: Mapping[str, Tensor] = field(default_factory=dict)
    sampler_gap: float = 0.0
    reward: Tensor = field(default_factory=lambda: torch.zeros(0))
    inside: Mapping[str, Tensor] = field(default_factory=dict)
    sampled: Tensor | None = None
    importance: Tensor | None = None


def weighted_sum(scores: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The reward (B,) that is optimised: every reward's scores times its weight."""
    total = torch.zeros(len(next(iter(scores.values()))))
    for name, weight in weights.items():
        total = total + weight * scores[name]
    return total
