"""Conversations in cells, form by form: what is read, what is left out with a note, what is counted or refused."""

import json
import re

import pytest

from accord.data.conversations import (
    Dropped,
    holds_messages,
    is_null,
    is_transcript,
    join_prompt,
    list_columns,
    parse_text,
    parse_transcript,
    read_messages,
    split_transcript,
    unpack,
)
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user

TALK = [user("q"), assistant("a")]
TURNS = (Turn("user", "q"), Turn("assistant", "a"))
LEFT_OUT = "thoughts beside the content, left out"


def read(value):
    """Turns and notes."""
    notes = []
    return read_messages(value, BadInput, notes.append), notes


# Messages


@pytest.mark.parametrize(
    ("value", "turns"),
    [
        (TALK, TURNS),
        (tuple(TALK), TURNS),
        (user("q"), TURNS[:1]),
        ([], ()),
        ({"role": ["user", "assistant"], "content": ["q", "a"]}, TURNS),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], TURNS),
        ([{"role": None, "from": "human", "content": None, "value": "q"}], TURNS[:1]),
        ([{"role": float("nan"), "from": "Human", "content": float("nan"), "value": "q"}], TURNS[:1]),
        # where both are there, role and content count
        ([{"role": "user", "from": "gpt", "content": "q", "value": "x"}], TURNS[:1]),
        ([{"role": "USER", "content": "q"}], TURNS[:1]),
    ],
)
def test_messages_in_their_forms(value, turns):
    assert read(value) == (turns, [])


def test_an_object_with_one_list_is_no_table_of_messages():
    with pytest.raises(BadInput, match="messages whose role is one of system, user, assistant, tool, human"):
        read({"role": ["user"]})
    with pytest.raises(BadInput, match="messages whose role is one of"):
        read({"role": ["user"], "content": "q"})


@pytest.mark.parametrize(
    ("value", "due"),
    [
        (5, "text or a list of messages"),
        (["q"], "messages that are objects with role and content"),
        ([{"content": "q"}], "messages whose role is one of"),
        ([{"role": 5, "content": "q"}], "messages whose role is one of"),
        ([{"role": "narrator", "content": "q"}], "messages whose role is one of"),
        ([user(5)], "messages whose content is text or parts of text"),
        ([user([{"type": "text", "text": 5}])], "messages whose content is text or parts of text"),
        ([user([5])], "messages whose content is text or parts of text"),
    ],
)
def test_what_are_no_messages_is_refused(value, due):
    with pytest.raises(BadInput, match=f"^{due}"):
        read(value)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "function_call", "content": "{}"}, "tool call"),
        ({"role": "Tool_Call", "content": "{}"}, "tool call"),
        ({**assistant("a"), "tool_calls": [{"name": "f"}]}, "tool call"),
        ({**assistant("a"), "function_call": {"name": "f"}}, "tool call"),
        (assistant(None), "no content"),
        ({"role": "user"}, "no content"),
        (assistant([{"type": "tool_use"}]), "tool call"),
        (user([{"type": "image"}]), "image part"),
        (user([{"type": "video_url", "text": "x"}]), "video_url part"),
        (user([{"type": "hologram"}]), "part of another type than text"),
    ],
)
def test_a_message_that_cannot_be_learned_from_is_counted(message, reason):
    with pytest.raises(Dropped, match=f"^{reason}$"):
        read([message])


@pytest.mark.parametrize("key", ["tool_calls", "function_call", "thinking", "reasoning", "reasoning_content"])
def test_an_empty_call_or_thought_is_none(key):
    assert read([{**assistant("a"), key: None}]) == (TURNS[1:], [])


@pytest.mark.parametrize("key", ["thinking", "reasoning", "reasoning_content"])
def test_a_thought_beside_the_content_is_noted(key):
    assert read([{**assistant("a"), key: "hm"}]) == (TURNS[1:], [LEFT_OUT])
    assert read([assistant([{"type": key, "text": "hm"}, {"type": "text", "text": "a"}])]) == (TURNS[1:], [LEFT_OUT])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "one"}, {"type": "output_text", "text": "two"}], "one\ntwo"),
        (({"type": "input_text", "text": "one"}, "two", {"text": "three"}), "one\ntwo\nthree"),
        ({"type": "text", "text": "one"}, "one"),
        ([{"type": None, "text": "one"}], "one"),
        ([], ""),
    ],
)
def test_parts_of_text_stand_on_lines_of_their_own(content, text):
    assert read([user(content)]) == ((Turn("user", text),), [])


@pytest.mark.parametrize(
    ("value", "null"), [(None, True), (float("nan"), True), (0.0, False), ("", False), ([], False)]
)
def test_nulls(value, null):
    assert is_null(value) is null


# Messages as text


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(TALK),
        f" \n{json.dumps(TALK, indent=1)}",
        repr(TALK),
        repr(TALK).replace("}, {", "}\n {"),
        repr(TALK).replace("}, {", "}  \n\n  {"),
    ],
)
def test_messages_that_were_printed_are_read(text):
    assert unpack(text) == TALK


def test_one_message_may_be_printed_alone_and_as_from_and_value():
    assert unpack('{"role": "user", "content": "q"}') == user("q")
    for first in ("from", "value"):
        message = {first: "human", ({"from", "value"} - {first}).pop(): "q"}
        assert unpack(json.dumps([message])) == [message]


