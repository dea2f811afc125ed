"""Limits on expected cost, as PPO holds them and the direct family checks them: what each bounds of its cost model.

Two things can be bounded (`--limit_of`): `cost`, the mean raw cost in the head's own units, and `unsafe`, the expected
share of unsafe replies E[σ(C / T)], which needs no knowledge of the head and therefore a calibration of it. Neither
sees a normaliser, a clip or KL.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from accord.config import LimitOf, of_limit
from accord.errors import BadInput
from accord.evaluation.safety import LEAST_LABELS, SafetyCalibration
from accord.models.scorers import ReplyScorer
from accord.objectives.lagrange import cost_error, unsafe_error


@dataclass(frozen=True)
class Limit:
    """A bound on an expectation over replies, with what it takes to compare them.

    `of` cost: `bound` in the head's units, `deviation` that of the raw cost on the cost model's training replies.
    `of` unsafe: `bound` a share in (0, 1), `calibration` what turns a raw cost into the chance that a reply is unsafe.
    """

    name: str
    bound: float
    of: LimitOf = "cost"
    deviation: float = 1.0
    calibration: SafetyCalibration | None = None

    def bounded(self, costs: Tensor) -> Tensor:
        """What the bound is on, of every reply (N,), from raw costs (N,)."""
        return costs if self.calibration is None else torch.sigmoid(costs / self.calibration.temperature)

    def error(self, mean: float) -> float:
        """What moves λ, above 0 where the mean of what is bounded is over the bound; of the same size for any head."""
        return unsafe_error(mean, self.bound) if self.of == "unsafe" else cost_error(mean, self.bound, self.deviation)


def open_limits(
    bounds: Mapping[str, float], limit_of: LimitOf | Mapping[str, LimitOf], scorers: Mapping[str, ReplyScorer]
) -> dict[str, Limit]:
    """Every limit with what its cost model says of its own raw cost. BadInput for a share that was not calibrated."""
    found = {}
    for name, bound in bounds.items():
        known, of, where = scorers[name].measured, of_limit(limit_of, name), scorers[name].where
        if of == "unsafe":
            if not known.get("calibration"):
                raise BadInput(
                    f"--limit_of.{name} unsafe: σ(cost) of {where} was not calibrated, so it is no share. "
                    f"Train it by `accord preference --role cost` with {LEAST_LABELS} held-out safety labels or more "
                    f"(more --safety_data, or a larger --eval_share), or bound the raw cost: --limit_of.{name} cost"
                )
            found[name] = Limit(name, bound, of, calibration=SafetyCalibration(**known["calibration"]))
            continue
        if "deviation" not in known:
            print(f"{where} does not say how far its costs spread: λ moves by them as they are")
        found[name] = Limit(name, bound, of, deviation=known.get("deviation", 1.0))
    return found
