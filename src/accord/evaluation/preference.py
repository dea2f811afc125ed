"""How well scores order replies, by subset: beside length alone, a bag of words, and the truth where it is known."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accord.evaluation.calibration import preference_calibration
from accord.evaluation.statistics import pair_outcomes, paired_difference, share_interval

Outcomes = NDArray[np.float64]  # of every pair: 1 right, 0 wrong, ½ a tie


class ScoredPair(NamedTuple):
    """`margin` is score(better) − score(other) in logits, `length` the same difference in characters.

    `words` is the log-odds of a bag of words, `gold` the difference in true worth; None where there is none.
    """

    subset: str
    prompt_id: str
    margin: float
    length: float
    words: float | None = None
    gold: float | None = None


def preference_evaluation(pairs: Sequence[ScoredPair]) -> dict[str, Any]:
    """The rows and bins of a preference run's `evaluation.json`: all pairs, then each subset.

    Length alone prefers the longer or the shorter reply, whichever is right more often on all pairs. Ties count
    one half; intervals are over prompts. Where every pair has `words`, or `gold`, the rows hold what they say too.
    """
    longer = float(pair_outcomes([p.length for p in pairs]).mean()) >= 0.5
    rows = []
    for subset in ["all", *sorted({p.subset for p in pairs} - {""})]:
        part = [p for p in pairs if subset in ("all", p.subset)]
        clusters = [p.prompt_id for p in part]
        calibration = preference_calibration([p.margin for p in part], clusters=clusters)
        right = pair_outcomes([p.margin for p in part])
        baseline = pair_outcomes([p.length if longer else -p.length for p in part])
        words = _outcomes([p.words for p in part])
        rows.append(
            {
                "subset": subset,
                "n": len(part),
                "accuracy": calibration.accuracy.json(),
                "length_baseline": share_interval(baseline, clusters).json(),
                "length_baseline_prefers": "longer" if longer else "shorter",
                "over_length": paired_difference(right, baseline, clusters).json(),
                **_beside_words(words, right, clusters),
                **_against_gold(part, baseline, words, clusters),
                "tie_rate": calibration.tie_rate,
                "ece": calibration.ece,
            }
        )
    whole = preference_calibration([p.margin for p in pairs], clusters=[p.prompt_id for p in pairs]).json()
    return {"rows": rows, "ece": whole["ece"], "slope": whole["slope"], "bins": whole["bins"]}


def paired_accuracies(answers: Mapping[str, Mapping[tuple[str, Hashable], float]]) -> list[dict[str, Any]]:
    """How much more often one is right than another, for every two of `answers`, on the pairs that both have.

    NAME → (prompt id, which pair) → 1 right, 0 wrong, ½ a tie. Two intervals that overlap decide nothing about a
    difference; this one does. Two that share no pair have no row.
    """
    rows = []
    for one, other in combinations(answers, 2):
        shared = [pair for pair in answers[one] if pair in answers[other]]
        if shared:
            ours, theirs = ([answers[name][pair] for pair in shared] for name in (one, other))
            difference = paired_difference(ours, theirs, [prompt for prompt, _ in shared])
            rows.append({"model": one, "less": other, "n": len(shared), "difference": difference.json()})
    return rows


def _outcomes(margins: Sequence[float | None]) -> Outcomes | None:
    """What margins say of every pair; None where one has none."""
    found = [margin for margin in margins if margin is not None]
    return pair_outcomes(found) if len(found) == len(margins) else None


def _beside_words(words: Outcomes | None, right: Outcomes, clusters: Sequence[str]) -> dict[str, Any]:
    """Accuracy of the bag of words, and the model's less it, pair by pair."""
    if words is None:
        return {}
    return {
        "bag_of_words": share_interval(words, clusters).json(),
        "over_bag_of_words": paired_difference(right, words, clusters).json(),
    }


def _against_gold(
    part: Sequence[ScoredPair], baseline: Outcomes, words: Outcomes | None, clusters: Sequence[str]
) -> dict[str, Any]:
    """What the truth says of the labels, by itself and less what is easy, and how often the model has its order.

    A pair of equal worth has no order: its label is a coin's, half right; the model is not asked about it.
    """
    truth = _outcomes([p.gold for p in part])
    if truth is None:
        return {}
    gold = [p.gold or 0.0 for p in part]
    differing = [k for k, difference in enumerate(gold) if difference != 0]
    ours = pair_outcomes([part[k].margin * gold[k] for k in differing])
    found = {
        "gold_ceiling": share_interval(truth, clusters).json(),
        "gold_ties": 1 - len(differing) / len(gold),
        "gold_accuracy": share_interval(ours, [clusters[k] for k in differing]).json(),
        "gold_over_length": paired_difference(truth, baseline, clusters).json(),
    }
    if words is not None:
        found["gold_over_bag_of_words"] = paired_difference(truth, words, clusters).json()
    return found
