"""The benchmark of the feedback page on a small store: what it counts is so; nothing is timed."""

import json
import threading
from contextlib import contextmanager

import pytest
import uvicorn

from accord.feedback.store.database import Database
from accord.feedback.store.desk import Desk
from accord.feedback.store.people import People
from accord.feedback.web.app import make_page
from accord.feedback.web.context import Settings
from accord.models.policy import new_policy
from accord.models.saving import save_model
from benchmarks import equality
from benchmarks.harness import Pair
from benchmarks.ours.feedback import CLIENTS, SECRET, feedback_next, feedback_start, feedback_submits
from tests.fixtures.feedback import cheap_hashes


@contextmanager
def served_here(address):
    """The page of a store from a thread of this process."""
    database = Database(address, writes=True)
    page = make_page(Desk(database), People(database), Settings(secret=SECRET.encode()))
    config = uvicorn.Config(page, host="127.0.0.1", port=0, log_level="warning", ws="none")
    listening = config.bind_socket()
    listening.listen()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        database.close()


@pytest.fixture(autouse=True)
def quick_hashes():
    with cheap_hashes():
        yield


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


@pytest.mark.slow
def test_whoever_joins_at_once_sees_a_question_on_fresh_replies(tmp_path, tokenizer, nano):
    model = new_policy(nano, tokenizer, max_length=400, seed=0)
    plain = {"kind": "none", "shift": 0.0, "scale": 1.0}
    save_model(model, tokenizer, tmp_path / "model", {"role": "policy", "criterion": "", "normalizer": plain}, "")
    (tmp_path / "options.json").write_text(json.dumps({"snapshot": ""}))
    found = feedback_start(tmp_path)
    assert found["shown"] == 1 and 0 < found["links"] <= found["question"]


def test_every_page_of_a_store_with_labels_has_a_question(folder, monkeypatch):
    monkeypatch.setattr("benchmarks.ours.feedback.served", served_here)
    found = feedback_next(folder)
    assert found["asked"] == 22 and found["shown"] == 22 and found["p50"] <= found["p99"]
    assert equality.shown(Pair([found]))["holds"] and not equality.shown(Pair([{**found, "shown": 1}]))["holds"]
