"""What is written about an iteration: numbers, and a few replies beside theirs."""

import numpy as np
import torch

from accord.data.chat import Renderer
from accord.data.rows import rollout_row
from accord.objectives.kl import sqrt_kl
from accord.objectives.masked import masked_mean
from accord.objectives.policy_gradient import effective_share
from accord.run import RunFolder
from accord.stages.ppo.actors import Actors
from accord.stages.ppo.experience import CAP, Experience
from accord.stages.ppo.state import State
from accord.stages.shared import gold_scores


def rollout_metrics(actors: Actors, experience: Experience, state: State) -> dict[str, float]:
    """What the rollouts looked like: scores, unclamped KL, lengths, gold where known."""
    kl = experience.kl.sum(1)
    metrics = {
        "objective/kl": float(kl.mean()),
        "sqrt_kl": sqrt_kl(float(kl.mean())),
        "objective/scores": float(experience.reward.mean()),
        "kl_coefficient": state.kl_coefficient,
        "policy/sampler_gap": experience.sampler_gap,
        "completions/mean_length": float(experience.mask.sum(1).float().mean()),
        "completions/clipped_ratio": float(np.mean([r.finish == "length" for r in experience.rollouts])),
    }
    slices = sorted({p.slice for p in experience.prompts})
    places = {s: torch.tensor([p.slice == s for p in experience.prompts]) for s in slices}
    for name in actors.rewards:
        metrics[f"reward/{name}"] = float(experience.scores[name].mean())
        metrics |= {f"reward/{name}/{s}": float(experience.scores[name][inside].mean()) for s, inside in places.items()}
    for name, scorer in actors.scorers.items():
        metrics |= {f"labeler/{name}/{what}": value for what, value in scorer.spent.items()}
    for name in actors.costs:
        for s, inside in places.items():
            costs = experience.raw_costs[name][inside]
            metrics[f"cost/{name}/{s}/mean"] = float(costs.mean())
            metrics[f"cost/{name}/{s}/unsafe"] = float((costs > 0).float().mean())
    metrics |= gold_means(experience, actors.renderer)
    return metrics


def importance_metrics(experience: Experience) -> dict[str, float]:
    """How far the weights that drew are from those that are trained; nothing where they are the same."""
    weights, mask = experience.importance, experience.mask
    if weights is None:
        return {}
    return {
        "policy/importance": float(masked_mean(weights, mask)),
        "policy/importance_truncated": float(masked_mean((weights >= CAP).float(), mask)),
        "policy/importance_effective": float(effective_share(weights, mask)),
    }


def gold_means(experience: Experience, renderer: Renderer) -> dict[str, float]:
    """Mean gold scores of the batch, where its prompts come from the gold world; for display, never for training."""
    sums: dict[str, list[float]] = {}
    for prompt, rollout in zip(experience.prompts, experience.rollouts, strict=True):
        for name, value in gold_scores(prompt, renderer.text(rollout.ids)).items():
            sums.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sums.items()}


def add_samples(run: RunFolder, renderer: Renderer, experience: Experience, step: int, *, count: int = 4) -> None:
    """Log a few replies beside their numbers."""
    for prompt, rollout, i in list(zip(experience.prompts, experience.rollouts, range(count), strict=False)):
        reply = renderer.text(rollout.ids)
        shown = {**experience.scores, **experience.raw_costs}
        scores = {name: float(score[i]) for name, score in shown.items()} | gold_scores(prompt, reply)
        kl = float(experience.kl[i].sum())
        run.add_sample(rollout_row(prompt, reply, rollout, step=step, kl=kl, scores=scores))
