"""Where a preference model is right: accuracy by what a comparison is like, length bias, its most confident errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accord.evaluation.statistics import finite, pair_outcomes, share_interval

LEVELS = (0.0, 0.25, 0.5, 0.75)  # quantiles of the scores above which both replies of a pair lie


@dataclass(frozen=True, slots=True)
class PairFacts:
    """A compared pair: scores (higher is better) of the reply that the labeler preferred and of the other.

    `lengths` in characters, better first; `turn` counts user turns; `texts` better first.
    """

    prompt_id: str
    source: str
    labeler: str
    turn: int
    strength: float
    scores: tuple[float, float]
    lengths: tuple[int, int]
    prompt: str
    texts: tuple[str, str]

    @property
    def margin(self) -> float:
        return self.scores[0] - self.scores[1]

    @property
    def longer(self) -> int:
        """Characters that the better reply has more."""
        return self.lengths[0] - self.lengths[1]


def breakdown(pairs: Sequence[PairFacts]) -> list[dict[str, Any]]:
    """Accuracy with its interval over prompts, by source, turn, length difference, strength and score level."""
    cuts = np.quantile([p.longer for p in pairs], (0.25, 0.5, 0.75))
    strengths = sorted({p.strength for p in pairs})
    quarters = np.quantile(strengths, (0.25, 0.5, 0.75)) if len(strengths) > 5 else None
    ways: dict[str, Callable[[PairFacts], str]] = {
        "source": lambda p: p.source or "(unnamed)",
        "turn": lambda p: str(p.turn) if p.turn < 4 else "4 or more",
        "length difference": lambda p: _between(p.longer, cuts, "characters"),
        "strength": lambda p: f"{p.strength:g}" if quarters is None else _between(p.strength, quarters, ""),
        "labeler": lambda p: p.labeler,
    }
    rows = []
    for by, way in ways.items():
        groups = sorted({way(p) for p in pairs})
        if len(groups) > 1 and len(groups) <= 40:
            rows += [_row(by, group, [p for p in pairs if way(p) == group]) for group in groups]
    scores = np.array([p.scores for p in pairs])
    for level in LEVELS:
        bound = float(np.quantile(scores, level))
        above = [p for p in pairs if min(p.scores) >= bound]
        if len(above) > 1:
            rows.append(_row("score level", f"both above the {level:.0%} quantile", above))
    return rows


def _between(value: float, cuts: np.ndarray, unit: str) -> str:
    low, middle, high = map(float, cuts)
    names = (f"1: below {low:g}", f"2: {low:g} to {middle:g}", f"3: {middle:g} to {high:g}", f"4: {high:g} or more")
    return f"{names[int(np.searchsorted(cuts, value, side='right'))]} {unit}".strip()


def _row(by: str, group: str, pairs: Sequence[PairFacts]) -> dict[str, Any]:
    outcome = pair_outcomes([p.margin for p in pairs])
    clusters = [p.prompt_id for p in pairs]
    return {
        "by": by,
        "group": group,
        "n": len(pairs),
        "accuracy": share_interval(outcome, clusters).json(),
        "margin": float(np.mean([p.margin for p in pairs])),
    }


def length_bias(pairs: Sequence[PairFacts]) -> dict[str, Any]:
    """How far scores follow length, and how accurate they are without it.

    `correlation` of score and characters over all replies. Accuracy where the better reply is the longer and where it
    is the shorter (a model that looks at length alone has 1 and 0). `prefers_longer`: how often the model, and the
    labeler, take the longer. `partial`: accuracy of what is left of the score difference when the least-squares
    multiple of the length difference is taken out.
    """
    margin = np.array([p.margin for p in pairs])
    longer = np.array([p.longer for p in pairs], dtype=float)
    clusters = [p.prompt_id for p in pairs]
    scores = np.array([s for p in pairs for s in p.scores])
    lengths = np.array([n for p in pairs for n in p.lengths], dtype=float)
    varies = scores.std() > 0 and lengths.std() > 0
    slope = float(margin @ longer / (longer @ longer)) if longer.any() else 0.0

    def accuracy(chosen: np.ndarray, of: np.ndarray) -> dict[str, Any]:
        at = np.flatnonzero(chosen)
        return share_interval(pair_outcomes(of[at]), [clusters[i] for i in at]).json()

    unequal = longer != 0
    return {
        "correlation": finite(float(np.corrcoef(scores, lengths)[0, 1])) if varies else None,
        "score_per_100_characters": 100 * slope,
        "better_is_longer": accuracy(longer > 0, margin),
        "better_is_shorter": accuracy(longer < 0, margin),
        "prefers_longer": {
            "model": accuracy(unequal, margin * np.sign(longer)),
            "labeler": accuracy(unequal, longer),
        },
        "partial": accuracy(np.ones(len(pairs), dtype=bool), margin - slope * longer),
    }


def confident_errors(pairs: Sequence[PairFacts], count: int) -> list[dict[str, Any]]:
    """The pairs that the model orders against the labeler by the most."""
    wrong = sorted((p for p in pairs if p.margin < 0), key=lambda p: p.margin)[:count]
    return [
        {
            "margin": p.margin,
            "source": p.source,
            "labeler": p.labeler,
            "prompt_id": p.prompt_id,
            "prompt": p.prompt,
            "preferred_by_labeler": p.texts[0],
            "preferred_by_model": p.texts[1],
        }
        for p in wrong
    ]
