"""The benchmark of the feedback page on a small store: what it counts is so; nothing is timed."""

import json

import pytest

from benchmarks import equality
from benchmarks.harness import Pair
from benchmarks.ours.feedback import CLIENTS, feedback_next, feedback_submits


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "options.json").write_text(
        json.dumps({"database": "sqlite", "submits": 3 * CLIENTS, "items": 40, "labels": 16, "requests": 2})
    )
    return tmp_path


def test_every_submit_is_acknowledged_and_kept(folder, monkeypatch):
    monkeypatch.setattr("benchmarks.ours.feedback.FSYNC_SECONDS", 0.05)
    found = feedback_submits(folder)
    assert found["kept"] == found["acknowledged"] == found["sent"] == 3 * CLIENTS
    assert found["rate"] > 0 and 0 < found["p50"] <= found["p99"] and found["fsyncs"] > 0
    assert equality.acknowledged(Pair([found]))["holds"]
    assert not equality.acknowledged(Pair([{**found, "kept": 1}]))["holds"]


def test_every_page_of_a_store_with_labels_has_a_question(folder):
    found = feedback_next(folder)
    assert found["asked"] == 22 and found["shown"] == 22 and found["p50"] <= found["p99"]
    assert equality.shown(Pair([found]))["holds"] and not equality.shown(Pair([{**found, "shown": 1}]))["holds"]
