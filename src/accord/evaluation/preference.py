"""How well scores order replies: accuracy beside a length-only baseline, and calibration of the probabilities."""

import math
from collections.abc import Sequence
from typing import Any

from accord.evaluation.statistics import mean_interval

# (slice, prompt id, score of the better reply − score of the other, its length − the other's)
Pair = tuple[str, str, float, float]


def accuracy_rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Accuracy for all pairs and for each slice: a tie counts one half, intervals are over prompts.

    The baseline prefers the longer or the shorter reply, whichever is right more often on all pairs; ECE is that of
    σ(difference) as the probability that the better reply is preferred.
    """
    longer = sum(_right(length) for *_, length in pairs) >= len(pairs) / 2
    subsets = ["all", *sorted({pair[0] for pair in pairs} - {""})]
    rows = []
    for subset in subsets:
        part = [pair for pair in pairs if subset in ("all", pair[0])]
        clusters = [prompt for _, prompt, _, _ in part]
        baseline = [_right(length if longer else -length) for *_, length in part]
        rows.append(
            {
                "subset": subset,
                "n": len(part),
                "accuracy": mean_interval([_right(d) for _, _, d, _ in part], clusters).json(),
                "length_baseline": mean_interval(baseline, clusters).json(),
                "length_baseline_prefers": "longer" if longer else "shorter",
                "tie_rate": sum(d == 0 for _, _, d, _ in part) / len(part),
                "ece": reliability([d for _, _, d, _ in part])["ece"],
            }
        )
    return rows


def _right(difference: float) -> float:
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def reliability(differences: Sequence[float], bins: int = 10) -> dict[str, Any]:
    """Calibration of P(preferred) = σ(difference), seen from the side that the model favours.

    The confidence is max(p, 1 − p), the outcome whether the favoured reply was the preferred one; bins hold equal
    numbers. `ece` is the mean distance weighed by bin size.
    """
    ordered = sorted((1 / (1 + math.exp(-min(abs(d), 50.0))), _right(d)) for d in differences)
    if not ordered:
        return {"ece": None, "bins": []}
    edges = [round(i * len(ordered) / bins) for i in range(bins + 1)]
    out = []
    for low, high in zip(edges, edges[1:], strict=False):
        part = ordered[low:high]
        if part:
            out.append(
                {
                    "confidence": sum(c for c, _ in part) / len(part),
                    "accuracy": sum(o for _, o in part) / len(part),
                    "n": len(part),
                }
            )
    ece = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in out) / len(ordered)
    return {"ece": ece, "bins": out}
