"""How often something is so, as a judge that errs sees it: what it is right and wrong about enters the interval.

Two ways. `corrected_share` knows the judge's sensitivity and specificity from labelled replies of other models to the
same prompts (Rogan and Gladen 1978; the interval of Lang and Reiczigel 2014). `prediction_powered` knows the truth of
some of the very replies that are judged, and needs no assumption on the judge (Angelopoulos et al. 2023).
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accord.evaluation.statistics import Clusters, Interval, effective_count, influence_interval, wilson

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JudgeErrors:
    """How a judge does on replies whose truth is known: right `true_positives` times of `positives` of which it is so,
    and `true_negatives` times of `negatives`. Replies to one prompt count as many as they are worth."""

    true_positives: float
    positives: float
    true_negatives: float
    negatives: float

    @property
    def sensitivity(self) -> Interval:
        return wilson(self.true_positives, self.positives)

    @property
    def specificity(self) -> Interval:
        return wilson(self.true_negatives, self.negatives)

    @property
    def tells(self) -> bool:
        """Whether the judge tells the two apart at all, beyond chance: without that no share can be corrected."""
        return self.sensitivity.low + self.specificity.low > 1

    def json(self) -> dict[str, Any]:
        return {"sensitivity": self.sensitivity.json(), "specificity": self.specificity.json()}


def judge_errors(said: ArrayLike, truth: ArrayLike, clusters: Clusters = None) -> JudgeErrors:
    """The counts of a judge's answers against the truth, both 0 or 1. ValueError if their lengths differ."""
    answers, true = np.asarray(said, dtype=bool), np.asarray(truth, dtype=bool)
    if answers.shape != true.shape:
        raise ValueError(f"{answers.size} answers beside {true.size} truths")
    keys = list(range(answers.size)) if clusters is None else list(clusters)
    counts: list[float] = []
    for side in (True, False):
        at = np.flatnonzero(true == side)
        right = (answers == true)[at]
        n = effective_count(right, [keys[i] for i in at]) if at.size else 0.0
        counts += [float(right.mean()) * n if at.size else 0.0, n]
    return JudgeErrors(*counts)


def corrected_share(said: ArrayLike, errors: JudgeErrors, clusters: Clusters = None, level: float = 0.95) -> Interval:
    """The share of replies of which it is so, from what the judge said of them (0 or 1) and how it errs.

    Rogan and Gladen's estimate, (share + specificity − 1) / (sensitivity + specificity − 1), in [0, 1]; Lang and
    Reiczigel's interval, which holds the error of all three shares. Replies to one prompt count as many as they are
    worth.
    ValueError where the judge does not tell the two apart (`JudgeErrors.tells`), and where the whole interval lies
    outside [0, 1]: a judge that errs so would not say what it says, so it errs otherwise on these replies.
    """
    if not errors.tells:
        raise ValueError(
            "the judge does not tell the two apart on the labelled replies, so that its share says nothing"
        )
    answers = np.asarray(said, dtype=float)
    z = NormalDist().inv_cdf((1 + level) / 2)
    n = effective_count(answers, clusters)
    share = float(answers.mean())
    plain = errors.true_positives / errors.positives, errors.true_negatives / errors.negatives
    estimate = (share + plain[1] - 1) / (plain[0] + plain[1] - 1)
    # what follows is of shares drawn a little to the middle, so that none of them is sure
    share = (n * share + z**2 / 2) / (n + z**2)
    found, missed = errors.positives + 2, errors.negatives + 2
    sensitivity, specificity = (errors.true_positives + 1) / found, (errors.true_negatives + 1) / missed
    youden = sensitivity + specificity - 1
    middle = (share + specificity - 1) / youden
    of_positives, of_negatives = sensitivity * (1 - sensitivity) / found, specificity * (1 - specificity) / missed
    shift = 2 * z**2 * (middle * of_positives - (1 - middle) * of_negatives)
    spread = share * (1 - share) / (n + z**2) + middle**2 * of_positives + (1 - middle) ** 2 * of_negatives
    reach = z * math.sqrt(spread) / youden
    low, high = middle + shift - reach, middle + shift + reach
    if high < 0 or low > 1:
        raise ValueError("what the judge says of these replies does not fit how it errs on the labelled ones")
    estimate, low, high = (min(max(value, 0.0), 1.0) for value in (estimate, low, high))
    return Interval(estimate, min(low, estimate), max(high, estimate), answers.size)


def prediction_powered(
    said: ArrayLike,
    said_of_labelled: ArrayLike,
    truth: ArrayLike,
    clusters: Clusters = None,
    level: float = 0.95,
) -> Interval:
    """The share of replies of which it is so, when the truth of some replies of the same kind is known.

    `said` are the judge's answers about replies without labels, `said_of_labelled` and `truth` those about labelled
    ones; `clusters` name what the labelled replies belong to, then the others. The estimate is the labelled replies'
    share, less λ times how far the judge's share there is from that elsewhere; λ is the value
    with the least variance (Angelopoulos et al. 2023, PPI++), so that a judge of no use costs nothing.
    """
    judged, labelled, true = (np.asarray(values, dtype=float) for values in (said, said_of_labelled, truth))
    n, rest = len(true), len(judged)
    if len(labelled) != n or n < 2:
        raise ValueError(f"{len(labelled)} answers beside {n} truths; two are the least")
    variance = float(np.concatenate([judged, labelled]).var())
    together = float(np.cov(labelled, true, bias=True)[0, 1])
    weight = min(max(together / (variance * (1 + n / rest)), 0.0), 1.0) if rest and variance else 0.0
    gap = float(judged.mean() - labelled.mean()) if rest else 0.0
    share = float(true.mean()) + weight * gap
    # what every reply adds to the estimate, each side as if it were all of them
    parts = [(n + rest) / n * (true - true.mean() - weight * (labelled - labelled.mean()))]
    if rest:
        parts.append((n + rest) / rest * weight * (judged - judged.mean()))
    # on the logit no share is sure
    inside = influence_interval(min(max(share, 0.5 / n), 1 - 0.5 / n), np.concatenate(parts), clusters, level)
    share = min(max(share, 0.0), 1.0)
    return Interval(share, min(inside.low, share), max(inside.high, share), inside.n)
