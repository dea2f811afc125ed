"""Which of two replies a labeler prefers: asked in both orders, under one principle or several, averaged in logits."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from accord.labelers.labeler import Labeler
from accord.labelers.questions import Question

FARTHEST = 1e-6  # a probability nearer to 0 or 1 than this says no more than this


@dataclass(frozen=True, slots=True)
class BothOrders:
    """A question about two replies, and the same with the replies in the other order."""

    straight: Question
    turned: Question


@dataclass(frozen=True)
class Preferences:
    """Of N pairs that were asked about: `first[i]` is the probability that the first reply is better, None where there
    was no answer in both orders; `methods[i]` how it was had, and `why` the reasons of those without, counted.

    It is the mean in logits over both orders of showing, so that a liking for a place cancels. `same_place` is the
    share of answered questions in which the likelier answer named the same place in both orders: such a labeler saw
    the place, not the replies (Lee et al. 2023, RLAIF, arXiv:2309.00267, section on position bias).
    """

    first: list[float | None]
    methods: list[str]
    same_place: float
    why: dict[str, int]


def logit(probability: float) -> float:
    """ln p / (1 − p), of a probability that says no more than it can."""
    p = min(max(probability, FARTHEST), 1 - FARTHEST)
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def prefers(labeler: Labeler, pairs: Sequence[Sequence[BothOrders]], *, clamp: float = 0.0) -> Preferences:
    """Ask about every pair, each by one question or by several; the pair's logit is the mean of theirs.

    With `clamp` each probability is first held between it and 1 − it (Bai et al. 2022: 0.4 for answers that follow a
    chain of thought, which is always sure).
    """
    asked = [question for own in pairs for both in own for question in (both.straight, both.turned)]
    answers = iter(labeler.ask(asked))
    first: list[float | None] = []
    methods: list[str] = []
    why: Counter[str] = Counter()
    same: list[bool] = []
    for own in pairs:
        found: list[float] = []
        used: set[str] = set()
        for _ in own:
            straight, turned = next(answers), next(answers)
            if missing := straight.why or turned.why:
                why[missing] += 1
                continue
            shown_first, shown_second = straight.probabilities[0], turned.probabilities[0]
            same.append((shown_first > 0.5) == (shown_second > 0.5))
            found.append((_held(shown_first, clamp) - _held(shown_second, clamp)) / 2)
            used |= {straight.method, turned.method}
        first.append(sigmoid(sum(found) / len(found)) if found else None)
        methods.append("+".join(sorted(used)))
    return Preferences(first, methods, sum(same) / len(same) if same else math.nan, dict(why))


def _held(probability: float, clamp: float) -> float:
    """The logit of a probability that is held between `clamp` and 1 − `clamp`."""
    return logit(min(max(probability, clamp), 1 - clamp))