@pytest.mark.parametrize("value", ['{"content": "x"}', "[1, 2]", "role", '{"x": 1, "role": "user"}', 5, None, TALK])
def test_what_is_no_printed_messages_stays_as_it_is(value):
    assert unpack(value) == value


@pytest.mark.parametrize("text", ['[{"role": "user", "content": "cut', "[{'role': user}]"])
def test_broken_messages_are_counted(text):
    with pytest.raises(Dropped, match="messages as text that is neither JSON nor Python"):
        unpack(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("[1, null]", [1, None]), ("[1, None]", [1, None]), ("[1,", None), ("x = 1", None), ("(" * 5000, None)],
)
def test_text_that_is_json_or_python(text, value):
    assert parse_text(text) == value


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (user("q"), True),
        (TALK, True),
        (tuple(TALK), True),
        ([{"from": "gpt"}], True),
        ([], False),
        ([user("q"), "a"], False),
        (["its role", "from here"], False),
        ([{"content": "q"}], False),
        ("q", False),
        ({}, False),
    ],
)
def test_what_holds_messages(value, holds):
    assert holds_messages(value) is holds


# A prompt and the head of a side


def talk(*said):
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return tuple(Turn(roles[one[0]], one[1:]) for one in said)


@pytest.mark.parametrize(
    ("prompt", "head", "whole"),
    [
        ((), (), ()),
        (talk("uq"), (), talk("uq")),
        ((), talk("uq"), talk("uq")),
        # the head repeats the prompt: at its start, at its end, inside
        (talk("uq"), talk("uq", "aa", "ur"), talk("uq", "aa", "ur")),
        (talk("ur"), talk("uq", "aa", "ur"), talk("uq", "aa", "ur")),
        (talk("aa"), talk("uq", "aa", "ur"), talk("uq", "aa", "ur")),
        (talk("uq "), talk("u\nq"), talk("u\nq")),
        # the system turn stands in the column alone
        (talk("sb", "uq"), talk("uq", "aa", "ur"), talk("sb", "uq", "aa", "ur")),
        (talk("sb", "st", "uq"), talk("uq"), talk("sb", "st", "uq")),
        (talk("sb"), talk("uq"), talk("sb", "uq")),
        # the head goes on from the prompt
        (talk("uq"), talk("aa", "ur"), talk("uq", "aa", "ur")),
        (talk("uq", "aa"), talk("ur"), talk("uq", "aa", "ur")),
        (talk("sb", "uq"), talk("aa", "ur"), talk("sb", "uq", "aa", "ur")),
    ],
)
def test_a_prompt_and_a_head_say_a_turn_once(prompt, head, whole):
    assert join_prompt(prompt, head) == whole


@pytest.mark.parametrize(
    ("prompt", "head"),
    [
        (talk("uq"), talk("ux")),
        (talk("uq"), talk("ux", "aa", "ur")),
        (talk("sb", "uq"), talk("ux")),
        (talk("uq", "aa", "ur"), talk("uq")),
        (talk("uq"), talk("sb")),
    ],
)
def test_a_prompt_that_says_something_else_is_counted(prompt, head):
    with pytest.raises(Dropped, match=r"^prompt is not that of the replies$"):
        join_prompt(prompt, head)


# Transcripts


@pytest.mark.parametrize(
    ("value", "transcript"),
    [
        ("\n\nHuman: q", True),
        ("Human: q\n\nAssistant: a", True),
        (" \nHuman: q\n\nAssistant: a", True),
        ("Human: q", False),
        ("\nHuman: q", False),
        ("Say Human: q\n\nAssistant: a", False),
        ("\n\nAssistant: a", False),
        (5, False),
        (None, False),
    ],
)
def test_what_is_a_transcript(value, transcript):
    assert is_transcript(value) is transcript


@pytest.mark.parametrize(
    ("text", "turns"),
    [
        ("\n\nHuman: q", TURNS[:1]),
        ("Human: q\n\nAssistant:", TURNS[:1]),
        ("Human:q \n\nAssistant: a\n\nHuman: r\n\nAssistant: \n", (*TURNS, Turn("user", "r"))),
        ("\n\nHuman: q\n\nAssistant: a", TURNS),
        ("\n\nHuman: q Human: r\nAssistant: b", (Turn("user", "q Human: r\nAssistant: b"),)),
        ("\n\nHuman: q\n\nHuman: r", (Turn("user", "q"), Turn("user", "r"))),
        (" \n ", None),
        ("\n\nAssistant: a\n\nHuman: q", None),
        ("x\n\nHuman: q", None),
    ],
)
def test_the_turns_of_a_transcript(text, turns):
    if turns is not None:
        assert parse_transcript(text) == turns
    else:
        with pytest.raises(Dropped, match=r"^malformed transcript$"):
            parse_transcript(text)


def test_a_transcript_without_an_answer_has_no_reply():
    assert split_transcript("\n\nHuman: q\n\nAssistant: a \n") == (TURNS[:1], "a")
    with pytest.raises(Dropped, match=r"^malformed transcript$"):
        split_transcript("\n\nHuman: q\n\nAssistant a")


@pytest.mark.parametrize(
    ("count", "end"), [(0, "^\\(none\\)$"), (1, "^'c0'$"), (3, "'c1', 'c2'$"), (20, "'c19'$"), (21, "'c19' …$")]
)
def test_of_many_columns_the_first_are_named(count, end):
    named = list_columns({f"c{k}": 0 for k in range(count)})
    assert re.search(end, named) and "c20" not in named
