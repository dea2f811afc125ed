"""Loaded sources to the last field: hashes, counts, mixtures, and the words of refusals."""

import hashlib
import json

import pytest

from accord.data.parse import Reader
from accord.data.reward_sets import read_reward_set
from accord.data.sources import (
    few_openings,
    inspect_source,
    nothing_left,
    prompt_of,
    read_battles,
    read_comparisons,
    read_demonstrations,
    read_judgements,
    read_many,
    read_prompts,
    refuse_overlap,
)
from accord.data.summary import quantiles
from accord.errors import BadInput
from accord.records import SPLITS, Comparison, Demonstration, Judgement, Prompt, Turn, unit_hash
from tests.fixtures.rows import assistant, user, write_rows


def asked(text, *more):
    return Prompt((Turn("user", text), *more), "", "s")


def pair(prompt="q", chosen="a", rejected="b", **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def test_all_that_is_said_of_a_source(tmp_path):
    rows = [
        pair(),
        pair(rejected="a "),
        pair(chosen=7),
        pair(),
        pair(chosen=None, rejected="ü"),
        pair(),
        pair(tie=True),
    ]
    source = write_rows(tmp_path, *rows)
    loaded = read_comparisons(source, "helpful")
    lines = "".join(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
    assert loaded.hash == hashlib.sha256(lines.encode()).hexdigest()
    assert (loaded.rows, loaded.shape, loaded.source) == (7, "preference", source)
    assert loaded.drops == {"equal replies": 1, "no chosen": 1} and len(loaded.records) == 5
    assert loaded.duplicates == 2 and loaded.notes == {"a number in column chosen, read as text": 1}
    assert [(c.replies, c.ranks) for c in loaded.records[1::3]] == [(("7", "b"), (1, 2)), (("a", "b"), (1, 1))]


@pytest.mark.parametrize("reader", [read_comparisons, read_battles, read_judgements])
def test_who_compares_or_judges_names_the_criterion(tmp_path, reader):
    source = write_rows(tmp_path, pair())
    kind = reader.__name__.removeprefix("read_")
    with pytest.raises(BadInput, match=rf"rows\.jsonl: name the criterion of the {kind}, for example helpful\."):
        reader(source, "")


def test_a_refusal_says_what_was_dropped_and_what_to_do(tmp_path):
    source = write_rows(tmp_path, pair(tie=True), pair(chosen=None))
    with pytest.raises(BadInput) as refused:
        read_demonstrations(source)
    assert str(refused.value) == (
        f"{source}: no demonstrations are left of 2 rows (1 × no chosen, 1 × tie); `accord data {source}` shows what "
        "it holds. tie: no reply of a tie is the best; as comparisons ties are kept."
    )
    assert str(nothing_left("s", "record", 3, {"tie": 0, "b": 2, "a": 1})) == (
        "s: no records are left of 3 rows (1 × a, 2 × b)."
    )
    assert str(nothing_left("s", "record", 0, {})) == "s: no records are left of 0 rows (none dropped)."
    two = str(nothing_left("s", "record", 2, {"tool call": 1, "sides part before the last turn": 1}))
    assert two.count(": --uneven cut ends both sides") == 1 and two.count(" tool call: Accord learns from text") == 1


def test_a_criterion_that_is_not_there_is_told_those_that_are(tmp_path):
    row = {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    source = write_rows(tmp_path, row)
    with pytest.raises(BadInput) as refused:
        read_comparisons(source, "honest")
    assert str(refused.value) == (
        f"{source}: no comparisons are left of 1 rows (1 × other criterion; criteria in it: harmless, helpful); "
        f"`accord data {source}` shows what it holds."
    )
    with pytest.raises(BadInput) as refused:
        read_judgements(source, "honest")
    assert "criteria in it" not in str(refused.value)
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    rated = write_rows(tmp_path, {"prompt": "q", "response": "a", **dict.fromkeys(names, 2)})
    with pytest.raises(BadInput, match=f"criteria in it: {', '.join(sorted(names))}"):
        read_judgements(rated, "honest")


# Mixtures


def named(tmp_path, name, count):
    folder = tmp_path / name
    folder.mkdir()
    return write_rows(folder, *(pair(f"{name} {k}") for k in range(count)))


def test_a_mixture_repeats_evenly_and_gives_the_rest_by_hash(tmp_path):
    sources = {"a": named(tmp_path, "a", 6), "b": named(tmp_path, "b", 3)}
    apart = read_many(read_comparisons, sources, "helpful")
    mixed = read_many(read_comparisons, sources, "helpful", weights={"a": 2, "b": 7})
    a, b = (apart[name].records for name in "ab")
    first = sorted(a, key=lambda record: unit_hash(record.id))[:2]
    assert mixed["a"].records == [record for record in a if record in first]
    assert (mixed["a"].drops, mixed["a"].duplicates) == ({"over its weight": 4}, 0)
    more = min(b, key=lambda record: unit_hash(record.id))
    assert mixed["b"].records == [*b, *b, more]
    assert (mixed["b"].drops, mixed["b"].duplicates) == ({}, 4)
    assert {c.prompt.slice for c in mixed["b"].records} == {"b"}


def test_what_a_source_had_dropped_and_doubled_stays_counted(tmp_path):
    (tmp_path / "x").mkdir()
    doubled = write_rows(tmp_path / "x", pair(), pair(), pair(chosen="b"))
    sources = {"x": doubled, "y": named(tmp_path, "y", 4)}
    mixed = read_many(read_comparisons, sources, "helpful", weights={"x": 1, "y": 0.5})
    assert (len(mixed["x"].records), mixed["x"].duplicates, mixed["x"].drops) == (4, 3, {"equal replies": 1})
    assert (len(mixed["y"].records), mixed["y"].drops) == (2, {"over its weight": 2})
    even = read_many(read_comparisons, sources, "helpful", weights={"x": 1, "y": 2})
    assert (len(even["x"].records), even["x"].duplicates, even["y"].drops) == (2, 1, {})


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"x": 1, "z": 1}, "--weights must name the same sources as --data; only one of them names y, z"),
        ({"x": 1, "y": 0}, "--weights must be numbers above 0; to leave a source out, take it out of --data"),
        ({"x": 1, "y": -1}, "--weights must be numbers above 0"),
        ({"x": 1, "y": float("inf")}, "--weights must be numbers above 0"),
        ({"x": 1, "y": 1e-4}, r"y/rows\.jsonl: its weight leaves it no record; raise it or leave the source out"),
    ],
)
def test_weights_that_are_none(tmp_path, weights, said):
    sources = {"x": named(tmp_path, "x", 3), "y": named(tmp_path, "y", 2)}
    with pytest.raises(BadInput, match=said):
        read_many(read_comparisons, sources, "helpful", weights=weights)


