"""What a rater's answers show: leans that are planted are found, and those that are not are not."""

import random

import pytest

from accord.evaluation.agreement import Answer, fused_and_separate, krippendorff_alpha
from accord.evaluation.raters import Leaning, Pace, Rater, beside_others, count_words, pairs_of
from accord.evaluation.statistics import mean_interval, share_interval


def rater(paces=(), choices=(), agreements=(), lengths=(), checks=()):
    return Rater(paces, choices, agreements, lengths, checks)


def test_sides_and_lengths_of_a_ranking_by_hand():
    """Shown as C A B; A is best, then B and C tied; B is the longest, A and C are equal."""
    found = {pair: rest for pair, *rest in pairs_of([2, 0, 1], [3, 9, 3], [1, 2, 2])}
    assert found == {(0, 1): [1.0, 0.0], (0, 2): [0.0, None], (1, 2): [None, None]}


def test_the_longer_of_two_is_told_on_either_side():
    """Shown as A B C; B is best and longer than A, C worst and shorter than both."""
    found = {pair: rest for pair, *rest in pairs_of([0, 1, 2], [5, 7, 2], [2, 1, 3])}
    assert found == {(0, 1): [0.0, 1.0], (0, 2): [1.0, 1.0], (1, 2): [1.0, 1.0]}


def test_beside_others_is_the_number_less_the_mean_of_those_who_have_one_too():
    found = beside_others({"a": {"p": 1.0, "q": 0.0, "s": 1.0}, "b": {"p": 0.0, "q": 0.5}, "c": {"p": 0.5}})
    assert found == {"a": [("p", 0.75), ("q", -0.5)], "b": [("p", -0.75), ("q", 0.5)], "c": [("p", 0.0)]}


def test_numbers_of_raters_have_intervals_of_99_percent_over_questions():
    gaps = [(question, gap) for question in range(7) for gap in (0.5 * (question % 3), -0.25 * question)]
    names, values = zip(*gaps, strict=True)
    expected = mean_interval(values, names, level=0.99, resamples=1000)
    assert rater(lengths=gaps).longer_than_others() == expected
    choices = [Leaning(q, "helpful", (0, 1), float(q % 3 > 0), float(q % 2)) for q in range(11) for _ in range(2)]
    found = rater(choices=choices)
    assert found.first() == share_interval([c.first for c in choices], [c.question for c in choices], 0.99)
    assert found.longer() == share_interval([c.longer for c in choices], [c.question for c in choices], 0.99)


@pytest.mark.parametrize("lean, flagged", [(0.5, []), (0.75, ["side"]), (0.25, ["side"])])
def test_a_lean_to_a_side_is_flagged(lean, flagged):
    dice = random.Random(1)
    choices = [Leaning(n, "helpful", (0, 1), float(dice.random() < lean), None) for n in range(400)]
    found = rater(choices=choices).report()
    assert found["flags"] == flagged and found["first"]["n"] == 400 and found["longer"]["mean"] is None


def test_longer_replies_are_a_lean_only_where_others_choose_otherwise():
    """All three take the longer reply in 80 of 100 questions, one of them in all: what all do is no lean."""
    dice = random.Random(2)
    shared = [float(dice.random() < 0.8) for _ in range(300)]
    said = {name: dict(enumerate(shared)) for name in "ab"} | {"c": dict.fromkeys(range(300), 1.0)}
    found = {who: rater(lengths=gaps).report() for who, gaps in beside_others(said).items()}
    assert found["c"]["flags"] == ["length"] and found["c"]["longer_than_others"]["mean"] == pytest.approx(
        1 - sum(shared) / 300
    )
    alone = beside_others({name: dict(enumerate(shared)) for name in "ab"})["a"]
    assert rater(lengths=alone).report()["flags"] == []


def test_who_is_faster_than_anybody_reads_is_flagged():
    slow, fast = Pace(500, 30.0), Pace(500, 29.0)
    assert not slow.is_too_fast and fast.is_too_fast
    assert rater([slow] * 9 + [fast]).report()["flags"] == []
    assert rater([slow] * 8 + [fast] * 2).report()["flags"] == ["too_fast"]


def test_what_was_mostly_pasted_is_flagged():
    written, pasted = Pace(1, 9.0, 100, 50), Pace(1, 9.0, 100, 51)
    assert not written.is_pasted and pasted.is_pasted and not Pace(1, 9.0).is_pasted
    assert rater([pasted]).report()["flags"] == ["pasted"]
    assert rater([pasted] * 3 + [written] * 22).report()["flags"] == ["pasted"], "12 % are often"


def test_check_items_and_agreement_are_shares():
    found = rater(agreements=[(0, 1.0), (0, 0.5), (1, 0.0)], checks=[True, False, True]).report()
    assert found["checks"]["right"] == 2 and found["checks"]["mean"] == pytest.approx(2 / 3)
    assert found["agreement"]["mean"] == pytest.approx(0.5) and found["seconds"] is None


@pytest.mark.parametrize(
    "text, words", [("", 0), ("two words", 2), ("Überraschung, was?", 2), ("日本語です", 3), ("mix 日本", 2)]
)
def test_words_are_counted_in_any_script(text, words):
    assert count_words(text) == words


def test_fused_and_separate_questions_are_compared_on_the_same_texts():
    """Two groups weigh two criteria differently: they agree on each, and not on which reply is better altogether."""
    dice = random.Random(3)
    answers = {"helpful": [], "harmless": [], "overall": []}
    for question in range(200):
        truth = {"helpful": dice.choice((1, 2)), "harmless": dice.choice((1, 2))}
        for who in range(4):
            for criterion, best in truth.items():
                answers[criterion].append(Answer(question, str(who), best if dice.random() < 0.9 else 3 - best))
            weighed = truth["helpful" if who % 2 else "harmless"]
            answers["overall"].append(Answer(question, str(who), weighed))
    answers["overall"].append(Answer("alone", "0", 1))
    found = fused_and_separate(answers, "overall", resamples=200)
    gap = found["difference"]
    assert gap["n"] == 200 and 0 < gap["low"] < gap["mean"] < gap["high"]
    table = [{str(w): a.answer for w, a in enumerate(answers["helpful"][q * 4 : q * 4 + 4])} for q in range(200)]
    assert found["krippendorff_alpha"]["helpful"] == pytest.approx(krippendorff_alpha(table))
    assert fused_and_separate({"overall": answers["overall"]}, "overall") == {}
    assert fused_and_separate({**answers, "helpful": answers["helpful"][:1]}, "overall") == {}
