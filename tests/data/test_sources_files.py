"""Every way in which a file can be wrong, and the kinds of source."""

import gzip
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from accord.data.files import split_columns
from accord.data.schemes import parse_world
from accord.data.sources import (
    inspect_source,
    read_comparisons,
    read_demonstrations,
    read_documents,
    read_judgements,
    read_prompts,
)
from accord.errors import BadInput

GOOD = {"prompt": "How are you?", "chosen": "Well.", "rejected": "Bad."}


def write_lines(path: Path, *lines: object) -> str:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def refusal(source: str, criterion: str = "helpful") -> str:
    with pytest.raises(BadInput) as caught:
        read_comparisons(source, criterion)
    return str(caught.value)


def test_a_missing_file_is_named_with_its_nearest_neighbours(tmp_path):
    write_lines(tmp_path / "pairs.jsonl", GOOD)
    write_lines(tmp_path / "other.txt", "x")
    message = refusal(str(tmp_path / "pair.jsonl"))
    assert "pair.jsonl" in message and "Near it: pairs.jsonl" in message


def test_a_missing_folder_is_named_with_the_part_that_exists(tmp_path):
    assert f"exists is {tmp_path}." in refusal(str(tmp_path / "no" / "such" / "pairs.jsonl"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.txt", "a.csv", "a.jsonl.gz", "a.txt.gz", "a.csv.gz"])
def test_an_empty_file_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    assert "file is empty" in refusal(str(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_file_of_blank_lines_is_empty(tmp_path, name):
    assert "file is empty" in refusal(write_lines(tmp_path / name, "", "  ", ""))


@pytest.mark.parametrize("content", [b"\x00\x01\x02", b"PAR1\x15\x04", b"PK\x03\x04abc", b"\x1f\x8b\x08abc"])
def test_a_binary_file_is_refused(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    message = refusal(str(path))
    assert f"{path}:1" in message and "is a binary file" in message


def test_invalid_utf8_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"prompt": "\xff"}\n')
    message = refusal(str(path))
    assert f"{path}:2" in message and "UTF-8" in message


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_bad_json_is_named_with_its_line(tmp_path, ending):
    source = write_lines(tmp_path / f"a{ending}", *[GOOD] * 6, '{"prompt": ', GOOD)
    assert f"{source}:7: not valid JSON" in refusal(source)


def test_bad_json_in_a_list_is_named_with_its_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[\n{"a": 1},\n{"a" 2}\n]')
    assert f"{path}:3: not valid JSON" in refusal(str(path))


@pytest.mark.parametrize(("line", "what"), [("[1]", "list"), ('"x"', "string"), ("3", "number"), ("null", "null")])
def test_a_row_that_is_no_object_is_named_with_its_line(tmp_path, line, what):
    source = write_lines(tmp_path / "a.jsonl", GOOD, line)
    message = refusal(source)
    assert f"{source}:2" in message and f"JSON {what}" in message


def test_json_too_deep_or_half_a_surrogate_is_refused_with_its_line(tmp_path):
    deep = write_lines(tmp_path / "deep.jsonl", "[" * 200_000)
    assert f"{deep}:1" in refusal(deep)
    half = write_lines(tmp_path / "half.jsonl", GOOD, '{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}')
    assert f"{half}:2" in refusal(half)


def test_a_json_object_in_place_of_a_list_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(GOOD))
    assert "list of objects" in refusal(str(path))
    path.write_text(json.dumps([GOOD, 5]))
    assert "entry 2" in refusal(str(path))


def test_wrong_columns_are_listed_with_the_nearest_shapes_and_the_remedy(tmp_path):
    message = refusal(write_lines(tmp_path / "a.jsonl", {"question": "q", "answer": "a"}))
    for part in (
        "'question', 'answer'",
        "question and pair (lacks chosen, rejected)",
        "--columns.FIELD NAME",
        ":1:",
    ):
        assert part in message


def test_a_column_that_later_rows_lack_is_named_with_its_line(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", GOOD, {"prompt": "x", "chosen": "y"})
    message = refusal(source)
    assert f"{source}:2" in message and "'rejected'" in message


def test_the_wrong_kind_of_source_says_what_it_holds(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", {"messages": [{"role": "user", "content": "hi"}]})
    assert "look like 'messages'" in refusal(source)


def test_truncated_gzip_is_refused_with_the_line_it_breaks_at(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({**GOOD, "n": i}) + "\n" for i in range(2000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    message = refusal(str(path))
    assert "cut short" in message and int(message.split(":")[1]) > 1
    path.write_bytes(b"plain text")
    assert "not a gzip file" in refusal(str(path))


def test_nothing_left_gives_the_drop_counts(tmp_path):
    same = {"prompt": "p", "chosen": "same", "rejected": "same"}
    message = refusal(write_lines(tmp_path / "a.jsonl", same, same, {**same, "rejected": " "}))
    assert "2 × equal replies" in message and "1 × empty reply" in message and "3 rows" in message


def test_messages_never_quote_the_rows(tmp_path):
    secret = "unspeakable"
    cases = [
        {"prompt": secret, "chosen": {"role": 5}, "rejected": secret},
        {"prompt": [{"role": secret, "content": secret}], "chosen": "a", "rejected": "b"},
        {
            "prompt": [{"role": "user", "content": [{"type": "text", "text": 5, "name": secret}]}],
            "chosen": "a",
            "rejected": "b",
        },
        {"text": secret},
        '{"prompt": "unspeakable" "x"}',
    ]
    for case in cases:
        assert secret not in refusal(write_lines(tmp_path / "a.jsonl", case))


def test_an_unknown_kind_of_source_lists_the_known_ones():
    message = refusal("argilla:sqlite:///x.db")
    assert "'argilla:'" in message and "hub:" in message and "world:" in message


def test_an_unknown_ending_is_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("a\tb\n")
    assert ".jsonl" in refusal(str(path))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_table_has_a_row_a_record_and_numbers_as_text(tmp_path, name):
    text = 'prompt,chosen,rejected,margin,tie\n"How, then?","Well.\nAnd you?",Bad.,0.5,0\n\n'
    text += 'p,a,"He said ""no"".",1,true\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    first, second = read_comparisons(str(path), "helpful").records
    assert first.prompt.turns[0].content == "How, then?" and first.replies == ("Well.\nAnd you?", "Bad.")
    assert (first.ranks, first.strength) == ((1, 2), 0.5)
    assert second.replies[1] == 'He said "no".' and second.ranks == (1, 1)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ('prompt,chosen,rejected\n"a\nb",c,d\np,c\n', 4, "2 cells where the first line names 3 columns"),
        ("prompt,chosen,rejected\np,c,d,e\n", 2, "4 cells"),
        ('prompt,chosen,rejected\np,c,"d\n', 2, "not a readable row"),
        ("prompt,chosen,rejected,margin\np,c,d,much\n", 2, "column 'margin' must hold a finite number"),
    ],
)
def test_a_bad_row_of_a_table_is_named_with_its_line(tmp_path, text, line, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    message = refusal(str(path))
    assert f"{path}:{line}: " in message and said in message


def test_a_table_of_nothing_but_names_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected\n")
    assert "holds no rows" in refusal(str(tmp_path / "a.csv"))


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n\n" + json.dumps(GOOD).encode() + b"\r\n")
    assert read_comparisons(str(path), "helpful").rows == 2


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**GOOD, "chosen": "one\u2028two\x85three"}, ensure_ascii=False) + "\n")
    assert read_comparisons(str(path), "helpful").records[0].replies[0] == "one\u2028two\x85three"


def test_a_folder_of_rows_is_read_in_order_of_names_with_a_shape_for_each_file(tmp_path):
    (tmp_path / "deep").mkdir()
    write_lines(
        tmp_path / "b.jsonl",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
    )
    write_lines(tmp_path / "a.jsonl.gz", GOOD)
    write_lines(tmp_path / "deep" / "c.jsonl", {**GOOD, "prompt": "third"})
    write_lines(tmp_path / ".hidden.jsonl", "not json")
    write_lines(tmp_path / "README.md", "about the data")
    loaded = read_comparisons(str(tmp_path), "helpful")
    assert [r.prompt.turns[0].content for r in loaded.records] == ["How are you?", "q", "third"]
    assert loaded.shape == "preference, hh transcripts"
    assert loaded.records[1].prompt.source == str(tmp_path / "b.jsonl")


def test_a_folder_of_both_kinds_or_of_none_is_refused(tmp_path):
    assert "holds no file" in refusal(str(tmp_path))
    write_lines(tmp_path / "a.jsonl", GOOD)
    write_lines(tmp_path / "a.txt", "text")
    assert "name one file" in refusal(str(tmp_path))


def test_a_text_file_is_a_document_and_is_cut_at_end_of_text(tmp_path):
    write_lines(tmp_path / "b.txt", "one", "", "more")
    write_lines(tmp_path / "c.txt.gz", "two<|endoftext|>three", "<|endoftext|>", "", "four", "<|endoftext|>")
    write_lines(tmp_path / "a.md", "# zero")
    loaded = read_documents(str(tmp_path))
    assert [d.text for d in loaded.records] == ["# zero", "one\n\nmore", "two", "three", "four"]
    assert loaded.shape == "text" and loaded.rows == 5


def test_the_lines_of_a_text_file_are_prompts(tmp_path):
    loaded = read_prompts(write_lines(tmp_path / "a.txt", "First?", "", " Second? "))
    assert [p.turns for p in loaded.records] == [(("user", "First?"),), (("user", "Second?"),)]


def test_max_rows_counts_rows_over_all_files(tmp_path):
    write_lines(tmp_path / "a.jsonl", GOOD, {**GOOD, "rejected": "Well."})
    write_lines(tmp_path / "b.jsonl", GOOD, GOOD)
    loaded = read_comparisons(str(tmp_path), "helpful", max_rows=3)
    assert (loaded.rows, len(loaded.records), loaded.drops) == (3, 2, {"equal replies": 1})


def test_parquet_reads_like_json_lines(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    rows = [GOOD, {**GOOD, "chosen": "Fine."}]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    lines = write_lines(tmp_path / "a.jsonl", *rows)
    ours = [r.id for r in read_comparisons(str(path), "helpful").records]
    assert ours == [r.id for r in read_comparisons(lines, "helpful").records] and len(ours) == 2
    path.write_bytes(b"not parquet at all")
    assert "not a readable parquet file" in refusal(str(path))


@pytest.mark.parametrize(
    ("source", "module", "extra"),
    [
        ("a.parquet", "pyarrow", "accord[parquet]"),
        ("a.arrow", "pyarrow", "accord[parquet]"),
        ("hub:a/b", "datasets", "accord[hf]"),
    ],
)
def test_a_missing_extra_is_named(tmp_path, monkeypatch, source, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    if not source.startswith("hub:"):
        source = str(tmp_path / source)
        Path(source).write_bytes(b"PAR1")
    assert extra in refusal(source)


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package datasets that remembers how it was asked."""
    module = ModuleType("datasets")
    asked: list[dict] = []

    def load_dataset(path, **settings):
        asked.append({"path": path, **settings})
        if path == "no/such":
            raise FileNotFoundError("Dataset 'no/such' doesn't exist on the Hub\nmore")
        return [GOOD, {**GOOD, "chosen": "Fine."}]

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return asked


def test_a_hub_source_is_taken_apart(hub):
    loaded = read_comparisons("hub:owner/name/sub/set:test[:5%]@v1.2", "helpful")
    assert hub == [
        {
            "path": "owner/name",
            "name": "sub/set",
            "split": "test[:5%]",
            "revision": "v1.2",
            "streaming": False,
        }
    ]
    assert len(loaded.records) == 2
    assert read_prompts("hub:owner/name", max_rows=1).rows == 1
    assert hub[1] == {
        "path": "owner/name",
        "name": None,
        "split": "train",
        "revision": None,
        "streaming": True,
    }


def test_a_hub_source_that_fails_is_bad_input(hub):
    assert "no/such" in refusal("hub:no/such") and "\nmore" not in refusal("hub:no/such")
    assert "OWNER/NAME" in refusal("hub:name-without-owner")


def test_world_sources_are_functions_with_settings():
    assert parse_world("world:prompts/red-team?count=7&seed=3") == (
        "prompts",
        {"slice": "red-team", "count": 7, "seed": 3},
    )
    assert parse_world("world:corpus") == ("corpus", {})
    assert parse_world("world:comparisons?equal_ties=1") == ("comparisons", {"count": 1000, "equal_ties": 1})
    for source, part in (
        ("world:prompt", "did you mean prompts"),
        ("world:corpus/benign", "only world:prompts"),
        ("world:corpus?rows=3", "unknown setting 'rows'; known are count and seed"),
        ("world:judgements?equal_ties=1", "unknown setting 'equal_ties'"),
        ("world:comparisons?ties=1", "known are count, seed and equal_ties"),
        ("world:corpus?count=0", "above 0"),
        ("world:corpus?seed=x", "whole number"),
    ):
        with pytest.raises(BadInput, match=part):
            parse_world(source)


def test_the_gold_world_is_read_record_for_record():
    from accord import world

    assert read_documents("world:corpus?count=50&seed=2").records == world.corpus(50, 2)
    assert read_prompts("world:prompts/harmful?count=9&seed=1").records == world.prompts(9, 1, "harmful")
    assert read_demonstrations("world:demonstrations?count=9").records == world.demonstrations(9)
    expected = world.comparisons(9, 4, "harmless")
    assert read_comparisons("world:comparisons?count=9&seed=4", "harmless").records == expected
    tied = world.comparisons(9, 4, "harmless", equal_ties=True)
    assert read_comparisons("world:comparisons?count=9&seed=4&equal_ties=1", "harmless").records == tied != expected
    assert read_judgements("world:judgements?count=9", "harmless").records == world.judgements(9)
    assert read_prompts("world:comparisons?count=9").rows == 9
    with pytest.raises(BadInput, match="world:prompts/nowhere"):
        read_prompts("world:prompts/nowhere")


def test_columns_may_be_named_in_the_source(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", {"q": "Why?", "answers": ["Because.", "No idea."]})
    loaded = read_comparisons(f"{source}?prompt=q,chosen=answers.0&rejected=answers.1", "helpful")
    assert loaded.records[0].replies == ("Because.", "No idea.")
    assert inspect_source(f"{source}?prompt=q,chosen=answers.0,rejected=answers.1").counts["comparison"] == 1
    with pytest.raises(BadInput, match="FIELD=NAME"):
        read_comparisons(f"{source}?prompt", "helpful")
    odd = tmp_path / "what?.txt"
    odd.write_text("text")
    assert split_columns(str(odd)) == (str(odd), {})
    assert split_columns("world:corpus?count=3") == ("world:corpus?count=3", {})


# As published


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_unicode_is_named_with_the_line_that_converts_it(tmp_path, name):
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{json.dumps(GOOD)}\n".encode(name))
    message = refusal(str(path))
    assert f"{path}:1: this is {name[:6].upper()}" in message and "iconv -f UTF-" in message


def test_a_cell_of_a_table_may_be_as_large_as_it_likes(tmp_path):
    text = "word " * 100_000
    (tmp_path / "a.csv").write_text(f'prompt,completion\n"{text}",c\n')
    assert read_demonstrations(str(tmp_path / "a.csv")).records[0].prompt.turns[0].content == text


def test_json_lines_of_plain_text_are_prompts_or_documents(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", '"First?"', '"Second\\nline?"')
    assert [p.turns[0].content for p in read_prompts(source).records] == ["First?", "Second\nline?"]
    assert [d.text for d in read_documents(source).records] == ["First?", "Second\nline?"]
    mixed = write_lines(tmp_path / "b.jsonl", '"First?"', GOOD)
    with pytest.raises(BadInput, match=r"b\.jsonl:2: is a JSON object; each line must be text"):
        read_prompts(mixed)


def write_arrow(path: Path, rows: list[dict], stream: bool = True) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.Table.from_pylist(rows)
    write = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with write(str(path), table.schema) as file:
        file.write_table(table)


def save_to_disk(folder: Path, *pieces: list[dict], **state: object) -> str:
    """A folder as `Dataset.save_to_disk` leaves it, with the files that `map` keeps beside the data."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(pieces):05d}.arrow" for i in range(len(pieces))]
    for name, rows in zip(names, pieces, strict=True):
        write_arrow(folder / name, rows)
    write_arrow(folder / "cache-0a1b.arrow", [{**GOOD, "prompt": "cached"}])
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": n} for n in names], **state}))
    (folder / "dataset_info.json").write_text("{}")
    return str(folder)


@pytest.mark.parametrize("stream", [True, False])
def test_arrow_reads_like_json_lines(tmp_path, stream):
    rows = [GOOD, {**GOOD, "chosen": "Fine."}] * 800
    write_arrow(tmp_path / "a.arrow", rows, stream)
    loaded = read_comparisons(str(tmp_path / "a.arrow"), "helpful")
    assert (loaded.rows, {c.replies[0] for c in loaded.records}) == (1600, {"Well.", "Fine."})
    (tmp_path / "b.arrow").write_bytes(b"neither of the two")
    assert "not a readable Arrow file" in refusal(str(tmp_path / "b.arrow"))


def test_a_saved_data_set_is_its_files_in_order_without_caches(tmp_path):
    source = save_to_disk(tmp_path / "saved", [GOOD], [{**GOOD, "prompt": "second"}])
    assert [c.prompt.turns[0].content for c in read_comparisons(source, "helpful").records] == [
        "How are you?",
        "second",
    ]
    selected = save_to_disk(tmp_path / "selected", [GOOD], _indices_data_files=[{"filename": "indices.arrow"}])
    assert "load_from_disk" in refusal(selected)


def test_of_several_saved_splits_one_must_be_named(tmp_path):
    for split in ("train", "test"):
        save_to_disk(tmp_path / "both" / split, [{**GOOD, "prompt": split}])
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert f"name one: {tmp_path / 'both' / 'train'}, " in refusal(str(tmp_path / "both"))
    assert len(read_comparisons(str(tmp_path / "both" / "test"), "helpful").records) == 1
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["test"]}')
    assert read_comparisons(str(tmp_path / "both"), "helpful").records[0].prompt.turns[0].content == "test"
    (tmp_path / "both" / "dataset_dict.json").write_text("[]")
    assert "save it again" in refusal(str(tmp_path / "both"))
