"""Stages in processes of their own: side by side, and one spread as ranks."""

import importlib
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from accord import processes
from accord.claims.lab import workers
from accord.claims.lab.cells import Cells
from accord.claims.lab.workers import Workers
from accord.disk import read_lines
from accord.errors import BadInput
from accord.lineage import available_cores
from accord.run import RunFolder, verify
from accord.stages.pretrain.config import Pretrain


def config(out, **changes):
    settings = {"data": "world:corpus?count=300", "model": "nano", "steps": 2, "batch_size": 300, "threads": 1}
    return Pretrain(**{**settings, "out": str(out), "precision": "f32", **changes})


@pytest.fixture
def forked(monkeypatch):
    """Workers that have everything loaded already; one begun anew is in the test of a worker whose parent is killed."""
    importlib.import_module("accord.stages.pretrain.run")
    context = multiprocessing.get_context("fork")
    monkeypatch.setattr(processes, "pool", lambda count: ProcessPoolExecutor(count, context, processes._begin))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_spread_gives_what_one_process_gives_and_what_fails_says_so(tmp_path, forked):
    with Workers(2) as pool:
        pool.run_spread(("pretrain", config(tmp_path / "spread")))
        # the processes left that world: they can be in another, or in none
        pool.run([("pretrain", config(tmp_path / "alone")), ("pretrain", config(tmp_path / "other", seed=1))])
        assert pool.run([("pretrain", config(tmp_path / "late"))], until=0.0) == 1
        for start in (pool.run_spread, lambda job: pool.run([job])):
            with pytest.raises(BadInput, match=r"absent\.jsonl"):
                start(("pretrain", config(tmp_path / "bad", data=str(tmp_path / "absent.jsonl"))))
    losses = {}
    for name in ("spread", "alone", "other"):
        verify(tmp_path / name)
        losses[name] = [row["loss"] for row in read_lines(tmp_path / name / "metrics.jsonl")]
    assert losses["spread"] == pytest.approx(losses["alone"], rel=1e-5)
    assert losses["other"] != pytest.approx(losses["alone"], rel=1e-5)
    assert not (tmp_path / "bad").exists() and not (tmp_path / "late").exists()


def until(found, seconds=120):
    """What `found` gives, once it gives something."""
    end = time.monotonic() + seconds
    while not (given := found()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return given


ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import sys
from accord.claims.lab.workers import Workers
from tests.claims.test_workers import config

if __name__ == "__main__":
    with Workers(1) as pool:
        pool.run([("pretrain", config(sys.argv[1], steps=100_000, batch_size=2000))])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a process that is terminated there has no last word")
def test_a_worker_ends_with_who_started_it_and_leaves_a_run_to_go_on_from(tmp_path):
    """Workers whose parent was killed trained on, unseen, to the end of their stage."""
    program, folder = tmp_path / "alone.py", tmp_path / "run"
    program.write_text(ALONE)
    parent = subprocess.Popen([sys.executable, str(program), str(folder)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    until((folder / "metrics.jsonl").exists)
    started = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    try:
        until(lambda: not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in started))
    finally:
        for child in started:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    assert any((folder / "checkpoints").iterdir()) and not (folder / "manifest.json").exists()


def test_a_cell_that_names_its_threads_has_them_anywhere_and_a_folder_that_was_begun_keeps_its_own(tmp_path):
    assert workers.with_threads(config(tmp_path / "cell"), 4).threads == 1
    left_open = config(tmp_path / "run", threads=0)
    assert workers.with_threads(left_open, 2).threads == 2
    with RunFolder("pretrain", workers.with_threads(left_open, 2)) as run:
        assert run.threads == 2
    elsewhere = workers.with_threads(left_open.model_copy(update={"resume": True}), 8)
    with RunFolder("pretrain", elsewhere) as run:
        assert run.threads == 2


def test_a_finished_run_is_known_again_whatever_its_machine_decided(tmp_path):
    given = config(tmp_path / "run", threads=0)
    with RunFolder("pretrain", given) as run:
        assert run.threads == available_cores()
        run.finish()
    cells = Cells(tmp_path, "small")
    assert cells._finished(given)
    assert not cells._finished(given.model_copy(update={"seed": 5}))
