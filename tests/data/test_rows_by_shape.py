"""What one row of each shape of pairs and of lists says: all of it, with unlike sides."""

import pytest

from accord.data.conversations import Dropped
from accord.data.parts import Parts, Ranking, Verdict, chosen_of_two
from accord.data.shapes import parse_row, recognise
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user

Q = (Turn("user", "q"),)
PAIR = {"prompt": "q", "chosen": "one", "rejected": "two"}
SAFETY = {"prompt": "q", "response_0": "one", "response_1": "two"}


def said(shape, row):
    return parse_row(shape, row, {}, "here")


def of_two(ranks=(1, 2), ideal=0, strength=0.0, probability=1.0, all_bad=False, **more):
    ranking = Ranking("", ranks, strength, (), probability, all_bad)
    return Parts(prompts=(Q, Q), replies=("one", "two"), ideal=ideal, rankings=(ranking,), **more)


def ranked(ranks, ideal, all_bad=False, prompts=None, replies=("one", "two", "three"), **more):
    rankings = (Ranking("", ranks, all_bad=all_bad),)
    return Parts(prompts=prompts or (Q,) * len(replies), replies=replies, ideal=ideal, rankings=rankings, **more)


def test_what_nobody_said():
    assert Ranking("c", (1, 2)) == ("c", (1, 2), 0.0, (), 1.0, False, "")
    assert Verdict(0, "c", "safe", 1.0) == (0, "c", "safe", 1.0, "", 0.0, "")
    nothing = Parts()
    assert (nothing.text, nothing.ideal, nothing.slice, nothing.source, nothing.labeler) == ("", -1, "", "", "human")
    assert nothing.stored == ("", "") and nothing.prompts == nothing.first == nothing.notes == ()
    pair = chosen_of_two((Q, Q), ("one", "two"), 0.75)
    assert pair.rankings == (("", (1, 2), 0.0, (), 0.75, False, ""),) and pair.verdicts == ()


# Pairs


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({**PAIR, "margin": "1.5"}, of_two(strength=1.5)),
        ({**PAIR, "margin": ""}, of_two()),
        ({**PAIR, "probability": 0.375}, of_two((2, 1), 1, probability=0.625)),
        ({**PAIR, "probability": 0.5}, of_two((1, 1), -1)),
        ({**PAIR, "probability": 0}, of_two((2, 1), 1)),
        ({**PAIR, "probability": 1, "margin": 3}, of_two(strength=3.0)),
        ({**PAIR, "probability": 0.25, "tie": "true"}, of_two((1, 1), -1)),
        ({**PAIR, "probability": 0.75, "tie": "false", "all_bad": "no"}, of_two(probability=0.75)),
        ({**PAIR, "probability": 0.75, "all_bad": "yes"}, of_two(ideal=-1, probability=0.75, all_bad=True)),
    ],
)
def test_all_that_a_pair_says(row, parts):
    assert said("preference", row) == parts


@pytest.mark.parametrize("probability", [-0.01, 1.01])
def test_a_probability_lies_between_nought_and_one(probability):
    with pytest.raises(BadInput, match="here: column 'probability' must hold a number from 0 to 1"):
        said("preference", {**PAIR, "probability": probability})


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        ("hh transcripts", {"chosen": "\n\nHuman: q\n\nAssistant: one", "rejected": "\n\nHuman: q\n\nAssistant: two"}),
        (
            "hhh transcripts",
            {"text_correct": "\n\nHuman: q\n\nAssistant: one", "text_incorrect": "\n\nHuman: q\n\nAssistant: two"},
        ),
        ("preference", {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " one\n", "rejected": " two"}),
        (
            "preference, implicit prompt",
            {"chosen": [user("q"), assistant("one")], "rejected": [user("q"), assistant("two")]},
        ),
        ("sharegpt pairs", {"conversations": [user("q")], "chosen": assistant("one"), "rejected": assistant("two")}),
        ("question and pair", {"question": "q", "chosen": "one", "rejected": "two"}),
        ("stack exchange", {"question": "q", "response_j": "one", "response_k": "two"}),
    ],
)
def test_the_first_named_side_of_a_pair_is_the_better(shape, row):
    assert said(shape, row) == of_two()


def test_a_plain_prompt_leaves_the_white_space_of_its_replies():
    assert said("preference", {"prompt": "q", "chosen": " one\n", "rejected": "two "}).replies == (" one\n", "two ")


