"""Accuracy of a preference model beside that of looking at length alone."""

import pytest

from accord.evaluation.calibration import preference_calibration
from accord.evaluation.preference import ScoredPair, paired_accuracies, preference_evaluation
from accord.evaluation.statistics import paired_difference, share_interval


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


def test_every_number_of_every_subset_is_of_its_own_pairs():
    """Six pairs of four prompts. Length is right on 2.5 of all, so the shorter reply is its choice, in subsets too."""
    margins, lengths = (1.0, -0.5, 2.0, 0.0, 0.7, -1.5), (-3.0, 4.0, -1.0, 0.0, 2.0, -2.0)
    words, gold = (0.4, -0.3, -0.2, 0.6, 0.0, 0.1), (0.5, 2.0, 0.0, -1.0, 0.3, -0.2)
    subsets, prompts = ("b", "a", "", "b", "a", "b"), ("p", "q", "q", "r", "s", "s")
    columns = zip(subsets, prompts, margins, lengths, words, gold, strict=True)
    found = preference_evaluation([ScoredPair(*row) for row in columns])
    right, shorter = [1, 0, 1, 0.5, 1, 0], [1, 0, 1, 0.5, 0, 1]
    by_words, truth = [1, 0, 0, 1, 0.5, 1], [1, 1, 0.5, 0, 1, 0]
    # the model's order beside the true one, where there is one
    ordered = {0: 1, 1: 0, 3: 0.5, 4: 1, 5: 1}
    parts = {"all": range(6), "a": (1, 4), "b": (0, 3, 5)}
    assert [row["subset"] for row in found["rows"]] == list(parts)
    for row, own in zip(found["rows"], parts.values(), strict=True):
        clusters = [prompts[k] for k in own]
        calibration = preference_calibration([margins[k] for k in own], clusters=clusters)

        def share(of, own=own, clusters=clusters):
            return share_interval([of[k] for k in own], clusters).json()

        def less(of, other, own=own, clusters=clusters):
            return paired_difference([of[k] for k in own], [other[k] for k in own], clusters).json()

        differing = [k for k in own if k in ordered]
        assert row == {
            "subset": row["subset"],
            "n": len(own),
            "accuracy": share(right),
            "length_baseline": share(shorter),
            "length_baseline_prefers": "shorter",
            "over_length": less(right, shorter),
            "bag_of_words": share(by_words),
            "over_bag_of_words": less(right, by_words),
            "gold_ceiling": share(truth),
            "gold_ties": pytest.approx(1 - len(differing) / len(own)),
            "gold_accuracy": share_interval([ordered[k] for k in differing], [prompts[k] for k in differing]).json(),
            "gold_over_length": less(truth, shorter),
            "gold_over_bag_of_words": less(truth, by_words),
            "tie_rate": sum(margins[k] == 0 for k in own) / len(own),
            "ece": calibration.ece,
        }
    whole = preference_calibration(margins, clusters=prompts).json()
    assert (found["ece"], found["slope"], found["bins"]) == (whole["ece"], whole["slope"], whole["bins"])


def test_length_that_is_right_as_often_as_not_prefers_the_longer():
    pairs = [ScoredPair("", "p", 1.0, 2.0), ScoredPair("", "q", 1.0, -2.0)]
    (row,) = preference_evaluation(pairs)["rows"]
    assert row["length_baseline_prefers"] == "longer" and row["length_baseline"]["mean"] == 0.5


def test_truth_without_words_stands_beside_length_alone():
    pairs = [ScoredPair("", "p", 1.0, 2.0, None, 0.5), ScoredPair("", "q", -1.0, 1.0, 0.3, -0.5)]
    (row,) = preference_evaluation(pairs)["rows"]
    assert {key for key in row if "words" in key or "gold" in key} == {
        "gold_ceiling", "gold_ties", "gold_accuracy", "gold_over_length",
    }  # fmt: skip


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
    # two pairs of one prompt are drawn together
    same = {
        name: {("p", pair): worth[key] for pair, key in enumerate(worth)} for name, worth in (("a", one), ("b", other))
    }
    (joint,) = paired_accuracies(same)
    assert joint["difference"]["low"] is None and joint["n"] == 5
    assert row["difference"] == paired_difference([1, 1, 1, 0], [0.5, 0, 1, 0], ["p0", "p1", "p2", "p3"]).json()
    assert row["difference"]["mean"] == 0.375 and row["difference"]["low"] < 0.375 < row["difference"]["high"]
