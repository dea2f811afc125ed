"""What one row of each shape of single replies and of own records says: all of it."""

import pytest

from accord.data.parts import Parts, Ranking, Verdict
from accord.data.shapes import parse_row, recognise
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user

Q = (Turn("user", "q"),)
JUDGED = {"prompt": "q", "completion": "one", "category": "theft", "severity": "2.5"}
STORED = {"record": "comparison", "prompt": [user("q")], "slice": "benign", "source": "s", "labeler": "ai", "id": "i"}
RANKED = {
    **STORED,
    "replies": ["one", "two", "three"],
    "ranks": [2, 1, 3],
    "criterion": "honest",
    "strength": 0.75,
    "order": [2, 0, 1],
}
OWN = {"slice": "benign", "source": "s"}


def said(shape, row):
    return parse_row(shape, row, {}, "here")


def single(kind="", value=0.0, category="", severity=0.0, **more):
    verdicts = {"verdicts": (Verdict(0, "", kind, value, category, severity),)} if kind else {"ideal": 0}
    return Parts(prompts=(Q,), replies=("one",), **verdicts, **more)


# Single replies


@pytest.mark.parametrize(
    ("shape", "row", "parts"),
    [
        ("unpaired", {**JUDGED, "label": True}, single("good", 1.0, "theft", 2.5)),
        ("unpaired", {**JUDGED, "label": "0"}, single("good", 0.0, "theft", 2.5)),
        ("safety labels", {**JUDGED, "is_safe": "safe"}, single("safe", 1.0, "theft", 2.5)),
        ("safety labels", {**JUDGED, "is_safe": False}, single("safe", 0.0, "theft", 2.5)),
        ("ratings", {"prompt": "q", "completion": "one", "rating": "-3.5"}, single("rating", -3.5)),
        (
            "beavertails",
            {"prompt": "q", "response": "one", "is_safe": False, "category": {"a": True, "b": False}},
            single("safe", 0.0, "a"),
        ),
        ("diasafety", {"context": "q", "response": "one", "label": "Unsafe"}, single("safe", 0.0)),
        ("prompt and completion", {"prompt": "q", "completion": "one"}, single()),
        ("prompt and completion", {"prompt": "\n\nHuman: q\n\nAssistant:", "completion": " one\n"}, single()),
        ("messages", {"messages": [user("q"), assistant("one")]}, single()),
        ("messages", {"messages": [user("q")]}, Parts(prompts=(Q,))),
        ("messages", {"messages": []}, Parts(prompts=((),))),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "one"}]}, single()),
        ("conversation", {"conversation": [user("q"), assistant("one")]}, single()),
        ("alpaca", {"instruction": "q", "input": "", "output": "one"}, single()),
        ("dolly", {"instruction": "q", "context": None, "response": "one"}, single()),
        ("self-instruct", {"instruction": "q", "instances": [{"input": "", "output": "one"}]}, single()),
        ("prompt and response", {"prompt": "q", "response": "one"}, single()),
        ("question and answer", {"question": "q", "answer": "one"}, single()),
        ("problem and solution", {"problem": "q", "solution": "one", "answer": "2"}, single()),
        ("problem and answer", {"problem": "q", "answer": "one"}, single()),
        (
            "questions in turns",
            {"turns": ["q", "r"]},
            Parts(prompts=(Q,), notes=("later questions, which follow a reply, left out",)),
        ),
        ("questions in turns", {"turns": ["q"]}, Parts(prompts=(Q,))),
        ("text", {"text": "one"}, Parts(text="one")),
        ("prompt", {"prompt": "q"}, Parts(prompts=(Q,))),
        ("instruction", {"instruction": "q"}, Parts(prompts=(Q,))),
        ("question", {"question": "q"}, Parts(prompts=(Q,))),
    ],
)
def test_all_that_a_single_reply_says(shape, row, parts):
    assert said(shape, row) == parts


def test_a_plain_completion_keeps_its_white_space():
    assert said("prompt and completion", {"prompt": "q", "completion": " one\n"}).replies == (" one\n",)


def test_five_ratings_of_a_reply():
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    row = {"prompt": "q", "response": "one", **{name: k / 2 for k, name in enumerate(names)}}
    verdicts = tuple(Verdict(0, name, "rating", k / 2, "", 0.0, "") for k, name in enumerate(names))
    assert said("helpsteer", row) == Parts(prompts=(Q,), replies=("one",), verdicts=verdicts)


def test_an_instruction_stands_behind_what_was_said_before_with_what_it_is_about():
    row = {"instruction": "q", "input": "it", "output": "one", "system": "s", "history": [["a", "b"], ("c", "d")]}
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    turns = tuple(map(Turn, roles, ("s", "a", "b", "c", "d", "q\n\nit")))
    assert said("alpaca", row) == Parts(prompts=(turns,), replies=("one",), ideal=0)
    for pair in (["a"], ["a", "b", "c"], ["a", 5], "ab", 7):
        with pytest.raises(BadInput, match="here: column 'history' must hold a list of pairs of texts"):
            said("alpaca", {**row, "history": [["a", "b"], pair]})


