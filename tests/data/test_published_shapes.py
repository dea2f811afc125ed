"""Data as people publish it: conversations in every form, votes, lists of replies, nulls."""

import csv
import json
from pathlib import Path

import pytest

from accord.data.chat import Renderer, train_tokenizer
from accord.data.sources import (
    inspect_source,
    read_comparisons,
    read_demonstrations,
    read_judgements,
    read_prompts,
)
from accord.errors import BadInput
from accord.records import Turn
from tests.fixtures.rows import assistant, user, write_rows


def system(text: str) -> dict:
    return {"role": "system", "content": text}


def comparisons(folder: Path, *rows: dict, **how: object):
    return read_comparisons(write_rows(folder, *rows), "helpful", **how)


TALK = [system("Be brief."), user("a \"quoted\"\nline {'x': 1}"), assistant("b"), user("c"), assistant("d")]


# Conversations written as text


@pytest.mark.parametrize("write", [json.dumps, lambda talk: json.dumps(talk, indent=2), repr])
def test_messages_written_as_text_in_a_cell_are_read_as_messages(tmp_path, write):
    (plain,) = read_demonstrations(write_rows(tmp_path, {"messages": TALK})).records
    (found,) = read_demonstrations(write_rows(tmp_path, {"messages": write(TALK)})).records
    assert found.id == plain.id and found.reply == "d" and len(found.prompt.turns) == 4


def test_a_table_of_messages_as_numpy_prints_them_is_read(tmp_path):
    """A column of lists that came from parquet is an array of objects, and `to_csv` prints it without commas."""
    path = tmp_path / "pairs.csv"
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["chosen", "rejected"])
        sides = ([user("it's } {"), assistant(reply)] for reply in ("a", "b"))
        table.writerow([repr(side).replace("}, {", "}\n {") for side in sides])
    (found,) = read_comparisons(str(path), "helpful").records
    assert found.prompt.turns == (("user", "it's } {"),) and found.replies == ("a", "b")


def test_text_that_only_begins_like_messages_is_text_or_is_counted(tmp_path):
    ordinary = ['{"content": "x"}', '[{"x": 1}]', '["role"]', '{"role of": "salt"} in bread?', "[1, 2]"]
    rows = [{"prompt": text, "chosen": "a", "rejected": "b"} for text in ordinary]
    broken = {"prompt": '[{"role": "user", "content": "cut o', "chosen": "a", "rejected": "b"}
    loaded = comparisons(tmp_path, *rows, broken)
    assert [c.prompt.turns for c in loaded.records] == [(("user", text),) for text in ordinary]
    assert loaded.drops == {"messages as text that is neither JSON nor Python": 1}


def test_lists_in_a_table_are_text_too(tmp_path):
    path = tmp_path / "ranked.csv"
    path.write_text('prompt,responses,ranks\np,"[""a"", ""b"", ""c""]","[2, 1, 3]"\n')
    (found,) = read_comparisons(str(path), "helpful").records
    assert (found.replies, found.ranks) == (("a", "b", "c"), (2, 1, 3))


def test_a_struct_of_lists_is_a_list_of_messages(tmp_path):
    """What Arrow makes of a sequence of objects."""
    row = {"messages": {"content": ["p", "a"], "role": ["user", "assistant"]}}
    (found,) = read_demonstrations(write_rows(tmp_path, row)).records
    assert (found.prompt.turns, found.reply) == ((("user", "p"),), "a")


# The whole chat in chosen


