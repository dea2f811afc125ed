"""Files line by line: where each row stands, and what a damaged or unknown source is told, word by word."""

import gzip
import json
import re
from pathlib import Path

import pytest

from accord.data.files import read_rows, split_columns
from accord.data.formats import Row, read_csv, read_json, read_jsonl, read_lines, read_text
from accord.data.overlap import Stain, find_overlap
from accord.data.parse import Reader
from accord.data.rows import answer_row, is_whole, reply_row, rollout_row, stored_row, to_row, whole_file, write_records
from accord.data.schemes import parse_world, read_hub, read_world
from accord.data.sieve import dropped_beside, sift
from accord.data.tables import first_line, saved_files
from accord.errors import BadInput
from accord.records import Comparison, Demonstration, Document, Judgement, Prompt, Rollout, Turn

PROMPT = Prompt((Turn("user", "why"),), "benign", "file")


def filled(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(read, path, *args):
    return [(row.value, row.where.removeprefix(str(path)), row.file == str(path)) for row in read(path, *args)]


def refused(read, path, *args):
    with pytest.raises(BadInput) as caught:
        list(read(path, *args))
    return str(caught.value).removeprefix(str(path))


# Lines


def test_rows_stand_on_their_lines(tmp_path):
    path = filled(tmp_path / "a.jsonl", '\ufeff\n{"a": 1}\n \n{"b": 2}')
    assert rows(read_jsonl, path, "text") == [({"a": 1}, ":2", True), ({"b": 2}, ":4", True)]
    path = filled(tmp_path / "b.jsonl", '"one"\n\n"two"\n')
    assert rows(read_jsonl, path, "asked") == [({"asked": "one"}, ":1", True), ({"asked": "two"}, ":3", True)]
    path = filled(tmp_path / "a.txt", "\n one \n\ntwo\n")
    assert rows(read_lines, path) == [({"prompt": "one"}, ":2", True), ({"prompt": "two"}, ":4", True)]
    path = filled(tmp_path / "a.json", '[{"a": 1},\n{"b": 2}]')
    assert rows(read_json, path) == [({"a": 1}, " entry 1", True), ({"b": 2}, " entry 2", True)]
    path = filled(tmp_path / "a.csv", 'a,b\n1,"x\ny"\n\n2,z\n')
    assert rows(read_csv, path) == [({"a": "1", "b": "x\ny"}, ":2", True), ({"a": "2", "b": "z"}, ":5", True)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("\none\n\ntwo\n", [("one\n\ntwo", 1)]),
        (" one \n", [(" one ", 1)]),
        ("one\n<|endoftext|>\ntwo\n<|endoftext|>\n", [("one", 1), ("two", 2)]),
        ("one<|endoftext|>two<|endoftext|> \n<|endoftext|>three", [("one", 1), ("two", 1), ("three", 2)]),
        ("<|endoftext|>\n\none", [("one", 1)]),
        ("one\n<|endoftext|>", [("one", 1)]),
    ],
)
def test_documents_begin_on_their_lines(tmp_path, text, found):
    path = filled(tmp_path / "a.txt", text)
    assert rows(read_text, path) == [({"text": said}, f":{line}", True) for said, line in found]


