"""Stages in processes of their own: side by side, and one spread as ranks."""

import pytest

from accord.claims.lab.workers import Workers
from accord.errors import BadInput
from accord.run import read_lines, verify
from accord.stages.pretrain.config import Pretrain


def config(out, **changes):
    settings = {"data": "world:corpus?count=300", "model": "nano", "steps": 2, "batch_size": 300, "threads": 1}
    return Pretrain(**{**settings, "out": str(out), "precision": "f32", **changes})


def test_spread_gives_what_one_process_gives_and_what_fails_says_so(tmp_path):
    with Workers(2) as workers:
        workers.run_spread(("pretrain", config(tmp_path / "spread")))
        # the processes left that world: they can be in another, or in none
        workers.run([("pretrain", config(tmp_path / "alone")), ("pretrain", config(tmp_path / "other", seed=1))])
        for start in (workers.run_spread, lambda job: workers.run([job])):
            with pytest.raises(BadInput, match=r"absent\.jsonl"):
                start(("pretrain", config(tmp_path / "bad", data=str(tmp_path / "absent.jsonl"))))
    losses = {}
    for name in ("spread", "alone", "other"):
        verify(tmp_path / name)
        losses[name] = [row["loss"] for row in read_lines(tmp_path / name / "metrics.jsonl")]
    assert losses["spread"] == pytest.approx(losses["alone"], rel=1e-5)
    assert losses["other"] != pytest.approx(losses["alone"], rel=1e-5)
    assert not (tmp_path / "bad").exists()