@pytest.mark.parametrize(
    ("prompt", "head", "turns"),
    [
        ("q", [user("q ")], [user("q ")]),
        ("q", [system("s"), user(" q\n")], [system("s"), user(" q\n")]),
        ("last", [user("first"), assistant("x"), user("last")], [user("first"), assistant("x"), user("last")]),
        ([system("s"), user("q")], [user("q")], [system("s"), user("q")]),
        ([system("s")], [user("q")], [system("s"), user("q")]),
        ([user("q")], [assistant("x"), user("more")], [user("q"), assistant("x"), user("more")]),
    ],
)
def test_a_prompt_that_stands_in_the_chat_too_is_said_once(tmp_path, prompt, head, turns):
    row = {"prompt": prompt, "chosen": [*head, assistant("a")], "rejected": [*head, assistant("b")]}
    (found,) = comparisons(tmp_path, row).records
    assert [turn._asdict() for turn in found.prompt.turns] == turns and found.replies == ("a", "b")


def test_a_prompt_that_is_not_the_chats_is_counted(tmp_path):
    good = {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]}
    loaded = comparisons(tmp_path, good, {**good, "prompt": "something else"})
    assert (len(loaded.records), loaded.drops) == (1, {"prompt is not that of the replies": 1})


# Parts, tools, thoughts, roles


def test_text_parts_are_joined_and_other_parts_named(tmp_path):
    text = {"type": "text", "text": "one", "image": None}
    good = [user([text, {"type": "input_text", "text": "two"}, "three"]), assistant([{"text": "a"}])]
    bad = [
        [user([text, {"type": "image_url", "image_url": {"url": "x"}}]), assistant("a")],
        [user([{"type": "input_audio"}]), assistant("a")],
        [user("q"), assistant([{"type": "tool_use", "name": "f"}])],
        [user([{"type": "hologram"}]), assistant("a")],
    ]
    loaded = read_demonstrations(write_rows(tmp_path, *({"messages": talk} for talk in [good, *bad])))
    assert loaded.records[0].prompt.turns[0].content == "one\ntwo\nthree" and loaded.records[0].reply == "a"
    assert loaded.drops == {
        "image_url part": 1,
        "input_audio part": 1,
        "tool call": 1,
        "part of another type than text": 1,
    }
    pictured = {"messages": [user("<image> what?"), assistant("a")], "images": [{"path": "x.png"}]}
    plain = {"messages": [user("q"), assistant("a")], "images": []}
    assert read_demonstrations(write_rows(tmp_path, plain, pictured)).drops == {"column images": 1}


def test_tool_turns_are_kept_and_counted_and_calls_are_dropped_by_name(tmp_path):
    tool = {"role": "ipython", "content": "7"}
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    rows = [
        {"messages": [user("q"), assistant("I count."), tool, assistant("7.")], "tools": [{"name": "f"}]},
        {"messages": [user("q"), call, tool, assistant("7.")]},
        {"messages": [user("q"), {"from": "function_call", "value": "{}"}, tool, assistant("7.")]},
        {"messages": [user("q"), {**assistant("a"), "tool_calls": None, "reasoning_content": "hm"}]},
    ]
    loaded = read_demonstrations(write_rows(tmp_path, *rows))
    assert loaded.records[0].prompt.turns[2] == Turn("tool", "7") and loaded.drops == {"tool call": 2}
    assert loaded.notes == {
        "tool turn": 1,
        "tools beside the conversation, left out": 1,
        "thoughts beside the content, left out": 1,
    }


def test_roles_under_the_names_of_other_formats(tmp_path):
    said = {"developer": "system", "Human": "user", "prompter": "user", "function": "tool", "chatgpt": "assistant"}
    talk = [{"from": name, "value": name} for name in [*said, "user"]]
    (found,) = read_prompts(write_rows(tmp_path, {"messages": talk})).records
    assert [turn.role for turn in found.turns] == [*said.values(), "user"]


# Uneven pairs


UNEVEN = {
    "chosen": [user("q"), assistant("a"), user("more"), assistant("b")],
    "rejected": [user("q"), assistant("x")],
}
OTHER = {"chosen": [user("q"), assistant("a")], "rejected": [user("other"), assistant("b")]}