@pytest.mark.parametrize(
    ("read", "content", "said"),
    [
        (read_text, "", ": the file is empty; give another, or make it again."),
        (read_text, " \n\n", ": the file is empty (only white space); give another, or make it again."),
        (read_text, "<|endoftext|>\n", ": the file is empty (only white space)"),
        (read_lines, "\n \n", ": the file is empty (only blank lines); give another, or make it again."),
        (read_json, "[]", ": the list is empty; give another file, or make it again."),
        (read_json, "{}", ": holds one JSON object where a list of objects is due; one object a line is a .jsonl file"),
        (read_json, "[\n{},\n5 6]", ":3: not valid JSON (Expecting ',' delimiter, column 3); mend what stands there"),
        (read_json, '[{}, "x"]', " entry 2: is a JSON string; each entry must be an object with named columns."),
        (read_csv, "a,b\n", ": holds no rows below the names of the columns; give another, or make it again."),
        (read_csv, "a,b\n1,2\n3\n", ":3: has 1 cells where the first line names 2 columns."),
        (read_csv, 'a,b\n1,2\n3,"4\n5', ":3: not a readable row of a CSV table (unexpected end of data)."),
    ],
)
def test_what_is_wrong_with_a_file(tmp_path, read, content, said):
    assert refused(read, filled(tmp_path / "a", content)).startswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{'a': 1}", ":2: not valid JSON (Expecting property name enclosed in double quotes, column 2); mend"),
        ('{"a": "\\ud800"}', ":2: holds half of a surrogate pair"),
        ('{"a": "\\uDfff"}', ":2: holds half of a surrogate pair"),
        ("[" * 100_000, ":2: not usable JSON (RecursionError: a number too long or nesting too deep)."),
        ("1" * 5000, ":2: not usable JSON (ValueError: a number too long or nesting too deep)."),
        ("[1]", ":2: is a JSON list; each line must be an object with named columns."),
        ("true", ":2: is a JSON boolean; each line must"),
        ("2.5", ":2: is a JSON number; each line must"),
        ("null", ":2: is a JSON null; each line must"),
        ('"x"', ":2: is a JSON string; each line must be an object with named columns."),
        (b'{"a": "\xffx"}', ":2: not valid UTF-8 (byte 8 of the line); convert the file to UTF-8."),
        (b"\0", ":2: this is a binary file, not text; check the file or its ending."),
    ],
)
def test_what_is_wrong_with_a_line(tmp_path, line, said):
    line = line if isinstance(line, bytes) else line.encode()
    path = filled(tmp_path / "a.jsonl", b'{"a": 0}\n' + line + b"\n")
    assert refused(read_jsonl, path, "text").startswith(said)


def test_a_whole_surrogate_pair_and_the_marks_of_other_files_inside_are_text(tmp_path):
    path = filled(tmp_path / "a.jsonl", '{"a": "\\ud83d\\ude00"}\n{"b": "PAR1 %PDF"}\n')
    assert [row.value for row in read_jsonl(path, "text")] == [{"a": "😀"}, {"b": "PAR1 %PDF"}]
    assert [row.value for row in read_lines(filled(tmp_path / "a.txt", "one\n%PDF\n"))][1] == {"prompt": "%PDF"}
    path = filled(tmp_path / "b.jsonl", '"x"\n{"a": 1}\n')
    assert refused(read_jsonl, path, "text") == ":2: is a JSON object; each line must be text, as the first is."


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("why\n".encode("utf-16"), "UTF-16"),
        (b"\xfe\xff" + "why\n".encode("utf-16-be"), "UTF-16"),
        ("why\n".encode("utf-32"), "UTF-32"),
        (b"\0\0\xfe\xff" + "why\n".encode("utf-32-be"), "UTF-32"),
        ("hello\n".encode("utf-16-le"), "UTF-16LE"),
        ("hello\n".encode("utf-16-be"), "UTF-16BE"),
        # too few letters to tell, and bytes that are no letters
        ("why\n".encode("utf-16-le"), ""),
        ("why\n".encode("utf-16-be"), ""),
        ("hello\n".encode("utf-32-be"), ""),
        ("hell\0o\n".encode("utf-16-le"), ""),
        (b"h\0e\1l\0l\0o\0\n\0", ""),
    ],
)
def test_utf16_and_utf32_are_told_from_other_bytes(tmp_path, content, encoding):
    said = refused(read_lines, filled(tmp_path / "a.txt", content))
    if encoding:
        assert said == (
            f":1: this is {encoding} text; make it UTF-8, for example with: iconv -f {encoding} -t UTF-8 a.txt > NEW"
        )
    else:
        assert said == ":1: this is a binary file, not text; check the file or its ending."


