"""The benchmark of the feedback page on a small store: what it counts is so; nothing is timed."""

import json

import pytest

from accord.models.policy import new_policy
from accord.models.saving import save_model
from benchmarks import equality
from benchmarks.harness import Pair
from benchmarks.ours.feedback import CLIENTS, feedback_next, feedback_start, feedback_submits


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


def test_whoever_joins_at_once_sees_a_question_on_fresh_replies(tmp_path, tokenizer, nano):
    model = new_policy(nano, tokenizer, max_length=400, seed=0)
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    save_model(model, tokenizer, tmp_path / "model", {"role": "policy", "criterion": "", "normalizer": plain}, "")
    (tmp_path / "options.json").write_text(json.dumps({"snapshot": ""}))
    found = feedback_start(tmp_path)
    assert found["shown"] == 1 and 0 < found["links"] <= found["question"]


def test_every_page_of_a_store_with_labels_has_a_question(folder):
    found = feedback_next(folder)
    assert found["asked"] == 22 and found["shown"] == 22 and found["p50"] <= found["p99"]
    assert equality.shown(Pair([found]))["holds"] and not equality.shown(Pair([{**found, "shown": 1}]))["holds"]