def test_of_several_instances_the_first_is_taken():
    row = {"instruction": "q", "instances": [{"input": "it", "output": "one"}, {"input": "", "output": "two"}]}
    turns = (Turn("user", "q\n\nit"),)
    notes = ("further instances, left out",)
    assert said("self-instruct", row) == Parts(prompts=(turns,), replies=("one",), ideal=0, notes=notes)
    for instances in ([], ["one"]):
        with pytest.raises(BadInput, match="column 'instances' must hold a list of objects with input and output"):
            said("self-instruct", {**row, "instances": instances})


@pytest.mark.parametrize("turns", [[], ["q", 5], [5]])
def test_questions_in_turns_are_texts(turns):
    with pytest.raises(BadInput, match="here: column 'turns' must hold a list of texts, one a turn of the user"):
        said("questions in turns", {"turns": turns})


@pytest.mark.parametrize(
    ("talk", "system", "turns"),
    [
        ([user("q"), assistant("a")], "s", [("system", "s"), ("user", "q")]),
        ([{"role": "system", "content": "t"}, user("q")], "s", [("system", "t"), ("user", "q")]),
        ([user("q")], "", [("user", "q")]),
        ([], "s", []),
    ],
)
def test_a_system_column_stands_before_a_conversation_that_has_no_system_turn(talk, system, turns):
    assert list(said("sharegpt", {"conversations": talk, "system": system}).prompts[0]) == turns


@pytest.mark.parametrize("label", ["label", "final_label", "is_safe", "rating", "helpfulness", "verbosity"])
def test_a_reply_with_a_label_is_no_demonstration(label):
    row = {"prompt": "q", "response": "one"}
    assert recognise([row | {label: None}], {}, "demonstration", "here") == "prompt and response"
    with pytest.raises(BadInput, match="no demonstrations can be read"):
        recognise([row | {label: 0}], {}, "demonstration", "here")
    with pytest.raises(BadInput, match="no demonstrations can be read"):
        recognise([{"prompt": "q", "completion": "one", label: 0}], {}, "demonstration", "here")


@pytest.mark.parametrize("row", [{"prompt": ["q"], "response": "one"}, {"prompt": "q", "response": {"text": "one"}}])
def test_under_published_names_prompt_and_reply_are_text(row):
    with pytest.raises(BadInput, match="no demonstrations can be read"):
        recognise([row], {}, "demonstration", "here")


@pytest.mark.parametrize(("label", "shape"), [("SAFE", "diasafety"), ("unsafe", "diasafety"), (True, None)])
def test_words_of_safety_tell_diasafety(label, shape):
    row = {"context": "q", "response": "one", "label": label}
    if shape:
        assert recognise([row], {}, "judgement", "here") == shape
    else:
        with pytest.raises(BadInput, match="no judgements can be read"):
            recognise([row], {}, "judgement", "here")


# Own records


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"record": "document", "text": "one", "source": "s"}, Parts(text="one", source="s", stored=("document", ""))),
        ({**STORED, "record": "prompt"}, Parts(prompts=(Q,), **OWN, stored=("prompt", "i"))),
        (
            {**STORED, "record": "demonstration", "reply": "one"},
            Parts(prompts=(Q,), replies=("one",), ideal=0, **OWN, stored=("demonstration", "i")),
        ),
        (
            {**STORED, "record": "judgement", "reply": "one", "criterion": "harmless", "kind": "good", "value": 0.5}
            | {"category": "theft", "severity": 2},
            Parts(
                prompts=(Q,),
                replies=("one",),
                verdicts=(Verdict(0, "harmless", "good", 0.5, "theft", 2),),
                labeler="ai",
                stored=("judgement", "i"),
                **OWN,
            ),
        ),
        (
            RANKED,
            Parts(
                prompts=(Q,) * 3,
                replies=("one", "two", "three"),
                ideal=1,
                rankings=(Ranking("honest", (2, 1, 3), 0.75, (2, 0, 1)),),
                labeler="ai",
                stored=("comparison", "i"),
                **OWN,
            ),
        ),
        (
            {**RANKED, "probability": 0.625, "all_bad": True, "snapshots": ["x", "y", "z"]},
            Parts(
                prompts=(Q,) * 3,
                replies=("one", "two", "three"),
                snapshots=("x", "y", "z"),
                ideal=-1,
                rankings=(Ranking("honest", (2, 1, 3), 0.75, (2, 0, 1), 0.625, True),),
                labeler="ai",
                stored=("comparison", "i"),
                **OWN,
            ),
        ),
    ],
)
def test_all_that_a_record_of_ones_own_says(row, parts):
    assert said("accord records", row) == parts


@pytest.mark.parametrize(
    ("row", "due"),
    [
        (
            {**STORED, "record": "battle"},
            "'record' must hold one of document, prompt, demonstration, comparison, judge",
        ),
        ({**STORED, "record": "judgement", "criterion": "c", "kind": "bad"}, "'kind' must hold safe, good or rating"),
        ({**RANKED, "snapshots": ["x", "y"]}, "'snapshots' must hold 3 names, one for each reply"),
        ({**RANKED, "order": [2, 0, 0.5]}, "'order' must hold a list of whole numbers"),
    ],
)
def test_what_a_record_cannot_be_is_refused(row, due):
    with pytest.raises(BadInput, match=f"here: column {due}"):
        said("accord records", row)


@pytest.mark.parametrize("record", ["vinyl", 5])
def test_a_column_that_is_called_record_makes_no_record(record):
    assert recognise([{"record": record, "prompt": "q"}], {}, "prompt", "here") == "prompt"
