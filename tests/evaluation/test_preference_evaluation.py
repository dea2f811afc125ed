"""Accuracy of a preference model beside that of looking at length alone."""

import pytest

from accord.evaluation.preference import ScoredPair, paired_accuracies, preference_evaluation


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


def test_what_is_easy_and_what_is_true_stand_beside_the_accuracy_pair_by_pair():
    """Four pairs, counted by hand: the model is right on 3, words on 2, length on 2, the truth on 2 and a coin's."""
    margins, lengths, words, gold = (1, 1, 1, -1), (1, -1, 1, -1), (2, 2, -2, -2), (1, 0, -1, 1)
    pairs = [ScoredPair("a", f"p{i}", *row) for i, row in enumerate(zip(margins, lengths, words, gold, strict=True))]
    (row, _) = preference_evaluation(pairs)["rows"]
    assert row["accuracy"]["mean"] == 0.75 and row["bag_of_words"]["mean"] == 0.5
    assert row["over_length"]["mean"] == 0.25 and row["over_bag_of_words"]["mean"] == 0.25
    assert row["over_bag_of_words"]["low"] < 0.25 < row["over_bag_of_words"]["high"]
    # truth: right, tie, wrong, right; of the three pairs that differ the model has the true order once
    assert row["gold_ceiling"]["mean"] == 0.625 and row["gold_ties"] == 0.25
    assert row["gold_accuracy"]["mean"] == pytest.approx(1 / 3) and row["gold_accuracy"]["n"] == 3
    assert row["gold_over_length"]["mean"] == row["gold_over_bag_of_words"]["mean"] == 0.125


def test_without_words_or_truth_nothing_is_said_of_them():
    pairs = [ScoredPair("", "p", 1.0, 1.0), ScoredPair("", "q", 1.0, 1.0, 0.5)]
    assert not [key for key in preference_evaluation(pairs)["rows"][0] if "words" in key or "gold" in key]


def test_two_models_are_compared_on_the_pairs_that_both_have():
    """By hand: of four shared pairs one model has 3 and the other 1½; what only one of them has counts for neither."""
    pairs = [(f"p{i}", "ab") for i in range(6)]
    one = dict(zip(pairs[:5], (1, 1, 1, 0, 0), strict=True))
    other = dict(zip(pairs[:4] + pairs[5:], (0.5, 0, 1, 0, 1), strict=True))
    (row,) = paired_accuracies({"one": one, "other": other, "elsewhere": {("q", "ab"): 1.0}})
    assert (row["model"], row["less"], row["n"]) == ("one", "other", 4)
    assert row["difference"]["mean"] == 0.375 and row["difference"]["low"] < 0.375 < row["difference"]["high"]