def test_sides_that_part_early_are_dropped_by_that_name_and_cut_on_request(tmp_path):
    even = {"chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]}
    source = write_rows(tmp_path, even, UNEVEN, OTHER)
    dropped = read_comparisons(source, "helpful")
    assert dropped.drops == {"sides part before the last turn": 1, "prompts differ": 1}
    cut = read_comparisons(source, "helpful", uneven="cut")
    assert [(c.prompt.turns[0].content, c.replies) for c in cut.records] == [("p", ("a", "b")), ("q", ("a", "x"))]
    assert cut.drops == {"prompts differ": 1} and cut.notes == {"cut where the sides part": 1}
    assert [d.reply for d in read_demonstrations(source, uneven="cut").records] == ["a", "a"]
    with pytest.raises(BadInput, match="--uneven cut"):
        read_comparisons(write_rows(tmp_path, UNEVEN), "helpful")


def test_transcripts_without_the_first_line_ends_are_transcripts(tmp_path):
    row = {"prompt": "Human: q", "chosen": "Human: q\n\nAssistant: a", "rejected": "Human: q\n\nAssistant: b"}
    (found,) = comparisons(tmp_path, row).records
    assert (found.prompt.turns, found.replies) == ((("user", "q"),), ("a", "b"))
    (asked,) = read_prompts(write_rows(tmp_path, {"prompt": "Human: rights, please"})).records
    assert asked.turns == (("user", "Human: rights, please"),)


def test_transcripts_are_cut_at_the_first_answer_that_differs(tmp_path):
    shared = "\n\nHuman: q\n\nAssistant: a"
    row = {
        "chosen": f"{shared}\n\nHuman: r\n\nAssistant: b\n\nHuman: s\n\nAssistant: c",
        "rejected": f"{shared}\n\nHuman: r\n\nAssistant: x",
    }
    (found,) = comparisons(tmp_path, row, uneven="cut").records
    assert [turn.content for turn in found.prompt.turns] == ["q", "a", "r"] and found.replies == ("b", "x")


# Votes


def test_arena_votes_with_ties_and_both_bad(tmp_path):
    row = {"conversation_a": [user("q"), assistant("a")], "conversation_b": [user("q"), assistant("b")]}
    outcomes = {
        "model_a": ((1, 2), False),
        "model_b": ((2, 1), False),
        "tie": ((1, 1), False),
        "tie (bothbad)": ((1, 1), True),
        "both_bad": ((1, 1), True),
        "Tie (both bad)": ((1, 1), True),
    }
    loaded = comparisons(tmp_path, *({**row, "winner": said} for said in outcomes))
    assert [(c.ranks, c.all_bad) for c in loaded.records] == list(outcomes.values())
    with pytest.raises(BadInput, match=r"rows\.jsonl:2: column 'winner' must hold model_a"):
        comparisons(tmp_path, {**row, "winner": "tie"}, {**row, "winner": "nobody"})
    assert inspect_source(write_rows(tmp_path, *({**row, "winner": said} for said in outcomes))).notes == {
        "tie": 1,
        "both bad": 3,
    }


def test_a_vote_on_the_first_turn_says_nothing_of_later_ones(tmp_path):
    talk = {side: [user("q"), assistant(side), user("r"), assistant(f"{side}2")] for side in "ab"}
    row = {"conversation_a": talk["a"], "conversation_b": talk["b"], "winner": "model_b"}
    loaded = comparisons(tmp_path, {**row, "turn": 1}, {**row, "turn": 2}, row)
    assert [(c.replies, c.ranks) for c in loaded.records] == [(("a", "b"), (2, 1))]
    assert loaded.drops == {"sides part before the last turn": 2}


def test_votes_in_columns_hold_a_text_a_turn(tmp_path):
    path = tmp_path / "votes.csv"
    names = ["prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"]
    rows = [
        [["q"], ["a"], ["b"], 1, 0, 0],
        [["q"], ["a"], ["b"], 0, 0, 1],
        [["q", "r"], ["same", "a"], ["same", "b"], 0, 1, 0],
        [["q", "r"], ["x", "a"], ["y", "b"], 0, 1, 0],
        [["q", "r"], ["a"], ["b"], 0, 1, 0],
        [["q"], [None], ["b"], 0, 1, 0],
    ]
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows([[json.dumps(cell) if isinstance(cell, list) else cell for cell in row] for row in rows])
    loaded = read_comparisons(str(path), "helpful")
    assert [c.ranks for c in loaded.records] == [(1, 2), (1, 1), (2, 1)]
    assert [t.content for t in loaded.records[2].prompt.turns] == ["q", "same", "r"]
    assert loaded.drops == {
        "sides part before the last turn": 1,
        "sides of other length than the prompt": 1,
        "empty reply": 1,
    }


def test_three_annotators_are_a_soft_label(tmp_path):
    row = {"instruction": "do", "input": "this", "response1": "a", "response2": "b"}
    votes = [(1, 1, 1), (2, 2, 1), (1, 2, 0)]
    loaded = comparisons(tmp_path, *({**row, **{f"annotator{i + 1}": v[i] for i in range(3)}} for v in votes))
    assert [(c.ranks, round(c.probability, 3)) for c in loaded.records] == [
        ((1, 2), 1.0),
        ((2, 1), 0.667),
        ((1, 1), 1.0),
    ]
    assert loaded.records[0].prompt.turns[0].content == "do\n\nthis"


def test_a_graded_choice_has_a_strength_and_says_what_will_do(tmp_path):
    row = {"prompt": "p", "completion_a": "a", "completion_b": "b"}
    said = {"completion_a_is_acceptable": "no", "completion_b_is_acceptable": "yes"}
    source = write_rows(
        tmp_path,
        {**row, **said, "preference": "b-is-better"},
        {**row, **dict.fromkeys(said, "no"), "preference": "a-is-slightly-better"},
    )
    found = read_comparisons(source, "helpful").records
    assert [(c.ranks, c.strength, c.all_bad) for c in found] == [((2, 1), 2.0, False), ((1, 2), 1.0, True)]
    assert [j.value for j in read_judgements(source, "helpful").records] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("row", "ranks"),
    [
        ({"input": "p", "output_1": "a", "output_2": "b", "label": 2}, (2, 1)),
        ({"history": "p", "human_ref_A": "a", "human_ref_B": "b", "labels": 0}, (2, 1)),
        ({"question": "p", "response_j": "a", "response_k": "b"}, (1, 2)),
        ({"question": "p", "chosen": "a", "rejected": "b"}, (1, 2)),
        (
            {"conversations": [{"from": "human", "value": "p"}], "chosen": assistant("a"), "rejected": assistant("b")},
            (1, 2),
        ),
        ({"prompt": "p", "answers": [{"answer": "a", "rank": 2.0}, {"answer": "b", "rank": 1.0}]}, (2, 1)),
        (
            {
                "instruction": "p",
                "completions": [{"response": "a", "overall_score": 3}, {"response": "b", "overall_score": 7.5}],
            },
            (2, 1),
        ),
    ],
)
def test_who_won_under_published_column_names(tmp_path, row, ranks):
    (found,) = comparisons(tmp_path, row).records
    assert (found.prompt.turns, found.replies, found.ranks) == ((("user", "p"),), ("a", "b"), ranks)