def test_an_unsafe_side_has_its_harm_and_the_safe_one_is_safe():
    row = {"prompt": "q", "safe": "one", "unsafe": "two", "category": "theft", "severity": 3, "margin": 2}
    verdicts = (Verdict(0, "", "safe", 1.0), Verdict(1, "", "safe", 0.0, "theft", 3.0))
    assert said("safe and unsafe", row) == of_two(strength=2.0, verdicts=verdicts)


@pytest.mark.parametrize(
    ("more", "rankings", "verdicts"),
    [
        ({"better_response_id": 0}, (Ranking("helpful", (1, 2)),), ()),
        ({"better_response_id": "1"}, (Ranking("helpful", (2, 1)),), ()),
        ({"safer_response_id": 0}, (Ranking("harmless", (1, 2)),), ()),
        ({"safer_response_id": 1}, (Ranking("harmless", (2, 1)),), ()),
        (
            {"better_response_id": 1, "safer_response_id": 0},
            (Ranking("helpful", (2, 1)), Ranking("harmless", (1, 2))),
            (),
        ),
        (
            {"is_response_0_safe": False, "response_0_harm_category": "theft", "response_0_severity_level": 2},
            (),
            (Verdict(0, "harmless", "safe", 0.0, "theft", 2.0),),
        ),
        (
            {
                "is_response_0_safe": True,
                "is_response_1_safe": False,
                "response_1_harm_category": {"a": True, "b": False, "c": True, "d": 1},
                "response_1_severity_level": 1,
            },
            (),
            (Verdict(0, "harmless", "safe", 1.0), Verdict(1, "harmless", "safe", 0.0, "a; c", 1.0)),
        ),
    ],
)
def test_all_that_a_row_of_safe_rlhf_says(more, rankings, verdicts):
    assert said("safe rlhf", SAFETY | more) == Parts(
        prompts=(Q, Q), replies=("one", "two"), rankings=rankings, verdicts=verdicts
    )


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"chosen": "x", "rejected": "\n\nHuman: q\n\nAssistant: two"}, "hh transcripts"),
        ({"prompt": "q", "chosen": "one", "rejected": [assistant("two")]}, "preference"),
        ({"prompt": "q", "chosen": "one", "rejected": ["two"]}, "right and wrong in chosen and rejected"),
        ({"chosen": [user("q"), assistant("a")], "rejected": {"role": "user"}}, "preference, implicit prompt"),
    ],
)
def test_what_stands_in_the_sides_tells_the_shape(row, shape):
    assert recognise([row], {}, "comparison", "here") == shape


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "x", "rejected": "y"},
        {"chosen": [user("q")], "rejected": "y"},
        {"chosen": 5, "rejected": [user("q")]},
        {"chosen": "x", "rejected": 5},
    ],
)
def test_sides_without_a_prompt_must_hold_one(row):
    with pytest.raises(BadInput, match="here: no comparisons can be read from the columns 'chosen', 'rejected'"):
        recognise([row], {}, "comparison", "here")


# Lists


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        ({"ranks": [3, 1, 2]}, ranked((3, 1, 2), 1)),
        ({"ranks": "[2.0, 2.0, 1.0]"}, ranked((2, 2, 1), 2)),
        ({"ranks": [1, 2, 1]}, ranked((1, 2, 1), -1)),
        ({"ranks": [4, 2, 3]}, ranked((4, 2, 3), 1)),
        ({"ranks": [3, 1, 2], "all_bad": True}, ranked((3, 1, 2), -1, all_bad=True)),
        ({"ranks": [3, 1, 2], "all_bad": 0}, ranked((3, 1, 2), 1)),
    ],
)
def test_the_only_best_of_a_ranking_is_the_one_to_imitate(more, parts):
    assert said("rankings", {"prompt": "q", "responses": ["one", "two", "three"], **more}) == parts


@pytest.mark.parametrize("ranks", [[1, 2], [1, 2, 3, 4], [1, 0, 2]])
def test_ranks_are_one_for_each_response_from_one_on(ranks):
    due = "here: column 'ranks' must hold one rank for each response, 1 for the best, equal ranks for a tie"
    with pytest.raises(BadInput, match=due):
        said("rankings", {"prompt": "q", "responses": ["one", "two", "three"], "ranks": ranks})


