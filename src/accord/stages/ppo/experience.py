"""What one iteration knows of its rollouts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from accord.engine.packing import Group
from accord.records import Prompt, Rollout
from accord.stages.ppo.config import Ppo


@dataclass(frozen=True)
class Experience:
    """One iteration's rollouts. B replies, prompt by prompt, T slots; everything on the CPU, masked slots are 0.

    `groups` hold a prompt and its replies, which share its tokens. `scores[name]` (B,) normalised, `values[signal]`,
    `logprobs`, `reference` (log-probs under it) and `kl` (B, T); `kl` is each token's KL by `--kl_estimator`.
    `sampler_gap` is mean |log p of the sampler − log p of the trainer|, measured on some of the replies.
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
    sampler_gap: float = 0.0


def in_slice(config: Ppo, name: str, experience: Experience) -> Tensor:
    """(B,) True for the replies whose prompt the limit `name` holds on."""
    return torch.tensor([holds_on(config, name, prompt) for prompt in experience.prompts])


def holds_on(config: Ppo, name: str, prompt: Prompt) -> bool:
    """Whether the limit `name` holds on this prompt."""
    wanted = config.limit_slices.get(name)
    return wanted is None or prompt.slice in wanted.split(",")


def sum_scores(config: Ppo, experience: Experience) -> Tensor:
    """The weighted sum of the rewards, (B,)."""
    total = torch.zeros(len(experience.prompts))
    for name in config.rewards:
        total = total + config.reward_weights.get(name, 1.0) * experience.scores[name]
    return total
