"""What stages say of a limit at their end: the interval of what is bounded, and whether it holds."""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from accord.errors import BadInput
from accord.evaluation.safety import with_fit
from accord.evaluation.statistics import limit_verdict, mean_interval
from accord.models.limits import Limit
from accord.records import Prompt, is_in_slices


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
