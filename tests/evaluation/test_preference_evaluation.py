"""Accuracy of a preference model beside that of looking at length alone."""

import pytest

from accord.evaluation.preference import ScoredPair, preference_evaluation


@pytest.mark.parametrize("sign", [1, -1])
def test_g2_the_length_baseline_stands_beside_the_accuracy(sign):
    """G2: three of four times the better reply is the longer (or the shorter): that alone is 0.75, on every subset."""
    pairs = [
        ScoredPair("a" if i < 2 else "b", f"p{i}", m, sign * n)
        for i, (m, n) in enumerate([(1.0, 5.0), (-1.0, 3.0), (1.0, -2.0), (0.0, 9.0)])
    ]
    rows = {row["subset"]: row for row in preference_evaluation(pairs)["rows"]}
    assert rows["all"]["accuracy"]["mean"] == 0.625 and rows["all"]["tie_rate"] == 0.25
    assert rows["all"]["length_baseline"]["mean"] == 0.75
    assert (rows["a"]["length_baseline"]["mean"], rows["b"]["length_baseline"]["mean"]) == (1.0, 0.5)
    assert rows["all"]["length_baseline_prefers"] == ("longer" if sign > 0 else "shorter")