def test_a_damaged_gzip_is_told_its_line(tmp_path):
    said = refused(read_lines, filled(tmp_path / "a.txt.gz", b"plain"))
    assert said.startswith(":1: not a gzip file, or a damaged one (Not a gzipped file")
    whole = gzip.compress("".join(f"line {k}\n" for k in range(9)).encode())
    assert refused(read_lines, filled(tmp_path / "b.txt.gz", whole[:-9])) == (
        ":10: the gzip file is cut short or damaged here; copy or download it again."
    )


# Files and folders


def test_rows_of_a_source_are_counted_over_its_files(tmp_path):
    for name, count in (("a", 2), ("b", 3)):
        filled(tmp_path / f"{name}.jsonl", "".join(f'{{"{name}": {k}}}\n' for k in range(count)))
    for most, names in ((0, "aabbb"), (1, "a"), (3, "aab"), (9, "aabbb")):
        assert [next(iter(row.value)) for row in read_rows(str(tmp_path), max_rows=most)] == list(names)


@pytest.mark.parametrize(
    ("source", "bare", "columns"),
    [
        ("f?a=b", "f", {"a": "b"}),
        ("f?a=b,c=d.0&e=f=g", "f", {"a": "b", "c": "d.0", "e": "f=g"}),
        ("f?g?a=b", "f?g", {"a": "b"}),
        ("f", "f", {}),
        ("world:x?a=b", "world:x?a=b", {}),
        ("feedback:x?a=b", "feedback:x?a=b", {}),
    ],
)
def test_columns_that_a_source_names(source, bare, columns):
    assert split_columns(source) == (bare, columns)


@pytest.mark.parametrize("query", ["", "a", "a=", "=b", "a=b,"])
def test_columns_that_are_not_named(query):
    with pytest.raises(BadInput, match=r"^f\?.*: after '\?' write FIELD=NAME, several of them joined by ',' or '&'\."):
        split_columns(f"f?{query}")


def test_endings_tell_how_a_file_is_read(tmp_path):
    filled(tmp_path / "a.jsonl.gz", gzip.compress(b'"one"\n'))
    assert [row.value for row in read_rows(str(tmp_path / "a.jsonl.gz"))] == [{"text": "one"}]
    assert [row.value for row in read_rows(str(tmp_path / "a.jsonl.gz"), lines=True)] == [{"prompt": "one"}]
    filled(tmp_path / "a.json.gz", gzip.compress(b'[{"a": 1}]'))
    assert [row.value for row in read_rows(str(tmp_path / "a.json.gz"))] == [{"a": 1}]
    for name in ("a.txt", "a.md"):
        filled(tmp_path / name, "one\ntwo\n")
        assert [row.value for row in read_rows(str(tmp_path / name))] == [{"text": "one\ntwo"}]
        assert len(list(read_rows(str(tmp_path / name), lines=True))) == 2
    filled(tmp_path / "a.tsv", "x")
    endings = ".json, .jsonl, .jsonl.gz, .parquet, .arrow, .csv, .csv.gz, .txt, .txt.gz, .md"
    assert refused(read_rows, str(tmp_path / "a.tsv")) == f": unknown ending; a file ends in {endings}."


