"""How the shape of a file is told, which columns may be named, and the fields that every shape takes."""

import re

import pytest

from accord.data.conversations import Dropped
from accord.data.parts import Parts
from accord.data.shapes import MEDIA, map_columns, parse_row, recognise
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user

Q = (Turn("user", "q"),)
TALK = {"messages": [user("q"), assistant("a"), user("r")]}


def said(shape, row, **columns):
    return parse_row(shape, row, columns, "here")


# Telling


@pytest.mark.parametrize(
    ("rows", "columns", "kind", "shape"),
    [
        ([{"prompt": "q", "completion": "a", "label": True}], {}, None, "unpaired"),
        ([{"prompt": "q", "completion": "a", "label": True}], {}, "judgement", "unpaired"),
        # what a loader filled in is not there; one row that has it is enough
        ([{"prompt": "q", "completion": None}], {}, None, "prompt"),
        ([{"prompt": "q", "completion": None}, {"prompt": None, "completion": "a"}], {}, None, "prompt"),
        ([{"prompt": "q", "completion": None}, {"prompt": "r", "completion": "a"}], {}, None, "prompt and completion"),
        # the first that fits and gives the kind
        ([{"prompt": "q", "chosen": "a", "rejected": "b", "text": "t"}], {}, None, "preference"),
        ([{"prompt": "q", "chosen": "a", "rejected": "b", "text": "t"}], {}, "document", "text"),
        # a named column chooses the shape that uses it
        ([{"prompt": "q", "chosen": "a", "rejected": "b", "t": "t"}], {"text": "t"}, None, "text"),
        ([{"q": "q", "a": "a"}], {"prompt": "q", "completion": "a"}, None, "prompt and completion"),
        ([{"q": "q", "s": "s"}], {"prompt": "q", "system": "s"}, "prompt", "prompt"),
    ],
)
def test_the_shape_of_some_rows(rows, columns, kind, shape):
    assert recognise(rows, columns, kind, "here") == shape


def test_what_is_found_in_place_of_what_is_asked_for():
    with pytest.raises(BadInput) as refused:
        recognise([{"prompt": "q", "chosen": "a", "rejected": "b"}, {"more": 1}], {}, "judgement", "here")
    said = str(refused.value)
    assert said.startswith(
        "here: no judgements can be read from the columns 'prompt', 'chosen', 'rejected', 'more'; they look like "
        "'preference', which gives prompts, demonstrations, comparisons. Name other columns"
    )
    # shapes that have as much and lack as much: those that stand last in the table
    assert said.endswith(
        "Nearest shapes: beavertails (lacks response, is_safe); ratings (lacks completion, rating); safety labels "
        "(lacks completion, is_safe); unpaired (lacks completion, label); safe and unsafe (lacks safe, unsafe). "
        "docs/data.md has them all."
    )
    with pytest.raises(BadInput, match=r"^here: no records can be read from the columns 'x'\. Name other"):
        recognise([{"x": 1}], {}, None, "here")


def test_an_unknown_field_is_told_the_nearest_or_all():
    with pytest.raises(BadInput, match=r"^--columns\.complition: there is no field 'complition'; did you mean 'compl"):
        recognise([{"x": 1}], {"complition": "x"}, None, "here")
    with pytest.raises(BadInput, match=r"^--columns\.zzz: there is no field 'zzz'; known are .*Best|, answer, .*text"):
        recognise([{"x": 1}], {"zzz": "x"}, None, "here")


# Named columns


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("b.c", 2),
        ("d.1", 5),
        ("d.0.e", 3),
        ("f.g", "dotted"),
        ("n", None),
        ("n.more", None),
        ("m.x.y", None),
        ("b.7", "seven"),
    ],
)
def test_a_path_leads_into_objects_and_lists(path, value):
    row = {
        "a": 1,
        "b": {"c": 2, "7": "seven"},
        "d": [{"e": 3}, 5],
        "f.g": "dotted",
        "n": None,
        "m": {"x": float("nan")},
    }
    cells = map_columns(row, {"prompt": path}, "here")
    assert cells.values["prompt"] == value and cells.values["a"] == 1
    assert (cells.where, cells.columns) == ("here", {"prompt": path})


@pytest.mark.parametrize("path", ["c", "a.b", "b.x", "d.2", "d.-1", "d.x", "a.0"])
def test_a_path_that_leads_nowhere_is_refused(path):
    row = {"a": 1, "b": {"c": 2}, "d": [3, 4]}
    there = rf"^here: there is no column '{re.escape(path)}'; there are 'a', 'b', 'd'\. Columns of only one"
    with pytest.raises(BadInput, match=there):
        map_columns(row, {"prompt": path}, "here")


