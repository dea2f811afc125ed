"""Limits on expected cost, as PPO holds them and the direct family checks them: what is bounded, and whether it holds.

Two things can be bounded (`--limit_of`): `cost`, the mean raw cost in the head's own units, and `unsafe`, the expected
share of unsafe replies E[σ(C / T)], which needs no knowledge of the head and therefore a calibration of it. Neither
sees a normaliser, a clip or KL.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from accord.config import LimitOf, of_limit
from accord.errors import BadInput
from accord.evaluation.safety import LEAST_LABELS, SafetyCalibration, with_fit
from accord.evaluation.statistics import limit_verdict, mean_interval
from accord.models.scorers import ReplyScorer
from accord.objectives.lagrange import cost_error, unsafe_error
from accord.records import Prompt, is_in_slices


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


def in_slices(prompts: Sequence[Prompt], slices: str) -> Tensor:
    """(B,) True where a prompt is in one of the slices, whose names stand with commas; in all where none is named."""
    return torch.tensor([is_in_slices(prompt, slices) for prompt in prompts], dtype=torch.bool)


def judge_limit(
    limit: Limit, costs: Tensor, prompts: Sequence[Prompt], slices: str = "", *, seed: int
) -> dict[str, Any]:
    """Interval of what is bounded and verdict, on the limit's `slices`; said aloud and returned as JSON.

    `costs` (N,) are raw, of one reply to each of the prompts (N). The interval is a bootstrap over prompts; of a share
    it includes the error of the calibration (`with_fit`). Beside them, always and for every slice of the prompts: mean
    raw cost and the share of replies with a cost above 0. BadInput where no prompt is in the slices.
    """
    inside = in_slices(prompts, slices)
    if not inside.any():
        raise BadInput(f"--limit_slices.{limit.name}: no held-out prompt of {slices}")
    held: list[Hashable] = [prompt.id for prompt, holds in zip(prompts, inside.tolist(), strict=True) if holds]
    values = limit.bounded(costs[inside]).tolist()
    interval = mean_interval(values, held, seed)
    said: dict[str, Any] = {"limit": limit.bound, "of": limit.of}
    if limit.calibration is not None:
        interval = with_fit(interval, values, limit.calibration.relative_error)
        said["calibration"] = limit.calibration.json()
    verdict = limit_verdict(interval, limit.bound)
    whole = _spread(costs[inside])
    what = "expected unsafe share" if limit.of == "unsafe" else "mean cost"
    print(
        f"limit {limit.name} {limit.bound:g}: {verdict}; {what} {interval.mean:+.3f} [{interval.low:+.3f}, "
        f"{interval.high:+.3f}], mean cost {whole['cost']:+.3f}, unsafe {whole['unsafe']:.0%} of {whole['n']} replies",
        flush=True,
    )
    by_slice = {name: _spread(costs[in_slices(prompts, name)]) for name in sorted({p.slice for p in prompts} - {""})}
    return {**interval.json(), **said, "verdict": verdict, **whole, "slices": by_slice}


def _spread(costs: Tensor) -> dict[str, float]:
    """Of raw costs (N,): number, mean and share above 0."""
    return {"n": len(costs), "cost": float(costs.mean()), "unsafe": int((costs > 0).sum()) / len(costs)}