def test_a_folder_is_one_kind_of_files(tmp_path):
    assert refused(read_rows, str(tmp_path)).startswith(": holds no file that ends in .jsonl, .jsonl.gz, .parquet,")
    for name in ("b.txt", "a.md", "sub/c.txt", ".git/d.txt", "sub/.e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        filled(tmp_path / name, f"{name}\n")
    assert [row.value["text"] for row in read_rows(str(tmp_path))] == ["a.md", "b.txt", "sub/c.txt"]
    filled(tmp_path / "sub" / "z.jsonl", '{"a": 1}\n')
    assert refused(read_rows, str(tmp_path)) == (
        ": holds both data files (z.jsonl …) and text files (b.txt …); name one file, or a folder with one kind."
    )
    for name in ("b.txt", "sub/c.txt"):
        (tmp_path / name).unlink()
    assert [row.value for row in read_rows(str(tmp_path))] == [{"a": 1}]


def test_a_missing_file_is_told_what_is_near(tmp_path):
    assert refused(read_rows, str(tmp_path / "no" / "x" / "a.txt")) == (
        f": there is no such file or folder. The last part of the path that exists is {tmp_path}."
    )
    assert refused(read_rows, str(tmp_path / "a.txt")).endswith(f" In {tmp_path} there is: nothing.")
    for k in range(8):
        filled(tmp_path / f"{k}zzzzzzzzzz", "")
    listed = ", ".join(f"{k}zzzzzzzzzz" for k in range(8))
    assert refused(read_rows, str(tmp_path / "a.txt")).endswith(f" In {tmp_path} there is: {listed}.")
    filled(tmp_path / "9zzzzzzzzzz", "")
    assert refused(read_rows, str(tmp_path / "a.txt")).endswith(f" In {tmp_path} there is: {listed} ….")
    for name in ("pairs.txt", "pair.md", "pair.jsonl"):
        filled(tmp_path / name, "")
    assert refused(read_rows, str(tmp_path / "pair.txt")).endswith(" Near it: pair.jsonl, pair.md, pairs.txt.")


@pytest.mark.parametrize("source", ["hug:a/b", "http://x"])
def test_a_scheme_that_is_none_is_told_those_that_are(source):
    name = source.partition(":")[0]
    with pytest.raises(
        BadInput, match=rf"^{source}: unknown kind of source '{name}:'; known are PATH\.jsonl.*feedback"
    ):
        list(read_rows(source))


# Saved data sets, and sources with a scheme


def test_the_files_of_a_saved_data_set(tmp_path):
    assert saved_files(tmp_path) is None
    filled(tmp_path / "state.json", '{"_data_files": [{"filename": "b"}, {"filename": "a"}]}')
    assert saved_files(tmp_path) is None
    filled(tmp_path / "dataset_info.json", "{}")
    assert saved_files(tmp_path) == [tmp_path / "b", tmp_path / "a"]
    filled(tmp_path / "state.json", '{"_indices_data_files": [1]}')
    with pytest.raises(BadInput, match=r"was saved with a selection of its rows .*load_from_disk\('.*'\)\.to_json"):
        saved_files(tmp_path)
    for broken in ("[]", "{"):
        filled(tmp_path / "state.json", broken)
        with pytest.raises(BadInput, match=r"state\.json: is no description of a saved data set; save it again"):
            saved_files(tmp_path)
    filled(tmp_path / "dataset_dict.json", '{"splits": ["x", "y", "z"]}')
    with pytest.raises(BadInput, match=rf"holds 3 splits of a saved data set; name one: {tmp_path}/x, {tmp_path}/y, "):
        saved_files(tmp_path)
    filled(tmp_path / "dataset_dict.json", "{}")
    with pytest.raises(BadInput, match="holds 0 splits"):
        saved_files(tmp_path)


def test_the_first_line_of_an_error_and_not_too_much_of_it():
    assert first_line(ValueError("one\ntwo")) == "one" and first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("x" * 300)) == "x" * 200


@pytest.mark.parametrize(
    ("source", "parsed"),
    [
        ("world:demonstrations", ("demonstrations", {})),
        ("world:judgements?seed=0", ("judgements", {"count": 1000, "seed": 0})),
        ("world:prompts/a/b?count=1", ("prompts", {"count": 1, "slice": "a/b"})),
        ("world:comparisons?equal_ties=0", ("comparisons", {"count": 1000, "equal_ties": 0})),
        ("world:corpus?count=7&seed=3", ("corpus", {"count": 7, "seed": 3})),
    ],
)
def test_settings_of_the_gold_world(source, parsed):
    assert parse_world(source) == parsed


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("world:zzz", "the gold world has no 'zzz'; it has corpus, demonstrations, prompts, comparisons, judgements."),
        ("world:corpora", "the gold world has no 'corpora'; did you mean corpus; it has"),
        ("world:corpus/x", "only world:prompts has slices."),
        ("world:corpus?count=", "count must be a whole number above 0."),
        ("world:corpus?count=0", "count must be a whole number above 0."),
        ("world:corpus?seed=-1", "seed must be a whole number."),
        ("world:comparisons?x=1", "unknown setting 'x'; known are count, seed and equal_ties."),
    ],
)
def test_settings_that_the_gold_world_has_not(source, said):
    with pytest.raises(BadInput, match=f"^{re.escape(f'{source}: {said}')}"):
        parse_world(source)