# Lists of right and wrong replies


def test_every_right_reply_is_better_than_every_wrong_one(tmp_path):
    rows = [
        {"prompt": "p", "chosen": ["a", "b", "a "], "rejected": ["x", "y"]},
        {"prompt": "p", "chosen": "a", "rejected": ["x"]},
        {"prompt": "p", "chosen": [[user("p"), assistant("a")]], "rejected": [[user("p"), assistant("x")]]},
        {"prompt": "p", "chosen": [], "rejected": ["x"]},
        {"prompt": "p", "chosen": ["a", "x"], "rejected": ["x"]},
    ]
    loaded = comparisons(tmp_path, *rows)
    assert [(c.replies, c.ranks) for c in loaded.records] == [
        (("a", "x"), (1, 2)),
        (("a", "x"), (1, 2)),
    ]
    assert loaded.drops == {"equal replies": 2, "no right reply": 1}
    rows[0]["chosen"] = ["a", "b", "a"]
    assert comparisons(tmp_path, *rows).records[0].ranks == (1, 1, 2, 2)


def test_answers_with_semicolons_between(tmp_path):
    path = tmp_path / "qa.csv"
    path.write_text("Question,Best Answer,Correct Answers,Incorrect Answers\nq,a,a; b,x; y;\n")
    (found,) = read_comparisons(str(path), "honest").records
    assert (found.replies, found.ranks) == (("a", "b", "x", "y"), (1, 1, 2, 2))


