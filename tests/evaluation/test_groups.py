"""How heads differ, and the planted values of a group."""

import numpy as np
import pytest
from scipy import optimize, special

from accord.evaluation.groups import RIDGE, head_differences, likeliest_weights, value_weights
from accord.evaluation.statistics import share_interval


def test_differences_of_heads_by_hand():
    margins = {"a": [1.0, -1.0, 2.0, 1.0], "b": [1.0, 1.0, -1.0, 0.0], "c": [2.0, -2.0, 4.0, 2.0]}
    rows = {tuple(row["heads"]): row for row in head_differences(margins, list("wxyz"))}
    assert rows["a", "b"]["opposed"]["mean"] == 0.5
    assert rows["a", "c"]["opposed"]["mean"] == 0.0 and rows["a", "c"]["correlation"] == pytest.approx(1.0)
    # Σ ab / √(Σ a² Σ b²) = (1 − 1 − 2) / √(7 · 3)
    assert rows["a", "b"]["correlation"] == pytest.approx(-2 / np.sqrt(21))
    (small,) = head_differences({"a": [0.1, -0.2, 0.3], "b": [0.2, -0.1, 0.05]}, list("xyz"))
    assert small["correlation"] == pytest.approx(0.055 / np.sqrt(0.14 * 0.0525))
    # by prompts: two of one say as much as one; a 0 is no order
    (row,) = head_differences({"a": [1.0, -1.0, 2.0, 3.0], "b": [1.0, 1.0, -0.5, 0.0]}, list("wxxy"))
    assert row["opposed"] == share_interval([0, 1, 1, 0], list("wxxy")).json()


@pytest.mark.parametrize("flat", ["a", "b"])
def test_heads_that_say_the_same_of_every_pair_have_no_correlation(flat):
    margins = {head: [2.0, 2.0, 2.0] if head == flat else [1.0, -1.0, 0.5] for head in "ab"}
    (row,) = head_differences(margins, list("xyz"))
    assert row["correlation"] is None and row["opposed"]["mean"] == pytest.approx(1 / 3)


DIFFERENCES = np.array([[1.0, -0.5], [-2.0, 1.5], [0.5, 0.5], [1.5, 2.0], [-0.5, -1.0], [3.0, -1.0], [-1.0, 0.2]])


def by_optimiser(data, weights):
    """The least of Σ weight · log(1 + e^−dw) / Σ weight + ridge · |w|² / 2."""

    def loss(w):
        return weights @ np.logaddexp(0, -data @ w) / weights.sum() + RIDGE * w @ w / 2

    return optimize.minimize(loss, np.zeros(data.shape[1]), method="BFGS", options={"gtol": 1e-9}).x


@pytest.mark.parametrize(
    "weights", [[1.0] * 7, [2.0, 1.0, 0.0, 3.0, 1.0, 0.5, 4.0], [0.2, 0.2, 0.1, 0.3, 0.2, 0.3, 0.1]]
)
def test_weights_are_the_likeliest_by_a_general_optimiser(weights):
    found = likeliest_weights(DIFFERENCES, np.array(weights))
    assert found == pytest.approx(by_optimiser(DIFFERENCES, np.array(weights)), abs=1e-5)


def test_at_the_likeliest_weights_the_likelihood_is_flat():
    """Criteria on scales that differ fifty-fold, and answers that all but agree: the slope is 0 but for rounding."""
    data = np.array([*(DIFFERENCES * [0.2, 10]), [4.0, 30.0], [3.0, -20.0], [2.0, 90.0]])
    weights = np.array([2.0, 1.0, 5.0, 3.0, 1.0, 0.5, 0.3, 60.0, 40.0, 30.0])
    w = likeliest_weights(data, weights)
    slope = data.T @ (weights * special.expit(-data @ w)) / weights.sum() - RIDGE * w
    assert slope == pytest.approx([0, 0], abs=1e-12)
    # full steps of Newton's method run away from here
    far, counts = np.array([[-0.2, 0.1], [-2.8, 1.6], [-25.0, 5.0], [4.5, 1.3]]), np.array([48.0, 57.0, 63.0, 87.0])
    w = likeliest_weights(far, counts)
    assert far.T @ (counts * special.expit(-far @ w)) / 255 - RIDGE * w == pytest.approx([0, 0], abs=1e-12)


def test_a_single_weight_has_the_odds_of_its_answers():
    """Of ones alone σ(w) is their share: 3 of 4, so w = log 3."""
    found = likeliest_weights(np.array([[1.0], [-1.0]]), np.array([3.0, 1.0]))
    assert found == pytest.approx([np.log(3)], abs=1e-5)


def test_the_ridge_ends_what_answers_alone_would_not():
    """All for it: σ(−w) = ridge · w. A criterion in which nothing differs has no weight."""
    (weight, none) = likeliest_weights(np.array([[1.0, 0.0]] * 5), np.ones(5))
    assert special.expit(-weight) == pytest.approx(RIDGE * weight, rel=1e-6) and none == 0


def test_answers_of_a_cluster_are_drawn_together():
    clusters = list("aabcbdd")
    found = value_weights(DIFFERENCES, clusters, resamples=30, seed=5)
    rng, draws = np.random.default_rng(5), []
    for _ in range(30):
        drawn = np.array(list("abcd"))[rng.integers(4, size=4)].tolist()
        draws.append(likeliest_weights(DIFFERENCES, np.array([float(drawn.count(one)) for one in clusters])))
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    value = likeliest_weights(DIFFERENCES, np.ones(7))
    assert [w.mean for w in found] == pytest.approx(value) and [w.n for w in found] == [7, 7]
    assert [w.low for w in found] == pytest.approx(low) and [w.high for w in found] == pytest.approx(high)


def test_planted_weights_of_a_group_are_inside_their_intervals():
    """Answers by σ(0.7 · helpful − 1.5 · harm + 0 · length): 20 groups of 600, 95 % intervals."""
    rng = np.random.default_rng(0)
    planted = np.array([0.7, -1.5, 0.0])
    inside = 0
    for k in range(20):
        d = rng.normal(size=(600, 3))
        first = rng.random(600) < 1 / (1 + np.exp(-d @ planted))
        found = value_weights(np.where(first[:, None], d, -d), list(range(600)), resamples=120, seed=k)
        inside += sum(f.low <= w <= f.high for f, w in zip(found, planted, strict=True))
    assert inside >= 53, inside


def test_separable_answers_have_large_finite_weights_and_none_are_refused():
    (weight,) = value_weights(np.ones((30, 1)), list(range(30)), resamples=5)
    assert 3 < weight.mean < 100
    with pytest.raises(ValueError, match="answers by criterion"):
        value_weights(np.zeros((0, 2)), [])
    with pytest.raises(ValueError, match=r"got differences of shape \(3,\)"):
        value_weights(np.ones(3), [0, 1, 2])