# Prompts and overlaps


def test_the_prompt_of_every_record():
    prompt = asked("q")
    shown = Demonstration(prompt, "a")
    ranked = Comparison(prompt, ("a", "b"), (1, 2), "helpful", "ai", 0.0, (0, 1))
    judged = Judgement(prompt, "a", "safe", "safe", 1, "ai", "", 0.0)
    assert all(prompt_of(record) is prompt for record in (prompt, shown, ranked, judged))


@pytest.mark.parametrize(
    ("count", "different", "said"),
    [
        (9, 1, ""),
        (
            10,
            1,
            ": all 10 conversations begin with the same first turn of the user, by which they are held out and split",
        ),
        (29, 3, ""),
        (30, 3, ": all 30 conversations begin with one of 3 first turns of the user, by which they are held out and"),
    ],
)
def test_prompts_that_begin_alike_are_said(count, different, said):
    found = few_openings(asked(f"q{k % different}", Turn("assistant", f"{k}"), Turn("user", "r")) for k in range(count))
    assert found.startswith(said) and bool(found) == bool(said)


def test_an_overlap_of_one_thing():
    with pytest.raises(BadInput, match=r"^x and y share 1 document; what is learned on must not be measured on: rem"):
        refuse_overlap(["a", "b"], ["b", "c"], "x", "y", "document")
    with pytest.raises(BadInput, match=r"^x and y share 2 prompts; "):
        refuse_overlap(["a", "b"], ["b", "a"], "x", "y")


# Summaries


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ()),
        ([7], (7,) * 5),
        ([9, 2], (2, 2, 2, 9, 9)),
        ([5, 1, 4, 2, 3], (1, 2, 3, 4, 5)),
        ([10, 0, 30, 20, 60, 50, 40], (0, 20, 30, 40, 60)),
    ],
)
def test_quantiles_are_values_that_occur(values, expected):
    assert quantiles(values) == expected


