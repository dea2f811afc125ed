"""How a preference model does on a benchmark of right and wrong replies, as the benchmarks count it.

A question has one or more right replies and one or more wrong ones. It is answered if the best score is a right reply's
(of k replies with the best score each has 1/k: RewardBench 2, Malik et al. 2025); of one right and one wrong reply that
is the accuracy of RewardBench and LLMBar, a tie a half. RM-Bench (Liu et al. 2024) has three styles of each, from
concise to elaborate: a pair is hard where the wrong reply is in the more elaborate style, normal in the same, easy
where the right one is.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from accord.evaluation.statistics import pair_outcomes, share_interval

STYLES = 3
LEVELS = {"hard": -1, "normal": 0, "easy": 1}


class RewardAnswer(NamedTuple):
    """Scores of the right and of the wrong replies to a question, higher is better; its `name` in the benchmark."""

    prompt_id: str
    subset: str
    right: tuple[float, ...]
    wrong: tuple[float, ...]
    name: str = ""


def credit(answer: RewardAnswer) -> float:
    """1 if a right reply has the best score alone, 0 if a wrong one has, the right ones' share of those that tie."""
    best = max(answer.right + answer.wrong)
    right = sum(score == best for score in answer.right)
    return right / (right + sum(score == best for score in answer.wrong))


def style_accuracy(answer: RewardAnswer) -> dict[str, float]:
    """Share of pairs in the right order, hard, normal and easy ones apart; replies stand from concise to elaborate."""
    right, wrong = np.array(answer.right), np.array(answer.wrong)
    outcomes = pair_outcomes((right[:, None] - wrong[None, :]).ravel()).reshape(STYLES, STYLES)
    more = np.sign(np.subtract.outer(np.arange(STYLES), np.arange(STYLES)))
    return {level: float(outcomes[more == sign].mean()) for level, sign in LEVELS.items()}


def has_styles(answers: Sequence[RewardAnswer]) -> bool:
    """Whether every question has three right and three wrong replies, as RM-Bench has."""
    return all(len(answer.right) == len(answer.wrong) == STYLES for answer in answers)


def chance(answer: RewardAnswer) -> float:
    """What a model that knows nothing gets."""
    return len(answer.right) / (len(answer.right) + len(answer.wrong))


def reward_numbers(answers: Sequence[RewardAnswer]) -> list[dict[str, Any]]:
    """A row of all questions and one a subset: share answered, and by style where there are styles, with intervals."""
    subsets = sorted({answer.subset for answer in answers})
    groups = [("all", list(answers))]
    if len(subsets) > 1:
        groups += [(name or "(unnamed)", [a for a in answers if a.subset == name]) for name in subsets]
    return [{"subset": name, **_row(part)} for name, part in groups]


def _row(answers: Sequence[RewardAnswer]) -> dict[str, Any]:
    clusters = [answer.prompt_id for answer in answers]

    def share(values: Sequence[float]) -> dict[str, Any]:
        return share_interval(values, clusters).json()

    row: dict[str, Any] = {"questions": len(answers), "chance": float(np.mean([chance(a) for a in answers]))}
    if has_styles(answers):
        styles = [style_accuracy(answer) for answer in answers]
        row |= {level: share([by[level] for by in styles]) for level in LEVELS}
        row["answered"] = share([sum(by.values()) / len(by) for by in styles])
        return row
    return row | {"answered": share([credit(answer) for answer in answers])}