# Single replies under published names


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"instruction": "p", "input": "more", "output": "a"}, ["p\n\nmore"]),
        (
            {"instruction": "p", "input": "", "output": "a", "history": [["x", "y"]], "system": "s"},
            ["s", "x", "y", "p"],
        ),
        ({"instruction": "p", "context": "more", "response": "a", "category": "open"}, ["p\n\nmore"]),
        ({"instruction": "p", "instances": [{"input": "", "output": "a"}, {"input": "", "output": "b"}]}, ["p"]),
        ({"prompt": "p", "response": "a"}, ["p"]),
        ({"question": "p", "answer": "a"}, ["p"]),
        (
            {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "a"}], "system": "s"},
            ["s", "p"],
        ),
        ({"conversation": [user("p"), assistant("a")]}, ["p"]),
    ],
)
def test_demonstrations_under_published_column_names(tmp_path, row, prompt):
    (found,) = read_demonstrations(write_rows(tmp_path, row)).records
    assert [turn.content for turn in found.prompt.turns] == prompt and found.reply == "a"


def test_a_labelled_reply_is_not_there_to_be_imitated(tmp_path):
    for row, kind, value in (
        ({"prompt": "p", "response": "a", "is_safe": False, "category": {"theft": True}}, "safe", 0),
        ({"prompt": "p", "completion": "a", "label": 0}, "good", 0),
    ):
        (found,) = read_judgements(write_rows(tmp_path, row), "harmless").records
        assert (found.kind, found.value) == (kind, value)
        with pytest.raises(BadInput, match="which gives prompts, judgements"):
            read_demonstrations(write_rows(tmp_path, row))


def test_ratings_of_several_criteria_keep_their_names(tmp_path):
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    row = {"prompt": "p", "response": "a", **{name: i for i, name in enumerate(names)}}
    (found,) = read_judgements(write_rows(tmp_path, row), "coherence").records
    assert (found.kind, found.value) == ("rating", 2)


def test_questions_in_turns_give_the_first_one(tmp_path):
    loaded = read_prompts(write_rows(tmp_path, {"turns": ["q", "and now?"]}))
    assert loaded.records[0].turns == (("user", "q"),) and list(loaded.notes.values()) == [1]


def test_a_system_column_that_is_not_named_is_noted(tmp_path):
    row = {"system": "s", "question": "p", "chosen": "a", "rejected": "b"}
    loaded = comparisons(tmp_path, row)
    assert loaded.records[0].prompt.turns == (("user", "p"),) and "--columns.system" in next(iter(loaded.notes))
    named = comparisons(tmp_path, row, columns={"system": "system"})
    assert named.records[0].prompt.turns[0] == Turn("system", "s") and not named.notes


# Ragged conversations


def test_an_empty_answer_inside_is_counted_and_not_trained_on(tmp_path):
    talk = [user("a"), assistant(" "), user("b"), assistant("c")]
    loaded = read_demonstrations(write_rows(tmp_path, {"messages": talk}))
    assert loaded.notes == {"empty assistant turn inside (not trained on)": 1}
    renderer = Renderer(train_tokenizer(["a b c"], 300))
    (shown,) = loaded.records
    rendered = renderer.conversation(shown.prompt.turns, shown.reply)
    trained = [token for token, on in zip(rendered.ids, rendered.mask, strict=True) if on]
    assert trained == list(renderer.reply_ids("c"))
    full = renderer.conversation((Turn("user", "a"), Turn("assistant", "x"), Turn("user", "b")), "c")
    assert sum(full.mask) == len(renderer.reply_ids("x")) + len(trained)


