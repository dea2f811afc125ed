"""What an ensemble disagrees about, by hand and by simulation; check items and who they exclude."""

import numpy as np
import pytest

from accord.evaluation.checks import CheckRule, is_right
from accord.evaluation.selection import disagreement


def test_models_that_are_sure_of_the_same_order_agree_and_opposite_ones_disagree_most():
    assert disagreement([[20.0, 0.0], [200.0, 0.0]]) == pytest.approx(0, abs=1e-8)
    assert disagreement([[50.0, 0.0], [0.0, 50.0]]) == pytest.approx(0.5)
    # σ(1) and σ(−1): deviation (σ(1) − σ(−1)) / 2
    assert disagreement([[1.0, 0.0], [0.0, 1.0]]) == pytest.approx((1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(1))) / 2)


def test_a_score_shared_by_all_replies_of_a_model_says_nothing():
    table = np.random.default_rng(0).normal(size=(4, 3))
    assert disagreement(table) == pytest.approx(disagreement(table + np.arange(4)[:, None] * 10))
    assert disagreement(table) == pytest.approx(disagreement(table[:, ::-1]))


def test_several_replies_are_the_mean_of_their_pairs():
    table = np.random.default_rng(1).normal(size=(5, 3))
    pairs = [disagreement(table[:, list(pair)]) for pair in ((0, 1), (0, 2), (1, 2))]
    assert disagreement(table) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("scores", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [0.0, 0.0]], [1.0, 2.0]])
def test_too_few_or_broken_scores_are_refused(scores):
    with pytest.raises(ValueError, match="two of each"):
        disagreement(scores)


@pytest.mark.parametrize("scores", [[[1.0, 2.0, 3.0]], [[1.0], [2.0], [3.0]], [[[1.0, 2.0], [0.0, 1.0]]] * 2])
def test_two_models_and_two_replies_are_the_fewest(scores):
    with pytest.raises(ValueError, match="two of each, not"):
        disagreement(scores)


@pytest.mark.parametrize(
    ("known", "said", "right"),
    [
        ([(1, 2, 2)], [(1, 3, 2)], True),  # replies that the known answer ties may be in any order
        ([(1, 2, 2)], [(2, 1, 3)], False),
        ([(1, 3, 2)], [(1, 2, 2)], False),  # a tie where it has an order is wrong
        ([(2, 1)], [(2, 1)], True),
        ([(2, 1)], [(1, 2)], False),
        ([(1,)], [(1,)], True),
        ([(1,)], [(0,)], False),
        ([(1, 2), (2, 1)], [(1, 2), (1, 2)], False),  # every criterion
    ],
)
def test_a_known_answer_is_met_where_it_has_an_order(known, said, right):
    assert is_right(known, said) is right


def test_an_answer_under_fewer_criteria_is_none_to_a_check_item():
    with pytest.raises(ValueError, match="shorter"):
        is_right([(1, 2), (2, 1)], [(1, 2)])


@pytest.mark.parametrize(
    ("right", "answered", "excluded"), [(6, 10, True), (7, 10, False), (0, 9, False), (13, 20, True), (14, 20, False)]
)
def test_less_than_seven_of_ten_check_items_exclude(right, answered, excluded):
    assert CheckRule().excludes(right, answered) is excluded
    assert CheckRule(21).excludes(right, answered) is False and CheckRule(5, 0.95).excludes(right, answered) is True