def test_a_summary_field_by_field(tmp_path):
    rows = [
        pair("one two", "a b c", "d", slice="x"),
        pair("one two", "a b c", "d", slice="x", tools=["f"]),
        pair("three", "a", "b b", slice="w", tie=True),
        pair("four five six", "a", "a", all_bad=True, tie=True),
        pair("seven", None, "b"),
    ]
    source = write_rows(tmp_path, *rows)
    found = inspect_source(source)
    assert (found.source, found.shape, found.rows) == (source, "preference", 5)
    assert found.columns == ["prompt", "chosen", "rejected", "slice", "tools", "tie", "all_bad"]
    assert found.counts == {"prompt": 4, "demonstration": 2, "comparison": 3}
    assert found.drops == {
        "demonstration": {"tie": 2, "no chosen": 1},
        "comparison": {"equal replies": 1, "no chosen": 1},
        "prompt": {"no chosen": 1},
    }
    assert found.criteria == {"(as asked)": 3} and found.duplicates == dict.fromkeys(found.counts, 1)
    assert found.prompt_words == (1, 2, 2, 2, 3) and found.text_words == ()
    assert found.reply_words == (1, 1, 1, 2, 3)
    assert list(found.slices.items()) == [("", 1), ("w", 1), ("x", 2)] and found.openings == 3
    assert found.notes == {"tools beside the conversation, left out": 1, "tie": 1}
    prompts = read_prompts(source).records
    assert found.splits == {name: sum(prompt.split == name for prompt in prompts) for name in SPLITS}
    assert found.kind == "comparison"
    assert isinstance(found.example, Comparison) and found.example.replies == ("a b c", "d")


def test_a_summary_of_a_source_that_gives_nothing(tmp_path):
    found = inspect_source(write_rows(tmp_path, pair(" ")))
    assert (found.rows, found.counts, found.kind, found.example) == (1, {}, None, None)
    assert (found.splits, found.slices, found.openings, found.prompt_words) == ({}, {}, 0, ())


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "q", "completion": "a", "rating": 3}, "judgement"),
        ({"prompt": "q", "completion": "a"}, "demonstration"),
        ({"prompt": "q"}, "prompt"),
        ({"text": "t"}, "document"),
    ],
)
def test_the_kind_that_says_most(tmp_path, row, kind):
    found = inspect_source(write_rows(tmp_path, row))
    assert found.kind == kind and type(found.example).__name__.lower() == kind


def test_a_summary_is_read_as_it_is_asked_for(tmp_path):
    source = write_rows(tmp_path, pair(text="t"), pair(text="u"))
    assert inspect_source(source, Reader(max_rows=1), "document").counts == {"document": 1}
    assert inspect_source(source, kind="document").shape == "text"


# Questions of reward benchmarks


def test_a_question_of_a_benchmark_field_by_field(tmp_path):
    rows = [
        pair(chosen="same", rejected="same", subset="chat", id="n1", margin=2),
        pair(chosen=["a", "b"], rejected=["c", ""], subset=5, id=7, slice="own"),
    ]
    found, drops = read_reward_set(write_rows(tmp_path, rows[0]), Reader())
    prompt = Prompt((Turn("user", "q"),), "chat", "n1")
    assert found == [Comparison(prompt, ("same", "same"), (1, 2), "", "human", 2.0, (0, 1))] and drops == {}
    source = write_rows(tmp_path, rows[1])
    found, _ = read_reward_set(source, Reader())
    prompt = Prompt((Turn("user", "q"),), "own", source)
    assert found == [Comparison(prompt, ("a", "b", "c", ""), (1, 1, 2, 2), "", "human", 0.0, (0, 1, 2, 3))]


def test_rows_that_are_no_question_of_a_benchmark_are_counted(tmp_path):
    other = {"chosen": [user("x"), assistant("a")], "rejected": [user("y"), assistant("b")]}
    good = {"chosen": [user("x"), assistant("a")], "rejected": [user("x"), assistant("b")]}
    rows = [good, other, {**good, "tie": True}, {**good, "chosen": None}]
    found, drops = read_reward_set(write_rows(tmp_path, *rows), Reader())
    assert len(found) == 1 and drops == {"prompts differ": 1, "tie": 1, "no chosen": 1}
    with pytest.raises(BadInput, match=r"no questions are left of 2 rows \(1 × prompts differ, 1 × tie\)"):
        read_reward_set(write_rows(tmp_path, *rows[1:3]), Reader())
    safe = {"prompt": "q", "response_0": "a", "response_1": "b", "is_response_0_safe": True}
    with pytest.raises(BadInput, match=r"1 × other kind of record"):
        read_reward_set(write_rows(tmp_path, safe), Reader())
