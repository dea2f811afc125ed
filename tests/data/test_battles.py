"""Comparisons whose replies name the snapshots that wrote them: what rates snapshots, and trains nothing."""

import json

import pytest

from accord.data.rows import write_records
from accord.data.sources import inspect_source, read_battles, read_comparisons
from accord.errors import BadInput
from accord.records import Comparison, Prompt, Turn


def write(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(role, text):
    return {"role": role, "content": text}


def arena(winner="model_a", **more):
    a, b = ([said("user", "q"), said("assistant", text)] for text in ("one", "two"))
    row = {"conversation_a": a, "conversation_b": b, "winner": winner, "model_a": "x", "model_b": "y"}
    return row | {"judge": "arena_user_973"} | more


def test_arena_votes_name_models_and_the_user_and_show_a_on_the_left(tmp_path):
    source = write(tmp_path, arena(), arena("tie (bothbad)"))
    first, second = read_battles(source, "helpful").records
    assert (first.snapshots, first.labeler, first.order) == (("x", "y"), "arena_user:973", (0, 1))
    assert first.ranks == (1, 2) and second.all_bad
    assert read_comparisons(source, "helpful").records[0].snapshots == ("x", "y")


def test_a_battle_keeps_what_a_comparison_to_learn_from_drops(tmp_path):
    """Who says nothing has lost, and who says the same has tied: leaving these out would flatter the silent."""
    silent = [said("user", "q"), said("assistant", "")]
    source = write(
        tmp_path, arena("model_b", conversation_a=silent), arena("tie", conversation_b=arena()["conversation_a"])
    )
    found = read_battles(source, "helpful").records
    assert [c.replies for c in found] == [("", "two"), ("one", "one")]
    with pytest.raises(BadInput, match="empty reply"):
        read_comparisons(source, "helpful")


def test_conversations_that_part_are_about_the_turns_that_they_share(tmp_path):
    longer = {side: [*arena()[f"conversation_{side}"], said("user", "r"), said("assistant", side)] for side in "ab"}
    source = write(tmp_path, arena(conversation_a=longer["a"], conversation_b=longer["b"]))
    (found,) = read_battles(source, "helpful").records
    assert found.prompt.turns == (Turn("user", "q"),) and found.replies == ("a", "b")
    other = [said("user", "other"), said("assistant", "two")]
    with pytest.raises(BadInput, match="1 × prompts differ"):
        read_battles(write(tmp_path, arena(conversation_b=other)), "helpful")


def test_alpaca_eval_names_generators_and_annotator_but_not_which_was_shown_first(tmp_path):
    row = {"instruction": "p", "output_1": "a", "output_2": "b", "preference": 1.75}
    named = row | {"generator_1": "base", "generator_2": "new", "annotator": "gpt4"}
    (found,) = read_battles(write(tmp_path, named), "helpful").records
    assert (found.snapshots, found.labeler, found.order) == (("base", "new"), "gpt4", ())
    assert (found.ranks, found.probability) == ((2, 1), 0.75)
    (plain,) = read_comparisons(write(tmp_path, row), "helpful").records
    assert (plain.snapshots, plain.labeler, plain.order) == ((), "human", (0, 1))


def test_votes_in_columns_name_models_too(tmp_path):
    row = {"prompt": '["q"]', "response_a": '["a"]', "response_b": '["b"]', "model_a": "x", "model_b": "y"}
    row |= {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    (found,) = read_battles(write(tmp_path, row), "helpful").records
    assert found.snapshots == ("x", "y") and found.ranks == (2, 1)


def test_three_people_of_pandalm_are_three_votes_and_one_soft_label(tmp_path):
    row = {"instruction": "i", "input": "j", "response1": "a", "response2": "b", "cmp_key": "bloom-7b_opt-7b"}
    row |= {f"annotator{k}": vote for k, vote in ((1, 1), (2, 2), (3, 0))}
    source = write(tmp_path, row)
    found = read_battles(source, "helpful").records
    assert [(c.labeler, c.ranks) for c in found] == [
        ("annotator:1", (1, 2)),
        ("annotator:2", (2, 1)),
        ("annotator:3", (1, 1)),
    ]
    assert {c.snapshots for c in found} == {("bloom-7b", "opt-7b")}
    (soft,) = read_comparisons(source, "helpful").records
    assert soft.ranks == (1, 1) and soft.labeler == "human"
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: column 'cmp_key' must hold two names"):
        read_battles(write(tmp_path, row | {"cmp_key": "one"}), "helpful")


def test_names_survive_being_written_and_are_no_part_of_the_id(tmp_path):
    prompt = Prompt((Turn("user", "q"),), "", "test")
    ranked = Comparison(prompt, ("a", "b", "c"), (2, 1, 2), "helpful", "ai", 0.0, (2, 0, 1), snapshots=("x", "y", "z"))
    bare = Comparison(prompt, ("a", "b", "c"), (2, 1, 2), "helpful", "ai", 0.0, (2, 0, 1))
    assert ranked.id == bare.id
    write_records(tmp_path / "rows.jsonl", [ranked, bare])
    source = str(tmp_path / "rows.jsonl")
    assert read_comparisons(source, "helpful").records == [ranked, bare]
    loaded = read_battles(source, "helpful")
    assert loaded.records == [ranked] and loaded.drops == {"no snapshot named": 1}
    rows = (tmp_path / "rows.jsonl").read_text().replace('["x", "y", "z"]', '["x", "y"]')
    (tmp_path / "rows.jsonl").write_text(rows)
    with pytest.raises(BadInput, match=r"rows\.jsonl:1: column 'snapshots' must hold 3 names"):
        read_battles(source, "helpful")


def test_a_source_without_names_is_refused_with_what_would_name_them(tmp_path):
    nameless = {"instruction": "p", "output_1": "a", "output_2": "b", "preference": 1.75}
    with pytest.raises(BadInput, match="no snapshot named: ratings need to know which snapshot wrote each reply"):
        read_battles(write(tmp_path, nameless), "helpful")
    with pytest.raises(BadInput, match="no battles can be read from the columns"):
        read_battles(write(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b"}), "helpful")
    with pytest.raises(BadInput, match="a snapshot against itself"):
        read_battles(write(tmp_path, arena(model_b="x")), "helpful")


def test_data_counts_battles_beside_comparisons_once(tmp_path):
    found = inspect_source(write(tmp_path, arena("tie"), arena(model_a=None)))
    assert found.counts["comparison"] == 2 and found.counts["battle"] == 1
    assert found.criteria == {"(as asked)": 2} and found.notes["tie"] == 1
    assert found.drops == {"demonstration": {"tie": 1}}
