"""Several scores as one: ensembles, heads of groups, and models of mean weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from accord.engine.forward.dtype import exact


@dataclass(frozen=True, slots=True)
class Combination:
    """How the columns of a table of scores become one.

    `mean` (by `weights`, equal where empty), `worst` (the least favourable), `variance` (mean less `weight` times the
    variance over the columns): Coste et al. 2023 (arXiv:2310.02743), Eisenstein et al. 2023 (arXiv:2312.09244).
    """

    rule: str = "mean"
    weight: float = 0.0
    weights: Mapping[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"rule": self.rule, "weight": self.weight, "weights": dict(self.weights)}


def combine(table: Tensor, how: Combination, *, names: Sequence[str] = (), higher_is_better: bool = True) -> Tensor:
    """(R, N) to (R,). Of a cost, where higher is worse, the least favourable is the highest, and variance adds.

    `names` are those of the columns where `how` has weights; a name without a weight counts 1.
    """
    if how.rule == "worst":
        return table.amin(1) if higher_is_better else table.amax(1)
    if how.rule == "variance":
        penalty = how.weight * table.var(1, correction=0)
        return table.mean(1) - penalty if higher_is_better else table.mean(1) + penalty
    weights = torch.tensor([how.weights.get(name, 1.0) for name in names] if how.weights else [1.0] * table.shape[1])
    return table @ (weights / weights.sum()).to(table)


def mean_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of models' weights (WARM, Ramé et al. 2024, arXiv:2401.12187), which share a start and its head."""
    first = states[0]
    return {
        name: torch.stack([exact(state[name]) for state in states]).mean(0).to(tensor)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }
