"""Limits: which prompts each holds on, and the step of its multiplier."""

import torch
from torch import Tensor

from accord.config import Ppo
from accord.objectives.lagrange import RULES
from accord.stages.ppo_rollouts import Experience
from accord.stages.ppo_state import State


def in_slice(config: Ppo, name: str, experience: Experience) -> Tensor:
    """(B,) True for the replies whose prompt the limit `name` holds on."""
    wanted = config.limit_slices.get(name)
    if wanted is None:
        return torch.ones(len(experience.prompts), dtype=torch.bool)
    names = set(wanted.split(","))
    return torch.tensor([p.slice in names for p in experience.prompts])


def move_multipliers(config: Ppo, experience: Experience, state: State) -> dict[str, float]:
    """One step of every multiplier, by the raw mean cost of this batch on the limit's slice."""
    metrics: dict[str, float] = {}
    for name, limit in config.limits.items():
        inside = in_slice(config, name, experience)
        if inside.any():
            costs = experience.scores[name][inside]
            state.multipliers[name] = RULES[config.multiplier_rule](
                state.multipliers[name],
                float(costs.mean()),
                limit,
                rate=config.multiplier_rate,
                gain=config.multiplier_gain,
                bound=config.multiplier_bound,
            )
            metrics[f"cost/{name}/mean"] = float(costs.mean())
            metrics[f"cost/{name}/unsafe"] = float((costs > 0).float().mean())
        metrics[f"lagrange/{name}"] = state.multipliers[name].value
    for name in set(config.costs) - set(config.limits):
        metrics[f"cost/{name}/mean"] = float(experience.scores[name].mean())
        metrics[f"cost/{name}/unsafe"] = float((experience.scores[name] > 0).float().mean())
    return metrics
