"""How well scores order replies, by subset, beside a length-only baseline."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from accord.evaluation.calibration import preference_calibration
from accord.evaluation.statistics import pair_outcomes, share_interval


class ScoredPair(NamedTuple):
    """`margin` is score(better) − score(other) in logits, `length` the same difference in characters."""

    subset: str
    prompt_id: str
    margin: float
    length: float


def preference_evaluation(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """The rows and bins of a preference run's `evaluation.json`: all pairs, then each subset.

    The baseline prefers the longer or the shorter reply, whichever is right more often on all pairs. Ties count
    one half; intervals are over prompts.
    """
    longer = float(pair_outcomes([p.length for p in pairs]).mean()) >= 0.5
    rows = []
    for subset in ["all", *sorted({p.subset for p in pairs} - {""})]:
        part = [p for p in pairs if subset in ("all", p.subset)]
        clusters = [p.prompt_id for p in part]
        calibration = preference_calibration([p.margin for p in part], clusters=clusters)
        baseline = pair_outcomes([p.length if longer else -p.length for p in part])
        rows.append(
            {
                "subset": subset,
                "n": len(part),
                "accuracy": calibration.accuracy.json(),
                "length_baseline": share_interval(baseline, clusters).json(),
                "length_baseline_prefers": "longer" if longer else "shorter",
                "tie_rate": calibration.tie_rate,
                "ece": calibration.ece,
            }
        )
    whole = preference_calibration([p.margin for p in pairs], clusters=[p.prompt_id for p in pairs]).json()
    return {"rows": rows, "ece": whole["ece"], "slope": whole["slope"], "bins": whole["bins"]}
