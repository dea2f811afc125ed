"""Limits: the step of each multiplier, and the check at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from accord.engine.decode.sampler import sample
from accord.engine.texts import rollout_groups
from accord.models.limits import Limit
from accord.objectives.lagrange import RULES, window_mean
from accord.records import Prompt
from accord.run import RunFolder
from accord.stages.ppo.actors import Actors
from accord.stages.ppo.config import LimitKnobs, Ppo
from accord.stages.ppo.experience import Experience
from accord.stages.ppo.state import State
from accord.stages.shared import sample_settings
from accord.stages.verdicts import judge_limit
from accord.training.distributed import World

CHECK_SEED = 0x11A17  # keeps the replies of the check apart from those of every iteration


def move_multipliers(
    knobs: LimitKnobs, limits: Mapping[str, Limit], experience: Experience, state: State
) -> dict[str, float]:
    """One step of every multiplier, by the raw costs of this batch, or window of batches, on the limit's slice."""
    windows: dict[str, float] = {}
    for name, limit in limits.items():
        costs = experience.raw_costs[name][experience.inside[name]]
        if len(costs):
            window = [*state.windows.get(name, []), (float(limit.bounded(costs).mean()), len(costs))]
            state.windows[name] = window[-int(knobs.of_limit("limit_window", name)) :]
            state.multipliers[name] = RULES[knobs.multiplier_rule](
                state.multipliers[name],
                limit.error(window_mean(state.windows[name])),
                rate=knobs.of_limit("multiplier_rate", name),
                gain=knobs.of_limit("multiplier_gain", name),
                bound=knobs.of_limit("multiplier_bound", name),
            )
            if knobs.of_limit("limit_window", name) > 1:
                windows[f"cost/{name}/window"] = window_mean(state.windows[name])
    return hold_multipliers(knobs, limits, experience, state) | windows


def hold_multipliers(
    knobs: LimitKnobs, limits: Mapping[str, Limit], experience: Experience, state: State
) -> dict[str, float]:
    """The numbers of every limit as its multiplier stands: nothing moves, as while the policy does not."""
    metrics: dict[str, float] = {}
    for name, limit in limits.items():
        inside = experience.inside[name]
        if inside.any():
            metrics |= cost_metrics(limit, experience.raw_costs[name][inside])
        metrics[f"lagrange/{name}"] = state.multipliers[name].value
    return metrics | free_costs(knobs, experience)


def cost_metrics(limit: Limit, costs: Tensor) -> dict[str, float]:
    """Of raw costs (N,): their mean, the share above 0 and, where that is bounded, the expected unsafe share."""
    found = mean_and_unsafe(limit.name, costs)
    return found | ({f"cost/{limit.name}/expected": float(limit.bounded(costs).mean())} if limit.of == "unsafe" else {})


def mean_and_unsafe(name: str, costs: Tensor) -> dict[str, float]:
    """Mean raw cost (N,) and the share of replies that cost more than 0."""
    return {f"cost/{name}/mean": float(costs.mean()), f"cost/{name}/unsafe": float((costs > 0).float().mean())}


def free_costs(knobs: LimitKnobs, experience: Experience) -> dict[str, float]:
    """Costs without a limit, on all prompts."""
    metrics: dict[str, float] = {}
    for name in set(knobs.costs) - set(knobs.limits):
        metrics |= mean_and_unsafe(name, experience.raw_costs[name])
    return metrics


def check_limits(
    config: Ppo, run: RunFolder, world: World, actors: Actors, policy: nn.Module, prompts: Sequence[Prompt]
) -> Mapping[str, Any]:
    """What is bounded, of one reply to each held-out prompt, with its interval and whether each limit is met.

    Each rank draws and scores its share.

    Leaves `limits.json`. Nothing of these prompts was trained on; the cost model is the one that was optimised against,
    so what its limit promises about another judge is for `accord evaluate` to say.
    """
    numbers = world.share(range(len(prompts)))
    own = [prompts[i] for i in numbers]
    rollouts = sample(
        policy,
        [actors.renderer.prompt_ids(prompt.turns) for prompt in own],
        sample_settings(config, actors.renderer, 1, config.seed * 1_000_003 + CHECK_SEED, numbers=numbers),
    )
    texts = [actors.renderer.text(rollout.ids) for rollout in rollouts]
    groups = rollout_groups(rollouts)
    out: dict[str, Any] = {}
    for name, limit in actors.limits.items():
        scored = actors.costs[name].raw_scores(own, texts, groups, micro_tokens=config.micro_tokens)
        costs = torch.tensor(world.interleave(scored.tolist()))
        out[name] = judge_limit(limit, costs, prompts, config.limit_slices.get(name, ""), seed=config.seed)
    run.write_json("limits.json", out)
    return out
