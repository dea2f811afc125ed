"""From scores, KL and values to one advantage per token."""

import torch
from torch import Tensor

from accord.config import Ppo
from accord.objectives.advantage import combine_advantages, gae, token_signals
from accord.objectives.masked import masked_mean, whiten
from accord.stages.ppo_actors import REWARD
from accord.stages.ppo_limits import in_slice
from accord.stages.ppo_rollouts import Experience
from accord.stages.ppo_state import State


def shape(config: Ppo, experience: Experience, state: State) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """The combined (whitened) advantage (B, T), the returns of every signal, and metrics."""
    mask, kl, beta = experience.mask, experience.kl, state.kl_coefficient
    bound = config.score_clip or float("inf")
    reward = sum_scores(config, experience).clamp(-bound, bound)
    unfinished = torch.tensor([r.finish == "length" for r in experience.rollouts])
    reward = reward - config.unfinished_penalty * unfinished
    streams = {REWARD: token_signals(reward, kl, mask, kl_weight=-beta)}
    for name in config.costs:
        streams[name] = token_signals(experience.scores[name].clamp(-bound, bound), kl, mask, kl_weight=beta)
    advantages, returns = {}, {}
    for name, stream in streams.items():
        advantages[name], returns[name] = gae(stream, experience.values[name], mask, gamma=config.gamma, lam=config.lam)
    limited = {name: advantages[name] for name in config.limits}
    weights = {n: state.multipliers[n].value * in_slice(config, n, experience).float() for n in limited}
    combined = combine_advantages(advantages[REWARD], limited, weights)
    metrics = {"objective/rlhf_reward": float(streams[REWARD].sum(1).mean())}
    metrics |= {f"values/{n}": float(masked_mean(experience.values[n], mask)) for n in streams}
    return whiten(combined, mask) if config.whiten else combined, returns, metrics


def sum_scores(config: Ppo, experience: Experience) -> Tensor:
    """The weighted sum of the rewards, (B,)."""
    total = torch.zeros(len(experience.prompts))
    for name in config.rewards:
        total = total + config.reward_weights.get(name, 1.0) * experience.scores[name]
    return total
