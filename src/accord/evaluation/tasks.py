"""What answers to questions are worth, and how far it changed: accuracy by task, paired intervals, the tax."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from accord.evaluation.metrics import metric_change, metric_interval
from accord.evaluation.statistics import Interval

ACCURACY, NORMALISED, LOGPROB, LOSS = "task/accuracy", "task/accuracy_norm", "task/logprob", "task/loss"
Row = Mapping[str, Any]


def choice_scores(logprobs: Sequence[float], characters: Sequence[int], right: int) -> dict[str, float]:
    """Scores of a multiple-choice question from the summed log-prob and the length of every option.

    The likeliest option is chosen; or with `accuracy_norm` the likeliest per character, where lengths differ. Of equal
    ones the first. As lm-evaluation-harness has `acc` and `acc_norm`.
    """
    found = {ACCURACY: float(int(np.argmax(logprobs)) == right)}
    if len(set(characters)) > 1:
        found[NORMALISED] = float(int(np.argmax(np.divide(logprobs, characters))) == right)
    return found | {LOGPROB: float(logprobs[right])}


def task_numbers(rows: Sequence[Row], *, seed: int, resamples: int) -> dict[str, Any]:
    """Of every task the mean of each score with its interval over questions, and by group where it has several."""
    found: dict[str, Any] = {}
    for task, part in _by(rows, "slice").items():
        numbers = _means(part, seed, resamples)
        groups = _by(part, "group")
        if len(groups) > 1:
            numbers["groups"] = {name: _means(own, seed, resamples) for name, own in sorted(groups.items())}
        chances = [1 / row["options"] for row in part if row.get("options", 0) > 1]
        if chances:
            numbers["chance"] = sum(chances) / len(chances)
        found[task] = numbers
    return found


def _means(rows: Sequence[Row], seed: int, resamples: int) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(rows)}
    for metric in dict.fromkeys(name for row in rows for name in row["scores"]):
        having = [row for row in rows if metric in row["scores"]]
        values, clusters = [row["scores"][metric] for row in having], [row["prompt_id"] for row in having]
        found[metric] = metric_interval(metric, values, clusters, seed=seed, resamples=resamples).json()
    return found


def task_changes(after: Sequence[Row], before: Sequence[Row], *, seed: int, resamples: int) -> dict[str, Any]:
    """Of every task that both measured, the change of each score, paired by question; and their mean over tasks.

    `tax` is the mean change of accuracy over tasks, each of which counts once: above 0 is a gain. Its interval adds up
    those of the tasks, whose questions are independent.
    """
    theirs = _by(before, "slice")
    found: dict[str, dict[str, Interval]] = {}
    for task, part in _by(after, "slice").items():
        earlier = {row["prompt_id"]: row["scores"] for row in theirs.get(task, [])}
        ours = {row["prompt_id"]: row["scores"] for row in part}
        changes = {}
        for metric in dict.fromkeys(name for row in part for name in row["scores"]):
            pairs = [
                (scores[metric], earlier[key][metric])
                for key, scores in ours.items()
                if metric in scores and metric in earlier.get(key, {})
            ]
            if pairs:
                a, b = zip(*pairs, strict=True)
                changes[metric] = metric_change(metric, a, b, seed=seed, resamples=resamples)
        if changes:
            found[task] = changes
    accuracies = [changes[ACCURACY] for changes in found.values() if ACCURACY in changes]
    return {
        "tasks": {task: {m: interval.json() for m, interval in changes.items()} for task, changes in found.items()},
        "tax": mean_of(accuracies).json() if accuracies else None,
    }


def mean_of(intervals: Sequence[Interval]) -> Interval:
    """The mean of independent estimates, each weighing the same: errors add up in squares (MOVER, Zou and Donner)."""
    k = len(intervals)
    mean = sum(i.mean for i in intervals) / k
    low = math.sqrt(sum((i.mean - i.low) ** 2 for i in intervals)) / k
    high = math.sqrt(sum((i.high - i.mean) ** 2 for i in intervals)) / k
    return Interval(mean, mean - low, mean + high, sum(i.n for i in intervals))


def _by(rows: Sequence[Row], key: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[key]), []).append(row)
    return found
