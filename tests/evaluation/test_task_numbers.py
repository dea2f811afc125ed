"""Scores of questions by hand, their means and paired changes, the tax."""

import numpy as np
import pytest

from accord.evaluation.statistics import Interval, mean_interval, paired_difference, paired_shares, share_interval
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
    # a third as long and twice as unlikely: −4 / 12, −6 / 9 and −2 / 4
    assert choice_scores([-4.0, -6.0, -2.0], [12, 9, 4], 2) == {ACCURACY: 1.0, NORMALISED: 0.0, LOGPROB: -2.0}
    assert choice_scores([-4.0, -6.0, -2.0], [12, 9, 4], 0) == {ACCURACY: 0.0, NORMALISED: 1.0, LOGPROB: -4.0}


def test_means_by_task_and_by_group_with_the_share_that_chance_has():
    some = rows("a", [1.0, 0.0, 1.0, 1.0], options=4) + rows("b", [2.5, 3.5], LOSS)
    some[0]["group"] = "hard"
    found = task_numbers(some, **HOW)
    assert found["a"]["n"] == 4 and found["a"]["chance"] == 0.25
    assert found["a"][ACCURACY] == share_interval([1, 0, 1, 1]).json()
    assert found["a"]["groups"]["hard"]["n"] == 1 and set(found["a"]["groups"]) == {"", "hard"}
    assert found["b"][LOSS]["mean"] == 3.0 and "chance" not in found["b"] and "groups" not in found["b"]


def test_a_score_is_averaged_over_those_who_have_it():
    values = [0.4, 2.1, -1.3, 5.0, 0.2]
    some = rows("a", values, LOSS, options=2) + rows("a", [1.0, 0.0], options=4)
    some[3] |= {"group": "x", "options": 1}  # a question with one option, or none, has nothing to guess
    some[4] |= {"group": "w", "options": 0}
    some[5]["prompt_id"] = some[6]["prompt_id"] = "same"
    found = task_numbers(some, seed=5, resamples=60)["a"]
    assert found["n"] == 7 and found["chance"] == pytest.approx((3 / 2 + 2 / 4) / 5)
    keys = [row["prompt_id"] for row in some[:5]]
    assert found[LOSS] == mean_interval(values, keys, 5, resamples=60).json()
    assert found[ACCURACY] == share_interval([1, 0], ["same", "same"]).json()
    assert list(found["groups"]) == ["", "w", "x"]
    assert found["groups"][""] == {
        "n": 5,
        LOSS: mean_interval(values[:3], keys[:3], 5, resamples=60).json(),
        ACCURACY: found[ACCURACY],
    }
    assert found["groups"]["x"] == {"n": 1, LOSS: {"mean": 5.0, "low": None, "high": None, "n": 1}}


def test_a_change_is_of_the_questions_that_have_the_score_on_both_sides():
    ours = rows("a", [0.4, 2.1, -1.3, 5.0], LOSS) + rows("b", [1.0, 0.0])
    theirs = rows("a", [0.1, 2.5, 0.9, 4.0, 7.0], LOSS)
    ours[3]["scores"] = {LOGPROB: -3.0}
    ours[2]["scores"] |= {LOGPROB: -1.0}
    theirs[2]["scores"] |= {LOGPROB: -2.5}
    found = task_changes(ours, theirs, seed=5, resamples=60)
    expected = paired_difference([0.4, 2.1, -1.3], [0.1, 2.5, 0.9], None, 5, resamples=60)
    change = {"mean": 1.5, "low": None, "high": None, "n": 1}
    assert found == {"tasks": {"a": {LOSS: expected.json(), LOGPROB: change}}, "tax": None}


def test_a_mean_of_intervals_by_hand():
    """Ends 3 and 4 below the means, 6 and 2.5 above: 5 / 2 and 6.5 / 2."""
    found = mean_of([Interval(1.0, -2.0, 7.0, 10), Interval(4.0, 0.0, 6.5, 30)])
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((2.5, 0.0, 5.75, 40))


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