# Fields of every shape


def test_slice_and_labeler_are_taken_and_source_where_it_is_named():
    row = {"prompt": "q", "slice": "benign", "labeler": "ai", "source": "book"}
    assert said("prompt", row) == Parts(prompts=(Q,), slice="benign", labeler="ai")
    assert said("prompt", row, source="source") == Parts(prompts=(Q,), slice="benign", labeler="ai", source="book")
    assert said("prompt", {"prompt": "q", "slice": "", "labeler": None}) == Parts(prompts=(Q,))
    # a safety suite has a slice of its own, which a column goes before
    adv = {"goal": "q", "target": "t"}
    assert said("advbench", adv).slice == "harmful" and said("advbench", adv | {"slice": "mine"}).slice == "mine"


def test_context_and_system_are_put_into_every_prompt_where_they_are_named():
    row = {"prompt": TALK["messages"], "chosen": "one", "rejected": "two", "about": "it", "rules": "s"}
    found = said("preference", row, context="about", system="rules")
    turns = (Turn("system", "s"), *Q, Turn("assistant", "a"), Turn("user", "r\n\nit"))
    assert found.prompts == (turns, turns) and found.notes == ()
    blank = said("preference", {**row, "about": " \n", "rules": " "}, context="about", system="rules")
    assert blank.prompts == ((*turns[1:3], Turn("user", "r")),) * 2
    none = said("preference", {**row, "about": None, "rules": None}, context="about", system="rules")
    assert none.prompts == blank.prompts
    assert said("preference", {**row, "context": "x", "system": 5}).prompts == blank.prompts
    assert said("messages", {"messages": [], "c": "x"}, context="c").prompts == ((),)


def test_a_shape_with_a_context_of_its_own_has_it_once():
    row = {"instruction": "q", "about": "it", "output": "one", "rules": "s"}
    found = said("alpaca", row, input="about", system="rules")
    assert found.prompts == ((Turn("system", "s"), Turn("user", "q\n\nit")),)
    dolly = {"instruction": "q", "about": "it", "response": "one"}
    assert said("dolly", dolly, context="about").prompts == ((Turn("user", "q\n\nit"),),)


def test_a_record_of_ones_own_has_its_fields_alone():
    row = {"record": "prompt", "prompt": [user("q")], "slice": "", "source": "s", "labeler": "ai", "rules": "r"}
    assert said("accord records", row, system="rules").prompts == (Q,)
    assert said("accord records", row).labeler == "human"


@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.parametrize("value", [["x"], {"path": "x"}, b"x"])
def test_a_row_with_pictures_or_sound_is_counted(name, value):
    with pytest.raises(Dropped, match=rf"^column {name}$"):
        said("prompt", {"prompt": "q", name: value})
    for nothing in ([], {}, b"", None, "x"):
        assert said("prompt", {"prompt": "q", name: nothing}).prompts == (Q,)


def test_what_is_seen_beside_a_conversation_is_noted():
    tools = "tools beside the conversation, left out"
    system = "column system, left out (--columns.system system puts it first)"
    row = {"prompt": "q", "tools": ["f"], "system": "s"}
    assert said("prompt", row).notes == (tools, system)
    assert said("prompt", {"prompt": "q", "tools": [], "system": ""}).notes == ()
    assert said("prompt", {"prompt": "q", "system": 5}).notes == ()
    assert said("prompt", row, system="system").notes == (tools,)
    assert said("alpaca", {"instruction": "q", "output": "one", "system": "s"}).notes == ()


@pytest.mark.parametrize(
    ("turns", "notes"),
    [
        ([user("q"), assistant("a"), user("r"), assistant("b")], ()),
        ([user("q"), assistant(" "), user("r"), assistant("b")], ("empty assistant turn inside (not trained on)",)),
        ([user(" "), assistant("a"), user("r"), assistant("b")], ()),
        ([user("q"), assistant("a"), {"role": "tool", "content": "7"}, assistant("b")], ("tool turn",)),
        (
            [user("q"), assistant(""), {"role": "tool", "content": "7"}, assistant("b")],
            ("tool turn", "empty assistant turn inside (not trained on)"),
        ),
        ([user("q"), assistant("")], ()),
    ],
)
def test_turns_that_do_no_harm_are_noted(turns, notes):
    assert said("messages", {"messages": turns}).notes == notes
