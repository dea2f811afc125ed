"""Metrics in other people's viewers: the same names and numbers as `metrics.jsonl`, offline."""

import math

import numpy as np
import pytest

from accord.disk import read_lines
from accord.run import RunFolder, verify
from accord.training import tracking


def curves(folder):
    """Steps and values of every curve, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def expected(run):
    """The same of metrics.jsonl: what is a finite number."""
    rows = read_lines(run / "metrics.jsonl")
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    points = {n: [(row["step"], row[n]) for row in rows if isinstance(row.get(n), int | float)] for n in names}
    return {n: kept for n, some in points.items() if (kept := [p for p in some if math.isfinite(p[1])])}


def assert_alike(ours, theirs):
    assert set(ours) == set(theirs)
    for name, points in ours.items():
        assert [step for step, _ in points] == [step for step, _ in theirs[name]], name
        np.testing.assert_allclose([v for _, v in points], [v for _, v in theirs[name]], rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_tensorboard_shows_what_the_log_has_also_after_a_crash(commands, tmp_path, monkeypatch, stage):
    """Step 3 was shown when the run died, and is done again from the checkpoint of step 2."""
    out, plain = tmp_path / "run", RunFolder.log

    def log(self, row):
        plain(self, row)
        if row["step"] == 3:
            raise RuntimeError("the machine went down")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", log)
        assert commands.run(stage, out, track="tensorboard", checkpoint_every=2) == 1
    assert commands.run(stage, out, track="tensorboard", resume=True) == 0
    verify(out)
    assert_alike(expected(out), curves(out / tracking.FOLDER))


def test_a_viewer_changes_no_result_and_may_come_and_go(commands, tmp_path, same_run, stop_after):
    assert commands.run("sft", tmp_path / "plain") == 0
    stop_after(1)
    assert commands.run("sft", tmp_path / "run", track="tensorboard", checkpoint_every=1) == 1
    stop_after(99)
    assert commands.run("sft", tmp_path / "run", resume=True) == 0
    same_run(tmp_path / "plain", tmp_path / "run")


def test_trackio_is_given_the_same_rows(commands, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    out = tmp_path / "run"
    assert commands.run("sft", out, track="trackio") == 0
    verify(out)
    (name,) = (run for run in SQLiteStorage.get_runs("accord") if run.endswith("/run"))
    rows = SQLiteStorage.get_logs("accord", name)
    metrics = {key for row in rows for key in row} - {"step", "timestamp"}
    assert_alike(expected(out), {key: [(row["step"], row[key]) for row in rows if key in row] for key in metrics})


def test_wandb_writes_offline_into_the_run_folder(commands, tmp_path):
    pytest.importorskip("wandb")
    out = tmp_path / "run"
    assert commands.run("sft", out, track="wandb") == 0
    verify(out)
    assert list((out / tracking.FOLDER).glob("wandb/offline-run-*/*.wandb"))


def test_a_viewer_that_is_not_installed_is_named_before_anything_is_trained(commands, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    assert commands.run("sft", tmp_path / "run", track="wandb") == 2
    assert "pip install 'accord[track]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
