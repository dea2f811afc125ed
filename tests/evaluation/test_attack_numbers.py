"""Shares of attacks that get through, and how alike texts are."""

import pytest

from accord.evaluation.attacks import Tried, change_by_prompt, change_by_request, success
from accord.evaluation.diversity import Distinct, distinct_pairs, grams, likeness
from accord.evaluation.statistics import mean_interval, paired_difference, paired_shares, share_interval


def tried(family, *scores, prompt=""):
    return [Tried(family, f"seed {i}", f"{prompt or family} {i}", score) for i, score in enumerate(scores)]


def test_a_share_is_of_replies_and_its_interval_over_requests():
    own = [*tried("a", 0.5, -0.5, 0.0), *tried("a", 0.1, -0.2, -0.3)]
    found = success(own)
    requests = ["seed 0", "seed 1", "seed 2"] * 2
    assert found["success"] == share_interval([1, 0, 0, 1, 0, 0], requests).json()
    assert (found["replies"], found["requests"]) == (6, 3) and found["score"]["mean"] == pytest.approx(-0.4 / 6)
    scores = [0.7, -0.13, 1.9, -2.3, 0.11, 5.3, -0.41]
    assert success(tried("a", *scores), 3)["score"] == mean_interval(scores, range(7), 3).json()
    assert mean_interval(scores, range(7), 3) != mean_interval(scores, range(7), 0), "or the seed would not be seen"


def test_changes_are_paired_by_request_and_by_prompt():
    plain, attacked = tried("plain", -1, -1, 1, 1), tried("b", 1, -1, 1)
    assert change_by_request(attacked, plain) == paired_shares([1, 0, 1], [0, 0, 1])
    assert change_by_request(attacked, []) is None
    before = tried("b", 1, 1, 1, 1)
    found = change_by_prompt(attacked, before)
    assert found["success"] == paired_shares([1, 0, 1], [1, 1, 1]).json()
    assert found["score"]["mean"] == pytest.approx(-2 / 3)
    replies = [*attacked, Tried("b", "seed 1", "b 1", 2.0)]  # a prompt counts by the mean of its replies
    assert change_by_prompt(replies, before)["success"] == paired_shares([1, 0.5, 1], [1, 1, 1]).json()
    scores = [0.7, -0.13, 1.9, -2.3, 0.11, 5.3, -0.41]
    seeded = change_by_prompt(tried("b", *scores), tried("b", *scores[::-1]), 7)["score"]
    assert seeded == paired_difference(scores, scores[::-1], None, 7).json()
    assert change_by_prompt(attacked, plain) is None, "the same requests in other words"


def test_likeness_is_the_jaccard_index_of_words_and_pairs():
    assert likeness(grams("The red cat"), grams("the RED cat!")) == 1.0
    assert likeness(grams("a b c"), grams("d e f")) == 0.0
    # words a, b shared of a, b, c, d; pair (a, b) shared of (a, b), (b, c), (b, d)
    assert likeness(grams("a b c"), grams("a b d")) == pytest.approx(3 / 7)
    assert likeness(grams(""), grams("!")) == 1.0
    assert grams("Don't go_on, don't") == {("don't",), ("go",), ("on",), ("don't", "go"), ("go", "on"), ("on", "don't")}


def test_what_is_too_like_one_before_is_not_taken():
    distinct = Distinct(["open the red box"], 0.6)
    assert not distinct.take("Open the red box.") and distinct.take("paint the old door")
    assert not distinct.take("paint the old door now"), "nor what is too like one that was taken"
    assert distinct.take("sing a song")
    # a, b, c, a b, b c: three of seven shared
    assert not Distinct(["a b c"], 3 / 7).take("a b d") and Distinct(["a b c"], 3.01 / 7).take("a b d")


def test_different_pairs_over_all_pairs():
    assert distinct_pairs(["a b a b"]) == pytest.approx(2 / 3)
    # a b, b c, b c, C d: pairs stand within a text, case folded
    assert distinct_pairs(["a b", "b c", "", "B c d"]) == pytest.approx(3 / 4)
    assert distinct_pairs(["a", ""]) == 0.0
