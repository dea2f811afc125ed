"""Scores of questions by hand, their means and paired changes, the tax."""

import numpy as np
import pytest

from accord.evaluation.statistics import Interval, paired_shares, share_interval
from accord.evaluation.tasks import (
    ACCURACY,
    LOGPROB,
    LOSS,
    NORMALISED,
    choice_scores,
    mean_of,
    task_changes,
    task_numbers,
)

HOW = {"seed": 0, "resamples": 200}


def rows(task, outcomes, metric=ACCURACY, **more):
    return [
        {"prompt_id": f"{task}{i}", "slice": task, "group": "", "scores": {metric: v}, **more}
        for i, v in enumerate(outcomes)
    ]


def test_the_likeliest_option_and_the_likeliest_per_character():
    assert choice_scores([-4.0, -5.0], [2, 10], 1) == {ACCURACY: 0.0, NORMALISED: 1.0, LOGPROB: -5.0}
    assert choice_scores([-4.0, -5.0], [3, 3], 0) == {ACCURACY: 1.0, LOGPROB: -4.0}
    assert choice_scores([-4.0, -4.0], [3, 3], 1)[ACCURACY] == 0.0, "of equal options the first is chosen"


def test_means_by_task_and_by_group_with_the_share_that_chance_has():
    some = rows("a", [1.0, 0.0, 1.0, 1.0], options=4) + rows("b", [2.5, 3.5], LOSS)
    some[0]["group"] = "hard"
    found = task_numbers(some, **HOW)
    assert found["a"]["n"] == 4 and found["a"]["chance"] == 0.25
    assert found["a"][ACCURACY] == share_interval([1, 0, 1, 1]).json()
    assert found["a"]["groups"]["hard"]["n"] == 1 and set(found["a"]["groups"]) == {"", "hard"}
    assert found["b"][LOSS]["mean"] == 3.0 and "chance" not in found["b"] and "groups" not in found["b"]


def test_changes_are_paired_by_question_and_each_task_counts_once_in_the_tax():
    rng = np.random.default_rng(0)
    before = [rng.integers(0, 2, n).astype(float) for n in (400, 40)]
    after = [np.where(rng.random(len(b)) < 0.1, 0.0, b) for b in before]
    ours = rows("a", after[0]) + rows("b", after[1]) + rows("new", [1.0])
    theirs = (rows("a", before[0]) + rows("b", before[1]))[::-1]
    found = task_changes(ours, theirs, **HOW)
    a, b = (paired_shares(x, y) for x, y in zip(after, before, strict=True))
    assert found["tasks"]["a"][ACCURACY] == a.json() and found["tasks"]["b"][ACCURACY] == b.json()
    assert "new" not in found["tasks"]
    assert found["tax"]["mean"] == pytest.approx((a.mean + b.mean) / 2) and found["tax"]["n"] == 440
    assert task_changes(ours, rows("c", [1.0]), **HOW) == {"tasks": {}, "tax": None}


def test_a_mean_of_independent_estimates_covers():
    """Five normal means of known deviation: half as wide as the root of five asks, and right 95 times in 100."""
    rng = np.random.default_rng(3)
    deviations = np.array([0.1, 0.2, 0.05, 0.3, 0.1])
    covered = 0
    for draw in rng.normal(0, deviations, size=(4000, 5)):
        found = mean_of([Interval(m, m - 1.96 * s, m + 1.96 * s, 10) for m, s in zip(draw, deviations, strict=True)])
        covered += found.low <= 0 <= found.high
    assert 0.94 < covered / 4000 < 0.96