def test_two_answers_at_the_end_are_named(tmp_path):
    good = [user("a"), assistant("b")]
    loaded = read_demonstrations(write_rows(tmp_path, {"messages": good}, {"messages": [*good, assistant("more")]}))
    assert loaded.drops == {"two assistant turns at the end": 1}


# Nulls


def test_nulls_that_a_loader_filled_in_make_no_shape(tmp_path):
    """One table of two kinds of rows: what a row lacks is null in it."""
    nothing = {"messages": None, "prompt": None, "chosen": None, "rejected": None, "margin": float("nan")}
    pair = {**nothing, "prompt": "p", "chosen": "a", "rejected": "b", "labeler": None}
    talk = {**nothing, "messages": [{**user("q"), "tool_calls": None, "name": None}, assistant("a")]}
    source = write_rows(tmp_path, talk, pair, nothing)
    loaded = read_comparisons(source, "helpful")
    assert (len(loaded.records), loaded.drops) == (1, {"no prompt": 2})
    assert loaded.records[0].strength == 0 and loaded.records[0].labeler == "human"
    assert read_demonstrations(write_rows(tmp_path, {**talk, "chosen": None}, nothing)).drops == {"no messages": 1}


@pytest.mark.parametrize("unanswered", [None, float("nan"), "", "nan"])
def test_a_question_that_nobody_answered_is_counted(tmp_path, unanswered):
    row = {"prompt": "p", "completion": "c", "rating": "4"}
    loaded = read_judgements(write_rows(tmp_path, {**row, "rating": unanswered}, row), "helpful")
    assert [j.value for j in loaded.records] == [4] and loaded.drops == {"no rating": 1}


def test_an_answer_that_a_loader_took_for_a_number_is_text_and_noted(tmp_path):
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    loaded = comparisons(tmp_path, row, {**row, "chosen": 7.5}, {**row, "rejected": True}, {**row, "prompt": 1})
    assert [c.replies[0] for c in loaded.records] == ["a", "7.5", "a"]
    assert loaded.records[2].prompt.turns == (Turn("user", "1"),)
    assert loaded.drops == {"rejected is no text": 1}
    assert set(loaded.notes.values()) == {1} and len(loaded.notes) == 2
    assert "a number in column chosen, read as text" in loaded.notes
    judged = {"input": "p", "output_1": "a", "output_2": "b", "label": 1}
    assert comparisons(tmp_path, judged, {**judged, "output_2": False}).drops == {"output_2 is no text": 1}


def test_numbers_of_replies_in_a_table_are_text(tmp_path):
    path = tmp_path / "safe.csv"
    path.write_text("prompt,response_0,response_1,safer_response_id,is_response_0_safe\np,a,b,1,False\nq,a,b,,\n")
    assert [c.ranks for c in read_comparisons(str(path), "harmless").records] == [(2, 1)]


def test_a_system_column_of_another_name_is_said_once(tmp_path):
    """Shapes that have a system turn of their own take the column that is named for it."""
    row = {"instruction": "p", "output": "a", "rules": "s"}
    (found,) = read_demonstrations(write_rows(tmp_path, row), columns={"system": "rules"}).records
    assert found.prompt.turns == (("system", "s"), ("user", "p"))


def test_a_message_without_a_role_is_refused_with_the_roles(tmp_path):
    with pytest.raises(BadInput, match=r"rows\.jsonl:1.*role is one of system, user"):
        read_demonstrations(write_rows(tmp_path, {"messages": [{"content": "why"}, assistant("so")]}))
