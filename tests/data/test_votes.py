"""Votes, row by row: everything that a row says, with unlike sides, and what it must not say."""

import pytest

from accord.data.conversations import Dropped
from accord.data.parts import Parts, Ranking, Verdict
from accord.data.shapes import parse_row, recognise
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user

Q = (Turn("user", "q"),)
ARENA = {"conversation_a": [user("q"), assistant("one")], "conversation_b": [user("q"), assistant("two")]}
NAMES = {"model_a": "x", "model_b": "y", "judge": "arena_user_973"}
COLUMNS = {"prompt": '["q"]', "response_a": '["one"]', "response_b": '["two"]'}
OUTCOMES = ("winner_model_a", "winner_model_b", "winner_tie")
PANDALM = {"instruction": "q", "response1": "one", "response2": "two"}
TULU = {"prompt": "q", "completion_a": "one", "completion_b": "two"}
ALPACA = {"instruction": "q", "output_1": "one", "output_2": "two"}
WILL_DO = ("completion_a_is_acceptable", "completion_b_is_acceptable")


def said(shape, row):
    return parse_row(shape, row, {}, "here")


def outcome(*wins):
    return {**COLUMNS, **dict(zip(OUTCOMES, wins, strict=True))}


def people(*votes):
    return {**PANDALM, **{f"annotator{k}": vote for k, vote in enumerate(votes, 1)}}


def of_two(ranks, ideal, strength=0.0, order=(), probability=1.0, all_bad=False, **more):
    ranking = Ranking("", ranks, strength, order, probability, all_bad)
    return Parts(prompts=(Q, Q), replies=("one", "two"), ideal=ideal, rankings=(ranking,), **more)


FIRST, SECOND, TIE = ((1, 2), 0), ((2, 1), 1), ((1, 1), -1)


@pytest.mark.parametrize(
    ("shape", "row", "parts"),
    [
        ("arena votes", {**ARENA, "winner": " Model_A "}, of_two(*FIRST, order=(0, 1))),
        ("arena votes", {**ARENA, "winner": "a"}, of_two(*FIRST, order=(0, 1))),
        ("arena votes", {**ARENA, "winner": "model_b"}, of_two(*SECOND, order=(0, 1))),
        ("arena votes", {**ARENA, "winner": "b"}, of_two(*SECOND, order=(0, 1))),
        ("arena votes", {**ARENA, "winner": "tie"}, of_two(*TIE, order=(0, 1))),
        ("arena votes", {**ARENA, "winner": "both bad"}, of_two(*TIE, order=(0, 1), all_bad=True)),
        (
            "arena votes",
            {**ARENA, **NAMES, "winner": "model_b"},
            of_two(*SECOND, order=(0, 1), snapshots=("x", "y"), labeler="arena_user:973"),
        ),
        (
            "arena votes",
            {**ARENA, "model_a": "x", "judge": "user_7_b", "winner": "tie"},
            of_two(*TIE, order=(0, 1), labeler="user_7_b"),
        ),
        ("arena votes", {**ARENA, "model_b": 5, "winner": "tie"}, of_two(*TIE, order=(0, 1))),
        (
            "arena votes",
            {**ARENA, "model_a": 4, "model_b": 5, "judge": 6, "winner": "tie"},
            of_two(*TIE, order=(0, 1), snapshots=("4", "5"), labeler="6"),
        ),
        ("arena votes in columns", outcome(1, 0, 0), of_two(*FIRST, order=(0, 1))),
        ("arena votes in columns", outcome(0, 1, 0), of_two(*SECOND, order=(0, 1))),
        (
            "arena votes in columns",
            {**outcome(0, 0, 1), **NAMES, "judge": "me"},
            of_two(*TIE, order=(0, 1), snapshots=("x", "y"), labeler="me"),
        ),
        ("auto-j", {"prompt": "q", "response 1": "one", "response 2": "two", "label": 1.0}, of_two(*SECOND)),
        ("auto-j", {"prompt": "q", "response 1": "one", "response 2": "two", "label": 0}, of_two(*FIRST)),
        ("auto-j", {"prompt": "q", "response 1": "one", "response 2": "two", "label": "2"}, of_two(*TIE)),
        ("alpaca eval", {**ALPACA, "preference": 1.0}, of_two(*FIRST)),
        ("alpaca eval", {**ALPACA, "preference": 2}, of_two(*SECOND)),
        ("alpaca eval", {**ALPACA, "preference": 1.375}, of_two(*FIRST, probability=0.625)),
        (
            "alpaca eval",
            {**ALPACA, "preference": 1.875, "generator_1": "x", "generator_2": "y", "annotator": "gpt_4"},
            of_two(*SECOND, probability=0.875, snapshots=("x", "y"), labeler="gpt:4"),
        ),
        ("llmbar", {"input": "q", "output_1": "one", "output_2": "two", "label": 1}, of_two(*FIRST)),
        ("llmbar", {"input": "q", "output_1": "one", "output_2": "two", "label": "2"}, of_two(*SECOND)),
        ("shp", {"history": "q", "human_ref_A": "one", "human_ref_B": "two", "labels": 1}, of_two(*FIRST)),
        ("shp", {"history": "q", "human_ref_A": "one", "human_ref_B": "two", "labels": 0}, of_two(*SECOND)),
        ("pandalm", people(1, 1, 1), of_two(*FIRST)),
        ("pandalm", people(1, 2, 1), of_two(*FIRST, probability=2 / 3)),
        ("pandalm", people(0, 2, 2), of_two(*SECOND, probability=5 / 6)),
        ("pandalm", people(0, 0, 1), of_two(*FIRST, probability=2 / 3)),
        ("pandalm", people("0", "1", "2"), of_two(*TIE)),
        ("tulu judged", {**TULU, "preference": "a-is-better"}, of_two(*FIRST, 2.0)),
        ("tulu judged", {**TULU, "preference": "a-is-slightly-better"}, of_two(*FIRST, 1.0)),
        ("tulu judged", {**TULU, "preference": "tie"}, of_two(*TIE)),
        ("tulu judged", {**TULU, "preference": "b-is-slightly-better"}, of_two(*SECOND, 1.0)),
        ("tulu judged", {**TULU, "preference": "b-is-better"}, of_two(*SECOND, 2.0)),
    ],
)
def test_all_that_a_vote_says(shape, row, parts):
    assert said(shape, row) == parts


