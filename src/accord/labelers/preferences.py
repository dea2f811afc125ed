"""Which of two replies a labeler prefers: asked in both orders, under one principle or several, averaged in logits."""

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from accord.errors import BadInput
from accord.evaluation.statistics import finite
from accord.labelers.labeler import Labeler, Writing
from accord.labelers.questions import ENGLISH, Question, asked_for
from accord.records import Comparison, Prompt, Turn

FARTHEST = 1e-6  # a probability nearer to 0 or 1 than this says no more than this
THINK = "Think step by step about this before you answer. Do not answer yet."

Think = Callable[[Sequence[Question]], list[Question]]


@dataclass(frozen=True, slots=True)
class BothOrders:
    """A question about two replies, and the same with the replies in the other order."""

    straight: Question
    turned: Question


class Shown(NamedTuple):
    """The probability of the place that is shown first in one question about a pair: with the pair's first reply there,
    and with its second."""

    pair: int
    straight: float
    turned: float


@dataclass(frozen=True)
class Preferences:
    """Of N pairs that were asked about: `first[i]` is the probability that the first reply is better, None where there
    was no answer in both orders; `methods[i]` how it was had, and `why` the reasons of those without, counted.

    It is the mean in logits over both orders of showing, so that a liking for a place cancels. `shown` has every
    question that was answered in both orders.
    """

    first: list[float | None]
    methods: list[str]
    shown: list[Shown]
    why: Counter[str]

    @classmethod
    def none(cls) -> "Preferences":
        return cls([], [], [], Counter())

    @property
    def same_place(self) -> float:
        """The share of questions whose labeler saw the place, not the replies (Lee et al. 2023, arXiv:2309.00267)."""
        return _mean([float((one.straight > 0.5) == (one.turned > 0.5)) for one in self.shown])

    @property
    def first_place(self) -> float:
        """The mean probability of the place that is shown first: a half of who has no liking for a place."""
        return _mean([(one.straight + one.turned) / 2 for one in self.shown])

    def right_by_place(self, first_is_better: Sequence[bool | None]) -> dict[str, float | None]:
        """How often the better reply is the likelier one, in the orders that show it first and in those that show it
        last; `first_is_better[i]` is the truth of pair i, None where there is none."""
        first, last = [], []
        for pair, straight, turned in self.shown:
            if (truth := first_is_better[pair]) is not None:
                first.append(likelier(straight if truth else turned))
                last.append(1 - likelier(turned if truth else straight))
        return {"right_first": finite(_mean(first)), "right_last": finite(_mean(last))}

    def joined(self, other: "Preferences") -> "Preferences":
        """Of these pairs and of the other's behind them."""
        return Preferences(
            self.first + other.first,
            self.methods + other.methods,
            self.shown + [one._replace(pair=one.pair + len(self.first)) for one in other.shown],
            self.why + other.why,
        )

    def tell(self, criterion: str, labeler: str) -> None:
        """Say what was left out and how often the place decided. Raises BadInput where no pair has an answer."""
        if all(first is None for first in self.first):
            why = ", ".join(f"{count} {reason}" for reason, count in self.why.items())
            raise BadInput(
                f"{labeler}: no answer to any of {len(self.first)} pairs ({why or 'no prompt has two replies'}); take "
                "a labeler that can read them, or other replies"
            )
        for reason, count in self.why.items():
            print(f"left out {count} questions about {len(self.first)} pairs: {reason}")
        print(
            f"{criterion}: the same place preferred in both orders of {self.same_place:.0%} of {len(self.shown)} "
            "questions"
        )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def likelier(probability: float) -> float:
    """Which of two answers is the likelier: 1 the one with this probability, 0 the other, ½ neither."""
    return (1 + (probability > 0.5) - (probability < 0.5)) / 2


def in_both_orders(prompt: Prompt, first: str, second: str, criterion: str) -> BothOrders:
    """Which of two replies is better under a criterion, asked once with each of them first."""
    ask = functools.partial(ENGLISH.about_two, prompt.turns, asked=asked_for(criterion), about=criterion)
    return BothOrders(ask(first=first, second=second), ask(first=second, second=first))


def logit(probability: float) -> float:
    """ln p / (1 − p), of a probability that says no more than it can."""
    p = min(max(probability, FARTHEST), 1 - FARTHEST)
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def prefers(
    labeler: Labeler, pairs: Sequence[Sequence[BothOrders]], *, clamp: float = 0.0, think: Think | None = None
) -> Preferences:
    """Ask about every pair, each by one question or by several; the pair's logit is the mean of theirs.

    `think` puts a chain of thought before every question. With `clamp` each probability is first held between it and
    1 − it (Bai et al. 2022: 0.4 for answers that follow a chain of thought, which is always sure).
    """
    asked = [question for own in pairs for both in own for question in (both.straight, both.turned)]
    answers = iter(labeler.ask(think(asked) if think else asked))
    told = Preferences.none()
    for number, own in enumerate(pairs):
        found: list[float] = []
        used: set[str] = set()
        for _ in own:
            straight, turned = next(answers), next(answers)
            if missing := straight.why or turned.why:
                told.why[missing] += 1
                continue
            shown_first, shown_second = straight.probabilities[0], turned.probabilities[0]
            told.shown.append(Shown(number, shown_first, shown_second))
            found.append((_held(shown_first, clamp) - _held(shown_second, clamp)) / 2)
            used |= {straight.method, turned.method}
        told.first.append(sigmoid(sum(found) / len(found)) if found else None)
        told.methods.append("+".join(sorted(used)))
    return told


def thought_over(labeler: Labeler, questions: Sequence[Question], *, tokens: int, seed: int) -> list[Question]:
    """The same questions, each behind the labeler's own thoughts about it: a first call writes them, greedily.

    What a question's thoughts are hangs on nothing but the question.
    """
    asked = []
    for question in questions:
        before = question.turns[-1].content.removesuffix(question.closing)
        asked.append((*question.turns[:-1], Turn("user", before + THINK)))
    numbers = [int(question.id[:7], 16) for question in questions]
    drafts = labeler.write(asked, Writing(tokens, 0.0, seed, numbers))
    return [
        replace(question, turns=(*turns, Turn("assistant", draft.text or "…"), Turn("user", question.closing)))
        for question, turns, draft in zip(questions, asked, drafts, strict=True)
    ]


def soft_label(prompt: Prompt, first: str, second: str, criterion: str, probability: float, labeler: str) -> Comparison:
    """The comparison of a labeler that prefers the first of two replies with this probability."""
    ranks = (1, 1) if probability == 0.5 else (1, 2) if probability > 0.5 else (2, 1)
    sure = 1.0 if probability == 0.5 else max(probability, 1 - probability)
    return Comparison(prompt, (first, second), ranks, criterion, labeler, 0.0, (0, 1), probability=sure)


def _held(probability: float, clamp: float) -> float:
    """The logit of a probability that is held between `clamp` and 1 − `clamp`."""
    return logit(min(max(probability, clamp), 1 - clamp))
