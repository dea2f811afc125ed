"""What an ensemble disagrees about, by hand and by simulation."""

import numpy as np
import pytest

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
