"""How heads differ, and the planted values of a group."""

import numpy as np
import pytest

from accord.evaluation.groups import head_differences, value_weights


def test_differences_of_heads_by_hand():
    margins = {"a": [1.0, -1.0, 2.0, 1.0], "b": [1.0, 1.0, -1.0, 0.0], "c": [2.0, -2.0, 4.0, 2.0]}
    rows = {tuple(row["heads"]): row for row in head_differences(margins, list("wxyz"))}
    assert rows["a", "b"]["opposed"]["mean"] == 0.5
    assert rows["a", "c"]["opposed"]["mean"] == 0.0 and rows["a", "c"]["correlation"] == pytest.approx(1.0)
    # Σ ab / √(Σ a² Σ b²) = (1 − 1 − 2) / √(7 · 3)
    assert rows["a", "b"]["correlation"] == pytest.approx(-2 / np.sqrt(21))


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
