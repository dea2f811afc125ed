"""Loaded records: ids, splits, mixtures, own files and summaries."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.data.sources import (
    inspect_source,
    read_comparisons,
    read_demonstrations,
    read_documents,
    read_judgements,
    read_many,
    read_prompts,
    refuse_overlap,
    select_split,
    write_records,
)
from accord.errors import BadInput
from accord.records import SPLITS, Comparison, Demonstration, Document, Judgement, Prompt, Turn

PROMPT = Prompt((Turn("system", "Be brief."), Turn("user", "Why?\u2028 ü")), "benign", "by hand")
RECORDS = [
    Document("A text.\n\nMore.", "book"),
    PROMPT,
    Demonstration(PROMPT, " because\n"),
    Comparison(PROMPT, ("a", "b", "c"), (2, 1, 2), "honest", "ai", 0.75, (2, 0, 1)),
    Judgement(PROMPT, "a", "harmless", "safe", 0, "gold", "theft", 2),
    Judgement(PROMPT, "a", "helpful", "rating", -0.1, "simulated", "", 0.5),
]
READ = {
    Document: lambda path: read_documents(path),
    Prompt: lambda path: read_prompts(path),
    Demonstration: lambda path: read_demonstrations(path),
    Comparison: lambda path: read_comparisons(path, "honest"),
    Judgement: lambda path: read_judgements(path, "harmless"),
}


def write_pairs(path: Path, count: int, **extra: object) -> str:
    rows = [
        {"prompt": f"{path.stem} {i}?", "chosen": f"good {i}", "rejected": f"bad {i}", **extra} for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("change", [{"probability": 0.75}, {"all_bad": True}, {"ranks": (1, 1, 1), "all_bad": True}])
def test_soft_labels_and_both_bad_read_back_and_have_ids_of_their_own(tmp_path, change):
    said = replace(RECORDS[3], **change)
    write_records(tmp_path / "own.jsonl", [said])
    assert read_comparisons(str(tmp_path / "own.jsonl"), "honest").records == [said]
    assert said.id != RECORDS[3].id


@pytest.mark.parametrize("name", ["records.jsonl", "records.jsonl.gz"])
def test_own_records_read_back_exactly(tmp_path, name):
    path = tmp_path / name
    for record in RECORDS[:5]:
        assert write_records(path, [record]) == 1
        found = READ[type(record)](str(path)).records
        assert found == [record] and found[0].id == record.id
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_written_row_names_the_split_of_its_prompt(tmp_path):
    write_records(tmp_path / "records.jsonl", RECORDS)
    rows = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().split("\n")[:-1]]
    prompts = [getattr(record, "prompt", record) for record in RECORDS]
    assert [row.get("split") for row in rows] == [getattr(prompt, "split", None) for prompt in prompts]
    assert any(isinstance(record, Prompt) for record in RECORDS)


words = st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda t: t.strip())


@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=4), st.floats(-9, 9), words)
def test_own_comparisons_read_back_whatever_their_text(tmp_path_factory, texts, strength, labeler):
    path = tmp_path_factory.mktemp("own") / "comparisons.jsonl"
    pairs = [
        Comparison(Prompt((Turn("user", p),), a, b), (a + "1", b + "2"), (1, 1), "helpful", labeler, strength, (1, 0))
        for p, a, b in texts
        if a.strip() + "1" != b.strip() + "2"
    ]
    write_records(path, pairs)
    if pairs:
        assert read_comparisons(str(path), "helpful").records == pairs


def test_a_mixed_file_of_own_records_gives_each_reader_its_own(tmp_path):
    path = tmp_path / "all.jsonl"
    write_records(path, RECORDS)
    assert read_judgements(str(path), "harmless").records == [RECORDS[4]]
    assert read_judgements(str(path), "helpful").drops == {"other kind of record": 4, "other criterion": 1}
    assert len(read_prompts(str(path)).records) == 5
    summary = inspect_source(str(path))
    assert summary.counts == {"document": 1, "prompt": 5, "demonstration": 2, "comparison": 1, "judgement": 2}
    assert summary.criteria == {"honest": 1, "harmless": 1, "helpful": 1} and summary.drops == {}


def test_a10_ids_travel_with_rows(tmp_path):
    source = write_pairs(tmp_path / "a.jsonl", 20)
    lines = Path(source).read_text().splitlines(keepends=True)
    by_prompt = {c.prompt.id: c.id for c in read_comparisons(source, "helpful").records}
    order = list(range(20))
    random.Random(1).shuffle(order)
    Path(source).write_text("".join(lines[i] for i in order))
    shuffled = read_comparisons(source, "helpful").records
    assert [c.replies[0] for c in shuffled] == [f"good {i}" for i in order]
    assert {c.prompt.id: c.id for c in shuffled} == by_prompt
    assert [d.prompt.id for d in read_demonstrations(source).records] == [c.prompt.id for c in shuffled]


def test_a10_a_row_whose_id_does_not_fit_is_refused_with_its_line(tmp_path):
    path = tmp_path / "own.jsonl"
    write_records(path, [PROMPT, replace(PROMPT, turns=(Turn("user", "Other?"),))])
    path.write_text(path.read_text().replace("Other?", "Another?"))
    for reader in (read_prompts, inspect_source):
        with pytest.raises(BadInput, match=r"own\.jsonl:2: the id of this prompt"):
            reader(str(path))
    row = json.loads(path.read_text().split("\n")[1])
    del row["id"]
    path.write_text(json.dumps(row))
    assert read_prompts(str(path)).records[0].turns == (("user", "Another?"),)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "own.jsonl"
    write_records(path, [PROMPT])
    before = path.read_bytes()

    def broken():
        yield RECORDS[2]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_records(path, broken())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_same_records_give_the_same_compressed_bytes(tmp_path, monkeypatch):
    for name, now in (("a.jsonl.gz", 1.0), ("b.jsonl.gz", 2e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_records(tmp_path / name, RECORDS)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_duplicates_are_kept_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n") * 3)
    loaded = read_comparisons(str(path), "helpful")
    assert (len(loaded.records), loaded.duplicates, loaded.drops) == (3, 2, {})


def test_the_slice_of_a_row_comes_before_the_slice_of_its_source(tmp_path):
    a = write_pairs(tmp_path / "a.jsonl", 2)
    b = write_pairs(tmp_path / "b.jsonl", 1, slice="own")
    assert {p.slice for p in read_prompts(a).records} == {""}
    loaded = read_many(read_comparisons, {"first": a, "second": b}, "helpful")
    assert {c.prompt.slice for c in loaded["first"].records} == {"first"}
    assert {c.prompt.slice for c in loaded["second"].records} == {"own"}
    text = tmp_path / "t.txt"
    text.write_text("text")
    assert read_many(read_documents, {"books": str(text)})["books"].records[0].text == "text"


def test_weights_are_shares_of_the_mixture(tmp_path):
    sources = {"a": write_pairs(tmp_path / "a.jsonl", 30), "b": write_pairs(tmp_path / "b.jsonl", 10)}
    mixed = read_many(read_comparisons, sources, "helpful", weights={"a": 1, "b": 3})
    a, b = mixed["a"], mixed["b"]
    assert (len(a.records), len(b.records)) == (10, 30)
    assert a.drops == {"over its weight": 20} and (b.drops, b.duplicates) == ({}, 20)
    assert {r.id for r in b.records} == {r.id for r in read_comparisons(sources["b"], "helpful").records}
    # What is kept depends on the records, not on their order in the file.
    lines = Path(sources["a"]).read_text().splitlines(keepends=True)
    Path(sources["a"]).write_text("".join(reversed(lines)))
    again = read_many(read_comparisons, sources, "helpful", weights={"a": 1, "b": 3})["a"]
    assert {r.id for r in again.records} == {r.id for r in a.records}
    for weights in ({"a": 1.0}, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 0}, {"a": 1, "b": float("nan")}):
        with pytest.raises(BadInput, match="--weights"):
            read_many(read_comparisons, sources, "helpful", weights=weights)
    with pytest.raises(BadInput, match="leaves it no record"):
        read_many(read_comparisons, sources, "helpful", weights={"a": 1, "b": 1e-6})


def test_splits_are_disjoint_by_prompt_and_cover_everything(tmp_path):
    pairs = read_comparisons(write_pairs(tmp_path / "a.jsonl", 60), "helpful").records
    parts = {split: select_split(pairs, split) for split in SPLITS}
    assert sum(map(len, parts.values())) == 60 and all(parts.values())
    assert all(pair.prompt.split == split for split, part in parts.items() for pair in part)
    prompts = select_split([pair.prompt for pair in pairs], "policy")
    assert prompts == [pair.prompt for pair in parts["policy"]]
    with pytest.raises(BadInput, match="no split 'test'"):
        select_split(pairs, "test")


def test_an_overlap_is_refused_and_counted():
    refuse_overlap(["a", "b"], ["c"], "the prompts", "the training data")
    with pytest.raises(BadInput, match=r"the prompts and the training data share 2 prompts; .*remove them"):
        refuse_overlap(["a", "b", "b"], ["b", "a", "c"], "the prompts", "the training data")


def test_a_criterion_must_be_named(tmp_path):
    with pytest.raises(BadInput, match="name the criterion"):
        read_comparisons(write_pairs(tmp_path / "a.jsonl", 1), "")


def test_a_summary_counts_what_each_reader_would_get(tmp_path):
    rows = [
        {
            "chosen": "\n\nHuman: one two\n\nAssistant: a",
            "rejected": "\n\nHuman: one two\n\nAssistant: a b c",
        },
        {"chosen": "\n\nHuman: one\n\nAssistant: ", "rejected": "\n\nHuman: one\n\nAssistant: b"},
        {"chosen": "\n\nHuman: one\n\nAssistant: b", "rejected": "\n\nHuman: one\n\nAssistant: b"},
        {"chosen": "\n\nHuman: one\n\nAssistant: b", "rejected": "\n\nHuman: two\n\nAssistant: c"},
        {"chosen": "nothing", "rejected": "\n\nHuman: one\n\nAssistant: b"},
    ]
    path = tmp_path / "hh.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = inspect_source(str(path))
    assert (summary.shape, summary.columns, summary.rows) == ("hh transcripts", ["chosen", "rejected"], 5)
    for kind, reader, args in (
        ("comparison", read_comparisons, ["helpful"]),
        ("demonstration", read_demonstrations, []),
        ("prompt", read_prompts, []),
    ):
        loaded = reader(str(path), *args)
        assert summary.counts[kind] == len(loaded.records) and summary.drops[kind] == loaded.drops
    assert summary.drops["comparison"] == {
        "empty reply": 1,
        "equal replies": 1,
        "prompts differ": 1,
        "malformed transcript": 1,
    }
    assert summary.duplicates == {"prompt": 1}
    assert summary.prompt_words == (1, 1, 1, 2, 2)
    assert summary.reply_words == (0, 1, 1, 1, 3)
    assert isinstance(summary.example, Comparison) and summary.example.replies == ("a", "a b c")
    assert sum(summary.splits.values()) == 3 and summary.slices == {"": 3}


def test_a_summary_of_text_has_no_prompts(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("three small words")
    summary = inspect_source(str(path))
    assert summary.text_words == (3, 3, 3, 3, 3) and summary.prompt_words == () and summary.splits == {}
    assert summary.counts == {"document": 1} and isinstance(summary.example, Document)


def test_sources_need_no_torch():
    read = "import sys, accord.data.sources as s; s.read_prompts('world:prompts?count=3')"
    code = f"{read}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