@pytest.mark.parametrize(
    ("labels", "values", "all_bad"),
    [
        (("yes", "no"), ((0, 1.0), (1, 0.0)), False),
        (("no", "yes"), ((0, 0.0), (1, 1.0)), False),
        (("no", "no"), ((0, 0.0), (1, 0.0)), True),
        (("no", None), ((0, 0.0),), False),
        ((None, "no"), ((1, 0.0),), False),
    ],
)
def test_what_will_do_is_judged_for_each_completion(labels, values, all_bad):
    found = said("tulu judged", {**TULU, **dict(zip(WILL_DO, labels, strict=True)), "preference": "b-is-better"})
    verdicts = tuple(Verdict(reply, "", "good", value) for reply, value in values)
    assert found == of_two((2, 1), -1 if all_bad else 1, 2.0, all_bad=all_bad, verdicts=verdicts)


def test_three_people_are_three_votes_on_two_models():
    row = {**people(1, 2, 0), "input": "more", "cmp_key": "x_y"}
    asked = (Turn("user", "q\n\nmore"),)
    votes = tuple(Ranking("", ranks, labeler=f"annotator:{k}") for k, ranks in ((1, (1, 2)), (2, (2, 1)), (3, (1, 1))))
    assert said("pandalm votes", row) == Parts(
        prompts=(asked, asked), replies=("one", "two"), snapshots=("x", "y"), rankings=votes
    )


def test_a_judged_summary_is_ours_or_the_reference():
    row = {"query": "q", "postprocessed_response": "one", "reference_responses": "two"}
    assert said("tldr judged", {**row, "preferred": "ours"}) == of_two(*FIRST)
    assert said("tldr judged", {**row, "preferred": "reference"}) == of_two(*SECOND)
    with pytest.raises(Dropped, match="no choice"):
        said("tldr judged", {**row, "preferred": ""})


@pytest.mark.parametrize(
    ("turn", "asked", "replies"),
    [
        (None, ("q", "a", "r", "b", "s"), ("c", "d")),
        (0, ("q", "a", "r", "b", "s"), ("c", "d")),
        (1, ("q",), ("a", "a")),
        (2, ("q", "a", "r"), ("b", "b")),
        ("2.0", ("q", "a", "r"), ("b", "b")),
        (3, ("q", "a", "r", "b", "s"), ("c", "d")),
        (4, ("q", "a", "r", "b", "s"), ("c", "d")),
    ],
)
def test_a_vote_is_about_as_many_questions_as_were_judged(turn, asked, replies):
    shared = [user("q"), assistant("a"), user("r"), assistant("b"), user("s")]
    row = {"conversation_a": [*shared, assistant("c")], "conversation_b": [*shared, assistant("d")], "turn": turn}
    found = said("arena votes", {**row, "winner": "model_a"})
    assert [tuple(t.content for t in prompt) for prompt in found.prompts] == [asked, asked]
    assert found.replies == replies


