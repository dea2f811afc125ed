"""Published sets of questions as questions, each shape by hand, and which replies are right."""

import json

import pytest

from accord.data.tasks import TaskQuestion, is_right, last_number, read_questions, with_examples
from accord.errors import BadInput

SUBJECT = {"question": " which? ", "A": "one", "B": "two", "C": "three", "D": "four", "answer": "C"}
SHAPES = {
    "choices": (
        {"query": "the cat", "choices": ["sees", "runs away"], "gold": 1},
        TaskQuestion("choice", ("the cat",), (" sees", " runs away"), 1),
        [("the cat", " sees"), ("the cat", " runs away")],
    ),
    "schema": (
        {"context_options": ["a dog", "a cat"], "continuation": "barks.", "gold": 0},
        TaskQuestion("choice", ("a dog", "a cat"), (" barks.",), 0),
        [("a dog", " barks."), ("a cat", " barks.")],
    ),
    "next": (
        {"context": "25 - 7 =", "continuation": " 18"},
        TaskQuestion("next", ("25 - 7 =",), (" 18",)),
        [("25 - 7 =", " 18")],
    ),
    "answer": (
        {"context": "who?", "answer": "The Onion", "aliases": ["Bulb onion"]},
        TaskQuestion("answer", ("who?",), answers=("The Onion", "Bulb onion")),
        [],
    ),
    "number": ({"context": "how many?", "answer": "17"}, TaskQuestion("number", ("how many?",), answers=("17",)), []),
    "subject": (
        SUBJECT | {"subject": "plain_words"},
        TaskQuestion(
            "choice",
            ("which?\nA. one\nB. two\nC. three\nD. four\nAnswer:",),
            (" A", " B", " C", " D"),
            2,
            group="plain_words",
            heading="The following are multiple choice questions (with answers) about plain words.\n\n",
        ),
        None,
    ),
    "pair": (
        {"sentence_good": "cats run.", "sentence_bad": "cats runs.", "UID": "agreement"},
        TaskQuestion("choice", ("",), ("cats run.", "cats runs."), 0, group="agreement"),
        [("", "cats run."), ("", "cats runs.")],
    ),
    "truthful": (
        {"Question": "where?", "Best Answer": "here", "Incorrect Answers": "there; nowhere", "Category": "places"},
        TaskQuestion("choice", ("Q: where?\nA:",), (" here", " there", " nowhere"), 0, group="places"),
        None,
    ),
    "worked": (
        {"question": "how many?", "answer": "two and two.\n#### 1,004"},
        TaskQuestion(
            "number", ("Question: how many?\nAnswer:",), answers=("1,004",), solution="two and two.\n#### 1,004"
        ),
        [],
    ),
    "aware": (
        {"question": "who?", "answerable": True, "answer": ["the cat"]},
        TaskQuestion("known", ("who?",), answers=("the cat",)),
        [],
    ),
    "labelled": (
        {"question": "who?", "label": "unknown", "answer": "", "title": "it"},
        TaskQuestion("unknown", ("who?",)),
        [],
    ),
    "text": ({"text": "a story"}, TaskQuestion("text", ("",), ("a story",)), [("", "a story")]),
}


def questions(tmp_path, *rows, **how):
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_questions(str(path), **{"columns": {}, **how})


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_by_hand(shape, tmp_path):
    row, expected, pairs = SHAPES[shape]
    (found,) = questions(tmp_path, row).questions
    assert found == expected
    assert pairs is None or not found.options or found.pairs() == pairs


def test_other_columns_are_named_and_a_delimiter_stands_behind_the_context(tmp_path):
    row = {"ask": "the cat", "choices": ["sees", "runs"], "gold": 0}
    (found,) = questions(tmp_path, row, columns={"query": "ask"}, delimiter="\nAnswer:").questions
    assert found.pairs()[0] == ("the cat\nAnswer:", " sees")
    with pytest.raises(BadInput, match="delimiter has no effect"):
        questions(tmp_path, {"text": "a story"}, delimiter="x")


def test_what_gives_no_question_is_counted_and_what_is_wrong_is_refused(tmp_path):
    good = {"query": "a", "choices": ["b", "c"], "gold": 1}
    found = questions(tmp_path, good, good | {"gold": 2})
    assert len(found.questions) == 1 and found.drops == {"gold is no place among the options": 1} and found.rows == 2
    for row, said in (
        ({"who": "me"}, "no set of questions has these columns"),
        (good | {"gold": "b"}, r"set.jsonl:1.*gold is str"),
        (good | {"choices": "b"}, "choices is str"),
        ({"context": "who?", "answer": "a", "aliases": [3]}, r"set.jsonl:1.*aliases"),
        (SUBJECT | {"answer": "E"}, "no question is left"),
        ({"text": " "}, "no question is left"),
    ):
        with pytest.raises(BadInput, match=said):
            questions(tmp_path, row)


def test_examples_are_of_the_same_group_and_solved():
    asked = TaskQuestion("choice", ("q:",), (" a", " b"), 1, group="g", heading="About g.\n\n")
    others = [
        TaskQuestion("choice", ("one:",), (" a", " b"), 0, group="g"),
        TaskQuestion("choice", ("two:",), (" a", " b"), 1, group="other"),
        TaskQuestion("choice", ("three:", "four:"), (" c",), 1, group="g"),
        TaskQuestion("number", ("five:",), answers=("6",), group="g", solution="so 6"),
    ]
    shown = with_examples(asked, others, 2)
    assert shown.contexts == ("About g.\n\none: a\n\nfour: c\n\nq:",) and shown.right == 1
    assert with_examples(asked, others, 3).contexts[0].endswith("five: so 6\n\nq:")
    assert with_examples(asked, others, 0).contexts == ("About g.\n\nq:",)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so $1,234.50.", "1234.50"),
        ("-3 or 4", "4"),
        ("it is 18", "18"),
        ("none", ""),
        ("7.", "7"),
        ("1. 2.", "2"),
        ("$1,234.50, say", "1234.50"),
        ("-7", "-7"),
        ("from 3 to -12.", "-12"),
        ("$", ""),
        ("2.5.", "2.5"),
        (".5", ".5"),
    ],
)
def test_the_last_number(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("answers", "kind", "reply", "right"),
    [
        (("The Onion", "bulb onion"), "answer", "an onion.", True),
        (("The Onion",), "answer", "onions", False),
        (("The",), "answer", "", False),
        (("1,004",), "number", "first 3, then 1004.0.", True),
        (("4",), "number", "4 and then 5", False),
        (("4",), "number", "nothing", False),
        (("The Cat",), "known", "It was a cat, I think.", True),
        (("cat",), "known", "a category", False),
        (("4.0",), "number", "it is 4", True),
        (("4",), "number", "it is 4.5", False),
        (("1.2.3",), "number", "1.2.3", True),
        (("1.2.3",), "number", "1.2.4", False),
        (("none",), "number", "nothing", False),
        (("a", "The Cat!"), "answer", "cat", True),
        (("the", "a"), "answer", "an", False),
        (("cat", "dog"), "answer", "a dog", True),
        (("cat",), "answer", "a cat and", False),
        (("", "the"), "known", "anything", False),
        (("x", "big cat"), "known", "Some big-cat, I think", True),
        (("big cat",), "known", "a big black cat", False),
        (("cat",), "known", "cat", True),
        (("cat",), "unknown", "a cat", True),
        (("cat",), "unknown", "it is a cat", False),
    ],
)
def test_right_replies(answers, kind, reply, right):
    assert is_right(TaskQuestion(kind, ("q",), answers=answers), reply) is right
