"""Rows kept and rows dropped, on disk."""

import gzip
import json

import pytest

from accord.data.parse import Reader
from accord.data.sieve import sift
from accord.data.sources import read_comparisons, read_prompts
from accord.errors import BadInput

PAIRS = [
    {"prompt": "p", "chosen": "a", "rejected": "b", "note": "kept?"},
    {"prompt": "q", "chosen": "same", "rejected": "same "},
    {"prompt": "r", "chosen": "a", "rejected": ""},
    {"prompt": "s", "chosen": None, "rejected": "b"},
    {"prompt": "t", "chosen": "a", "rejected": "b"},
]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return str(path)


def test_what_is_kept_reads_back_and_what_is_not_has_its_reason(tmp_path, source):
    out = tmp_path / "kept.jsonl"
    sifted = sift(source, out, "comparison", Reader(), None, {4: "prompt stands in training"})
    reasons = {"equal replies": 1, "empty reply": 1, "no chosen": 1, "prompt stands in training": 1}
    assert (sifted.records, sifted.drops) == (1, reasons)
    (kept,) = read_comparisons(str(out), "helpful").records
    assert kept.id == read_comparisons(source, "helpful").records[0].id
    dropped = [json.loads(line) for line in (tmp_path / "kept.dropped.jsonl").read_text().splitlines()]
    assert [row["row"] for row in dropped] == PAIRS[1:] and [row["reason"] for row in dropped] == list(reasons)
    assert dropped[0]["where"] == f"{source}:2"


def test_another_kind_keeps_other_rows_and_no_file_lies_beside_for_none(tmp_path, source):
    out = tmp_path / "prompts.jsonl.gz"
    assert sift(source, out, "prompt", Reader(), None, {}).drops == {"no chosen": 1}
    assert len(read_prompts(str(out)).records) == 4
    assert len(gzip.decompress((tmp_path / "prompts.dropped.jsonl.gz").read_bytes()).splitlines()) == 1
    sift(source, tmp_path / "head.jsonl", "prompt", Reader(max_rows=1), None, {})
    assert not (tmp_path / "head.dropped.jsonl").exists()


def test_nothing_is_overwritten_and_nothing_left_writes_nothing(tmp_path, source):
    (tmp_path / "kept.jsonl").write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        sift(source, tmp_path / "kept.jsonl", "comparison", Reader(), None, {})
    with pytest.raises(BadInput, match=r"\.jsonl or \.jsonl\.gz"):
        sift(source, tmp_path / "kept.csv", "comparison", Reader(), None, {})
    with pytest.raises(BadInput, match="cannot be written"):
        sift(source, tmp_path / "no" / "kept.jsonl", "comparison", Reader(), None, {})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BadInput, match="no judgements are left"):
        sift(source, tmp_path / "judged.jsonl", "judgement", Reader(), None, {})
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "kept.jsonl").read_text() == "mine"