def test_votes_in_columns_weave_questions_and_answers():
    row = outcome(0, 1, 0) | {
        "prompt": ["q", "r", "s"],
        "response_a": ["a", "b", "c"],
        "response_b": '["d", null, "f"]',
    }
    found = said("arena votes in columns", row)
    roles = ["user", "assistant", "user", "assistant", "user"]
    assert [[t.role for t in prompt] for prompt in found.prompts] == [roles, roles]
    assert [[t.content for t in prompt] for prompt in found.prompts] == [
        ["q", "a", "r", "b", "s"],
        ["q", "d", "r", "", "s"],
    ]
    assert found.replies == ("c", "f")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": ["q", "r"]}, "sides of other length than the prompt"),
        ({"response_a": ["a", "b"]}, "sides of other length than the prompt"),
        ({"response_b": ["a", "b"]}, "sides of other length than the prompt"),
        ({"prompt": [], "response_a": [], "response_b": []}, "sides of other length than the prompt"),
        ({"response_a": None}, "no response_a"),
    ],
)
def test_votes_in_columns_that_say_nothing(change, reason):
    with pytest.raises(Dropped, match=reason):
        said("arena votes in columns", outcome(1, 0, 0) | change)


@pytest.mark.parametrize(
    ("shape", "row", "due"),
    [
        ("arena votes", {**ARENA, "winner": "nobody"}, "'winner' must hold model_a, model_b, tie or tie (bothbad)"),
        ("arena votes", {**ARENA, "winner": "tie both"}, "'winner' must hold"),
        ("arena votes in columns", outcome(1, 1, 0), "'winner_model_a' must hold 1 in exactly one of winner_model_a, "),
        ("arena votes in columns", outcome(0, 0, 0), "'winner_model_a' must hold 1 in exactly one of"),
        ("arena votes in columns", outcome(1, 0, 0) | {"prompt": 5}, "'prompt' must hold a list of texts, or JSON"),
        ("arena votes in columns", outcome(1, 0, 0) | {"prompt": "q"}, "'prompt' must hold a list of texts"),
        ("arena votes in columns", outcome(1, 0, 0) | {"response_b": [5]}, "'response_b' must hold a list of texts"),
        (
            "auto-j",
            {"prompt": "q", "response 1": "a", "response 2": "b", "label": 0.5},
            "'label' must hold 0 (the",
        ),
        (
            "auto-j",
            {"prompt": "q", "response 1": "a", "response 2": "b", "label": -1},
            "'label' must hold 0 (the",
        ),
        ("alpaca eval", {**ALPACA, "preference": 0.5}, "'preference' must hold a number from 1 (the first output"),
        ("alpaca eval", {**ALPACA, "preference": 2.01}, "'preference' must hold a number from 1"),
        (
            "llmbar",
            {"input": "q", "output_1": "a", "output_2": "b", "label": 0},
            "'label' must hold 1 (the",
        ),
        (
            "llmbar",
            {"input": "q", "output_1": "a", "output_2": "b", "label": 3},
            "'label' must hold 1 (the",
        ),
        ("llmbar", {"input": "q", "output_1": "a", "output_2": "b", "label": 1.5}, "'label' must hold 1"),
        ("pandalm", people(1, 2, 3), "'annotator1' must hold 0 (a tie), 1 or 2, as annotator2 and annotator3 must"),
        ("pandalm", people(0.5, 2, 1), "'annotator1' must hold 0 (a tie)"),
        ("pandalm votes", {**people(1, 2, 1), "cmp_key": "a_b_c"}, "'cmp_key' must hold two names with an underscore"),
        (
            "tulu judged",
            {**TULU, "preference": "a"},
            "'preference' must hold one of a-is-better, a-is-",
        ),
        (
            "tldr judged",
            {"query": "q", "postprocessed_response": "a", "reference_responses": "b", "preferred": "both"},
            "'preferred' must hold ours, reference, or nothing",
        ),
    ],
)
def test_what_a_vote_cannot_be_is_refused(shape, row, due):
    with pytest.raises(BadInput) as refused:
        said(shape, row)
    assert str(refused.value).startswith(f"here: column {due}")


def test_grades_tell_a_tulu_row_from_another_with_its_columns():
    assert recognise([{**TULU, "preference": "b-is-better"}], {}, "comparison", "here") == "tulu judged"
    with pytest.raises(BadInput, match="no comparisons can be read"):
        recognise([{**TULU, "preference": "b"}], {}, "comparison", "here")