def test_one_reply_is_no_ranking_and_two_are():
    with pytest.raises(Dropped, match="fewer than two replies"):
        said("rankings", {"prompt": "q", "responses": ["one"], "ranks": [1]})
    two = said("rankings", {"prompt": "q", "responses": ["one", "two"], "ranks": [2, 1]})
    assert two == ranked((2, 1), 1, replies=("one", "two"))


@pytest.mark.parametrize(
    ("right", "wrong", "replies", "ranks", "first", "ideal"),
    [
        (["one"], ["two", "three"], ("one", "two", "three"), (1, 2, 2), (0, 1, 2), 0),
        (["one", "two"], ["three"], ("one", "two", "three"), (1, 1, 2), (0, 1, 2), -1),
        (["one", "one"], ["two", "three", "two"], ("one", "one", "two", "three", "two"), (1, 1, 2, 2, 2), (0, 2, 3), 0),
        ("one", "two", ("one", "two"), (1, 2), (0, 1), 0),
        (' ["one", "two"]', "x", ("one", "two", "x"), (1, 1, 2), (0, 1, 2), -1),
        (["one"], ["one"], ("one", "one"), (1, 2), (0, 1), 0),
    ],
)
def test_every_right_reply_stands_before_every_wrong_one_once(right, wrong, replies, ranks, first, ideal):
    found = said("right and wrong", {"prompt": "q", "right": right, "wrong": wrong})
    assert found == ranked(ranks, ideal, replies=replies, first=first)


@pytest.mark.parametrize("name", ["right", "wrong"])
def test_a_list_without_replies_is_named(name):
    with pytest.raises(Dropped, match=f"no {name} reply"):
        said("right and wrong", {"prompt": "q", "right": ["one"], "wrong": ["two"], name: []})


def test_answers_between_semicolons():
    row = {"Question": "q", "Correct Answers": " one ; two;", "Incorrect Answers": "three; ;four"}
    found = said("truthful qa", row)
    assert found == ranked((1, 1, 2, 2), -1, replies=("one", "two", "three", "four"), first=(0, 1, 2, 3))


@pytest.mark.parametrize(
    ("shape", "row", "ranks", "ideal"),
    [
        (
            "nectar",
            {"prompt": "q", "answers": [{"answer": r, "rank": k} for r, k in (("one", 7), ("two", 3), ("three", 5))]},
            (3, 1, 2),
            1,
        ),
        (
            "nectar",
            {"prompt": "q", "answers": [{"answer": r, "rank": k} for r, k in (("one", 2), ("two", "2"), ("three", 1))]},
            (2, 2, 1),
            2,
        ),
        (
            "ultrafeedback",
            {
                "instruction": "q",
                "completions": [
                    {"response": r, "overall_score": k} for r, k in (("one", 7), ("two", 3), ("three", 7.5))
                ],
            },
            (2, 3, 1),
            2,
        ),
    ],
)
def test_a_rank_is_better_low_and_a_score_high(shape, row, ranks, ideal):
    assert said(shape, row) == ranked(ranks, ideal)


@pytest.mark.parametrize("answers", [[{"answer": "one"}, {"answer": "two"}], [{"answer": "a", "rank": 1}, {"rank": 2}]])
def test_answers_without_a_rank_are_refused(answers):
    due = "here: column 'answers' must hold objects with 'answer' and 'rank', or 'response' and 'overall_score'"
    with pytest.raises(BadInput, match=due):
        said("nectar", {"prompt": "q", "answers": answers})
    with pytest.raises(BadInput, match="here: column 'rank' must hold a finite number"):
        said("nectar", {"prompt": "q", "answers": [{"answer": "a", "rank": "first"}, {"answer": "b", "rank": 2}]})


@pytest.mark.parametrize("answers", [[], ["one"], {"answer": "a"}, [user("a")], "one"])
def test_a_list_of_answers_is_one_of_objects_that_are_no_messages(answers):
    assert recognise([{"prompt": "q", "answers": answers}], {}, "prompt", "here") == "prompt"


@pytest.mark.parametrize(
    ("chosen", "shape"),
    [
        (("one",), "right and wrong in chosen and rejected"),
        ([], None),
        ([assistant("a")], None),
    ],
)
def test_a_list_of_replies_is_told_from_messages(chosen, shape):
    row = {"prompt": "q", "chosen": chosen, "rejected": 7}
    if shape:
        assert recognise([row], {}, "comparison", "here") == shape
    else:
        with pytest.raises(BadInput, match="no comparisons can be read"):
            recognise([row], {}, "comparison", "here")
