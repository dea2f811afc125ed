"""Rewarded soups: one policy from several, by the mean of their weights (Ramé et al. 2023, arXiv:2306.04488).

A baseline for several objectives without training on their mixture: policies that were each tuned to one criterion from
the same start are joined in a straight line, on which each point is a trade-off.
"""

from collections.abc import Mapping

import torch
from pydantic import Field, model_validator
from torch import nn

from accord.config import Run
from accord.errors import BadInput
from accord.models.loading import load_policy
from accord.models.places import POLICY
from accord.models.tokenizer import load_renderer
from accord.run import RunFolder
from accord.stages.shared import open_run, save_snapshot
from accord.training import distributed


class Soup(Run):
    """Mean weights of snapshots that share a start: a baseline of several objectives, a step of claims."""

    models: dict[str, str] = Field(description="--models.NAME DIR: policies of one shape, each of one objective")
    weights: dict[str, float] = Field(description="--weights.NAME X: what each counts; together 1")

    @model_validator(mode="after")
    def _weights_sum(self) -> "Soup":
        if set(self.weights) != set(self.models):
            raise ValueError("--weights and --models must name the same snapshots")
        if abs(sum(self.weights.values()) - 1) > 1e-6:
            raise ValueError(f"--weights sum to {sum(self.weights.values()):g}; they must sum to 1")
        return self


def run(config: Soup) -> RunFolder:
    """Mix the weights of policies; leaves a policy snapshot."""
    with open_run("soup", config, {f"model.{name}": path for name, path in config.models.items()}) as run:
        if run.finished:
            return run
        distributed.start(run.threads)
        first = next(iter(config.models.values()))
        mixed = interpolate(config.models, config.weights)
        facts = {"models": dict(config.models), "weights": dict(config.weights), "parent": first}
        save_snapshot(run, mixed, load_renderer(first).tokenizer, POLICY, facts)
        run.finish()
        return run


@torch.no_grad()
def interpolate(models: Mapping[str, str], weights: Mapping[str, float]) -> nn.Module:
    """Σ w_i θ_i over snapshots of one shape; BadInput names the first that has another."""
    mixed: nn.Module | None = None
    sums: dict[str, torch.Tensor] = {}
    for name, path in models.items():
        model = load_policy(path)
        parameters = dict(model.named_parameters())
        if mixed is None:
            mixed, sums = model, {key: torch.zeros_like(p, dtype=torch.float64) for key, p in parameters.items()}
        if {k: p.shape for k, p in parameters.items()} != {k: s.shape for k, s in sums.items()}:
            raise BadInput(
                f"--models.{name} {path}: another shape than {next(iter(models.values()))}; they must be alike"
            )
        for key, parameter in parameters.items():
            sums[key] += weights[name] * parameter.double()
    if mixed is None:
        raise BadInput("--models: nothing to mix; name two snapshots or more")
    for key, parameter in mixed.named_parameters():
        parameter.copy_(sums[key])
    return mixed
