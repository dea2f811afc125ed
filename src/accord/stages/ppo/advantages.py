"""From scores, KL and values to one advantage per token."""

import torch
from torch import Tensor

from accord.objectives.advantage import (
    combine_advantages,
    gae,
    leave_one_out,
    less_group_mean,
    over_group_deviation,
    reply_returns,
    returns_to_go,
    token_signals,
)
from accord.objectives.masked import masked_mean, scale_to_unit, whiten
from accord.stages.ppo.actors import REWARD
from accord.stages.ppo.config import LimitKnobs, Ppo
from accord.stages.ppo.experience import Experience
from accord.stages.ppo.state import State

BASELINES = {"rloo": leave_one_out, "grpo": less_group_mean, "dr-grpo": less_group_mean}


def compute_advantages(
    config: Ppo, experience: Experience, state: State
) -> tuple[Tensor, dict[str, Tensor], dict[str, float]]:
    """The combined advantage (B, T), normalised as its method does; the returns of every critic's signal; metrics."""
    mask, streams = experience.mask, signal_streams(config, experience, state)
    returns: dict[str, Tensor] = {}
    if config.advantages == "gae":
        advantages = {}
        for name, stream in streams.items():
            advantages[name], returns[name] = gae(
                stream, experience.values[name], mask, gamma=config.gamma, lam=config.lam
            )
        combined = combine(config, experience, state, advantages)
        combined = whiten(combined, mask) if config.whiten else combined
    elif config.advantages == "reinforce++":
        tails = {name: returns_to_go(stream, mask, gamma=config.gamma) for name, stream in streams.items()}
        combined = whiten(combine(config, experience, state, tails), mask)
    else:
        baseline = BASELINES[config.advantages]
        centred = {
            name: baseline(reply_returns(stream, mask), config.samples).unsqueeze(1) for name, stream in streams.items()
        }
        combined = combine(config, experience, state, centred)
        if config.advantages == "grpo":
            combined = over_group_deviation(combined.squeeze(1), config.samples).unsqueeze(1)
        combined = torch.where(mask, combined, torch.zeros_like(experience.kl))
    charged = streams[REWARD].sum(1)
    if config.kl_in == "loss":
        charged = charged - state.kl_coefficient * experience.kl.sum(1)
    metrics = {"objective/rlhf_reward": float(charged.mean())}
    metrics |= {f"values/{n}": float(masked_mean(experience.values[n], mask)) for n in returns}
    return combined, returns, metrics


def signal_streams(config: Ppo, experience: Experience, state: State) -> dict[str, Tensor]:
    """Reward and cost of every token (B, T): KL along the reply where it is paid in the reward, scores at the end."""
    mask, kl, beta = experience.mask, experience.kl, state.kl_coefficient if config.kl_in == "reward" else 0.0
    bound = config.score_clip or float("inf")
    reward = experience.reward.clamp(-bound, bound)
    unfinished = torch.tensor([r.finish == "length" for r in experience.rollouts])
    reward = reward - config.unfinished_penalty * unfinished
    streams = {REWARD: token_signals(reward, kl, mask, kl_weight=-beta)}
    if config.scale_rewards:
        streams[REWARD] = scale_to_unit(streams[REWARD], mask)
    for name in config.costs:
        streams[name] = token_signals(experience.scores[name].clamp(-bound, bound), kl, mask, kl_weight=beta)
    return streams


def combine(knobs: LimitKnobs, experience: Experience, state: State, advantages: dict[str, Tensor]) -> Tensor:
    """One advantage from those of all signals, by the multipliers; those of costs without a limit are left out."""
    limited = {name: advantages[name] for name in knobs.limits}
    weights = {n: state.multipliers[n].value * experience.inside[n].float() for n in limited}
    return combine_advantages(advantages[REWARD], limited, weights)