def test_rows_of_the_gold_world_are_numbered_and_about_what_is_asked():
    found = list(read_world("world:comparisons?count=3&seed=1", "honest"))
    assert [row.where for row in found] == [f"world:comparisons?count=3&seed=1 record {k}" for k in (1, 2, 3)]
    assert {row.file for row in found} == {"world:comparisons?count=3&seed=1"}
    for name, criterion in (("comparisons", "helpful"), ("judgements", "harmless")):
        assert {row.value["criterion"] for row in read_world(f"world:{name}?count=3", "")} == {criterion}


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the package datasets: what it holds is a list, an error, or ends in one."""
    import sys
    from types import ModuleType

    module = ModuleType("datasets")
    monkeypatch.setitem(sys.modules, "datasets", module)

    def holding(found):
        def load_dataset(path, **_):
            if isinstance(found, Exception):
                raise found
            return found

        module.load_dataset = load_dataset

    return holding


def test_rows_of_the_hub_are_numbered_and_their_end_is_told(hub):
    hub([{"a": 1}, {"a": 2}])
    assert list(read_hub("hub:o/n", 0)) == [Row({"a": k}, f"hub:o/n row {k}", "hub:o/n") for k in (1, 2)]
    hub([])
    assert refused(read_hub, "hub:o/n", 0) == ": holds no rows."
    hub(ValueError("no such split\nmore"))
    assert refused(read_hub, "hub:o/n", 0) == ": cannot be had from the hub (ValueError: no such split)."

    def broken():
        yield {"a": 1}
        raise OSError("gone\nmore")

    hub(broken())
    assert refused(read_hub, "hub:o/n", 0) == ": cannot be read on after row 1 (gone)."
    assert refused(read_hub, "hub:o", 0).startswith(": write hub:OWNER/NAME[/SUBSET][:SPLIT][@REVISION], for example")


# Rows as they are written


def test_records_as_rows():
    shared = {"prompt": [{"role": "user", "content": "why"}], "slice": "benign", "source": "file"}
    assert to_row(Document("t", "s")) == {"record": "document", "text": "t", "source": "s"}
    assert to_row(PROMPT) == {"record": "prompt", **shared}
    assert to_row(Demonstration(PROMPT, "a")) == {"record": "demonstration", **shared, "reply": "a"}
    ranked = Comparison(PROMPT, ("a", "b"), (2, 1), "helpful", "ai", 0.5, (1, 0))
    row = {"record": "comparison", **shared, "replies": ["a", "b"], "ranks": [2, 1], "criterion": "helpful"}
    row |= {"labeler": "ai", "strength": 0.5, "order": [1, 0]}
    assert to_row(ranked) == row
    more = Comparison(PROMPT, ("a", "b"), (2, 1), "helpful", "ai", 0.5, (1, 0), 0.75, True, ("x", "y"))
    assert to_row(more) == row | {"probability": 0.75, "all_bad": True, "snapshots": ["x", "y"]}
    judged = Judgement(PROMPT, "a", "harmless", "safe", 1.0, "ai", "theft", 2.5)
    assert to_row(judged) == {
        "record": "judgement",
        **shared,
        "reply": "a",
        "criterion": "harmless",
        "kind": "safe",
    } | {
        "value": 1.0,
        "labeler": "ai",
        "category": "theft",
        "severity": 2.5,
    }
    assert stored_row(judged) == to_row(judged) | {"split": PROMPT.split, "id": judged.id}
    assert stored_row(PROMPT) == to_row(PROMPT) | {"split": PROMPT.split, "id": PROMPT.id}
    assert stored_row(Document("t", "s")) == to_row(Document("t", "s")) | {"id": Document("t", "s").id}
    nameless = Comparison(PROMPT, ("a", "b"), (2, 1), "", "ai", 0.5, (1, 0))
    assert stored_row(nameless) == to_row(nameless) | {"split": PROMPT.split}


def test_rows_of_replies_and_answers():
    shared = {"prompt_id": PROMPT.id, "slice": "benign", "source": "file", "prompt": to_row(PROMPT)["prompt"]}
    assert reply_row(PROMPT, "a", kl=0.5) == {**shared, "reply": "a", "kl": 0.5}
    rollout = Rollout((1,), (2, 3), (-0.5, -0.25), "stop", 0.7, "v")
    row = rollout_row(PROMPT, "a", rollout, kl=0.5)
    assert row == {**shared, "reply": "a", "finish": "stop", "kl": 0.5}
    assert is_whole(row) and not is_whole(row | {"finish": "length"})
    assert answer_row("i", "s", "choice", right=1) == {"prompt_id": "i", "slice": "s", "kind": "choice", "right": 1}
    assert answer_row("i", "s", "number", "", right=0)["reply"] == ""


def test_a_file_of_rows_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    assert write_records(path, [PROMPT, Document("ü\ud800", "s")]) == 2
    raw = path.read_bytes()
    assert raw[3:8] == bytes(5)  # neither a name nor a time
    lines = gzip.decompress(raw).decode().splitlines()
    assert json.loads(lines[0]) == stored_row(PROMPT) and '"ü\\ud800"' in lines[1]
    with whole_file(tmp_path / "b.jsonl") as write:
        write({"a": {1}})
        partial = [entry.name for entry in tmp_path.iterdir() if entry.name.endswith(".partial")]
        assert partial and partial[0].startswith(".b.jsonl.") and not (tmp_path / "b.jsonl").exists()
    assert (tmp_path / "b.jsonl").read_text() == '{"a": "{1}"}\n'
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.jsonl.gz", "b.jsonl"]


# A sieve, and what stands in another source


def test_the_dropped_rows_lie_beside(tmp_path):
    assert dropped_beside(Path("x/a.jsonl")) == Path("x/a.dropped.jsonl")
    assert dropped_beside(Path("a.b.jsonl.gz")) == Path("a.b.dropped.jsonl.gz")
    source = filled(tmp_path / "a.jsonl", '{"prompt": "q"}\n{"prompt": " "}\n{"prompt": "r"}\n')
    out = tmp_path / "out.jsonl"
    sifted = sift(str(source), out, "prompt", Reader(), None, {2: "seen"})
    assert sifted == (1, {"empty prompt": 1, "seen": 1}, tmp_path / "out.dropped.jsonl")
    dropped = [json.loads(line) for line in sifted.dropped_file.read_text().splitlines()]
    assert dropped[1] == {"where": f"{source}:3", "reason": "seen", "row": {"prompt": "r"}}
    out.unlink()
    with pytest.raises(
        BadInput, match=rf"--out {out}: {sifted.dropped_file} is there already; take it away, or choose"
    ):
        sift(str(source), out, "prompt", Reader(), None, {})


def test_where_a_prompt_was_found_first_and_how_much_of_a_row_stands_elsewhere(tmp_path):
    a = filled(tmp_path / "a.jsonl", '{"prompt": "One, two!"}\n{"prompt": "a b c d e f g"}\n{"prompt": "x y"}\n')
    b = filled(tmp_path / "b.jsonl", '{"prompt": "0 a b c d 9"}\n{"prompt": "one two"}\n{"prompt": "ONE TWO"}\n')
    found = find_overlap(str(a), str(b), Reader(), "prompt", 3)
    assert found == {0: Stain(f"{b}:2", 0.0), 1: Stain("", 4 / 7)}
    text = filled(tmp_path / "c.txt", "One two\n\nc d e f x y\n")
    found = find_overlap(str(a), str(text), Reader(), None, 2)
    assert found == {0: Stain("", 1.0), 1: Stain("", 4 / 7), 2: Stain("", 1.0)}
