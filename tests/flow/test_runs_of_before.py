"""Run folders and snapshots that users have from before are still read, and give the numbers that they gave."""

import json
import math
import shutil
from pathlib import Path

import pytest

from accord.cli import main
from accord.disk import read_lines
from accord.models.places import describe
from accord.run import verify

KEPT = Path(__file__).parents[1] / "fixtures" / "runs"
NAMES = ("sft", "helpful", "harmless", "limited", "evaluation")


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A copy of the folders, in the place that their relative paths are counted from."""
    shutil.copytree(KEPT, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_whole(before, name):
    verify(before / name)


def test_snapshots_say_what_they_are(before):
    found = {name: describe(f"{name}/snapshot") for name in ("sft", "limited", "helpful", "harmless")}
    assert [f["role"] for f in found.values()] == ["policy", "policy", "preference", "cost"]
    assert found["harmless"]["criterion"] == "harmless"


def test_an_evaluation_gives_the_same_replies_and_numbers(before):
    # the prompts were a world's of version 1
    theirs = read_lines(before / "evaluation" / "samples.jsonl")
    keys = ("id", "prompt", "source", "split", "slices")
    prompts = [{key: row[key] for key in keys if key in row} for row in theirs]
    (before / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts), encoding="utf-8")
    flags = {
        "--model": "limited/snapshot",
        "--reference": "sft/snapshot",
        "--data": "prompts.jsonl",
        "--rewards.helpful": "helpful/snapshot",
        "--costs.harmless": "harmless/snapshot",
        "--max_new_tokens": "12",
        "--threads": "1",
        "--precision": "f32",
        "--seed": "3",
        "--against": "evaluation",
        "--out": "again",
    }
    assert main(["evaluate", *(word for pair in flags.items() for word in pair)]) == 0
    ours = read_lines(before / "again" / "samples.jsonl")
    assert [row["reply"] for row in ours] == [row["reply"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        shared = set(a["scores"]) & set(b["scores"])
        assert {"kl", "reward/helpful", "cost/harmless", "length"} <= shared
        # what stood there for a raw cost was the squashed one
        a["scores"]["cost/harmless"] = math.tanh(a["scores"]["cost/harmless"] / 2)
        assert {n: a["scores"][n] for n in shared} == pytest.approx({n: b["scores"][n] for n in shared}, abs=2e-4)


def test_they_are_trained_on_and_reported(before):
    common = ["--steps", "1", "--batch_size", "4", "--max_new_tokens", "8", "--precision", "f32", "--threads", "1"]
    roles = ["--model", "limited/snapshot", "--reference", "sft/snapshot", "--rewards.helpful", "helpful/snapshot"]
    data = ["--data", "world:prompts?count=60", "--split", "policy", "--mini_batch_size", "4"]
    limited = ["--costs.harmless", "harmless/snapshot", "--limits.harmless", "0"]  # by a model that says no deviation
    assert main(["ppo", *roles, *data, *common, *limited, "--out", "on"]) == 0
    assert json.loads((before / "on" / "lineage.json").read_text())["stage"] == "ppo"
    assert main(["report", *NAMES, "on", "--out", "report.html"]) == 0
    assert "harmless" in (before / "report.html").read_text()
