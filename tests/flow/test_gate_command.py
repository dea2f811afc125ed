"""`accord evaluate --gate`: the file, what is refused before a reply is drawn, exit codes, what is left."""

import json
import shutil
from pathlib import Path

import pytest

from accord.cli import main
from accord.disk import read_json, read_lines
from accord.engine.engines import InProcess
from accord.reporting.context import load_context
from accord.reporting.gate_section import gate_section
from accord.run import verify
from accord.stages.gate import read_gate

EXAMPLE = Path(__file__).parents[2] / "docs" / "gate.yaml"
PLAIN = "bounds: {brief: {metric: length, at_most: 10}}"


@pytest.fixture
def gate(tmp_path):
    def write(text):
        (tmp_path / "gate.yaml").write_text(text)
        return tmp_path / "gate.yaml"

    return write


@pytest.fixture
def no_replies(monkeypatch):
    """Nothing may be drawn before a gate that cannot be used is refused."""
    monkeypatch.setattr(InProcess, "sample", lambda *_: pytest.fail("a reply was drawn"))


def test_what_is_kept_passes_and_what_is_not_is_refused_again(commands, tmp_path, gate, capsys):
    path = gate(PLAIN)
    assert commands.run("evaluate", tmp_path / "run", gate=path) == 0
    left = read_json(tmp_path / "run" / "gate.json")
    lengths = [row["scores"]["length"] for row in read_lines(tmp_path / "run" / "samples.jsonl")]
    (only,) = left["bounds"]
    assert left["passed"] and only["verdict"] == "met" and only["prompts"] == 24
    assert only["mean"] == pytest.approx(sum(lengths) / len(lengths))
    gate("bounds: {brief: {metric: length, at_most: 0.5}}")
    capsys.readouterr()
    assert commands.run("evaluate", tmp_path / "shut", gate=path) == 3
    assert "brief (not met)" in capsys.readouterr().err
    verify(tmp_path / "shut")
    assert commands.run("evaluate", tmp_path / "shut", gate=path, resume="true") == 3
    section = gate_section(load_context([tmp_path / "run", tmp_path / "shut"]))
    assert "Refused: shut." in section.lead
    assert [block.rows[0][-1].text for block in section.blocks] == ["met", "not met"]
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "run"), str(tmp_path / "shut"), "--out", str(page)]) == 0
    assert "Gate" in page.read_text()


def test_the_example_is_decided_on_the_gold_world(commands, tmp_path, monkeypatch, capsys):
    data = {f"data.{s}": f"world:prompts/{s}?count=24&seed=3" for s in ("benign", "harmful", "look-alike", "skills")}
    plain = {"data": None, "rewards.helpful": None, "costs.harmless": None, "max_length": 300, **data}
    assert commands.run("evaluate", tmp_path / "runs" / "evaluation", **plain) == 0
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert commands.run("evaluate", "gated", **plain, gate=EXAMPLE) == 3
    said = capsys.readouterr().out
    found = {bound["name"]: bound for bound in read_json(tmp_path / "gated" / "gate.json")["bounds"]}
    assert list(found) == ["help", "unsafe", "over_refusal", "tax", "brief"]
    assert all(f"gate {name}: {bound['verdict']}" in said for name, bound in found.items())
    # the same model: nothing changed, which few prompts do not show of a share
    assert found["help"]["verdict"] == "met" and found["help"]["mean"] == 0
    assert found["tax"]["verdict"] == "not decided" and found["tax"]["needed"] > found["tax"]["prompts"]
    assert found["tax"]["confidence"] == 0.9 and found["help"]["confidence"] == 0.95
    assert found["brief"]["slices"] == "benign,look-alike" and found["brief"]["prompts"] < 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bounds: [", "not valid YAML"),
        ("bounds: {}", "bounds: expected names"),
        ("bound: {}", "unknown key 'bound' (did you mean bounds?)"),
        ("bounds: {x: {metric: length, at_mots: 1}}", "unknown key 'bounds.x.at_mots' (did you mean at_most?)"),
        ("bounds: {x: {metric: length, at_most: 1}, x: {metric: length, at_most: 2}}", "'x' stands twice"),
        ("bounds: {x: {metric: length}}", "bounds.x: asks nothing"),
        ("bounds: {x: {metric: length, at_most: 1, at_least: 0}}", "bounds.x: has at_least and at_most"),
        ("bounds: {taxes: {at_most: 1}}", "bounds.taxes.metric: missing (did you mean tax?)"),
        ("bounds: {x: {metric: length, at_most: yes}}", "bounds.x.at_most: expected a number, not True"),
        ("bounds: {x: {metric: length, at_most: .nan}}", "bounds.x.at_most: expected a number, not nan"),
        ("bounds: {x: {metric: 3, at_most: 1}}", "bounds.x.metric: expected a text"),
        ("bounds: {x: {metric: length, at_most: 1, confidence: 95}}", "bounds.x.confidence: expected a confidence"),
        ("bounds: {x: {metric: length, change_at_most: 1}}", "bounds.x.change_at_most: a change from what?"),
        ("bounds: {x: {metric: length, at_most: 1, against: run}}", "bounds.x.against: has no effect beside at_most"),
        ("bounds: {x: {metric: lenght, at_most: 1}}", "no 'lenght' of single replies (did you mean length?)"),
        ("bounds: {help: {at_least: 0}}", "no 'gold/helpful' of single replies"),
        ("bounds: {x: {metric: length, slice: harmfull, at_most: 1}}", "slice 'harmfull' (did you mean harmful?)"),
        ("bounds: {x: {metric: length, change_at_most: 1, against: nowhere}}", "nowhere is no finished evaluation"),
    ],
)
def test_a_gate_that_cannot_be_used_is_refused_before_anything_is_drawn(
    commands, tmp_path, gate, no_replies, capsys, text, said
):
    data = {"data": None, "data.harmful": commands.files / "harmful.jsonl"}
    assert commands.run("evaluate", tmp_path / "run", gate=gate(text), **data) == 2
    error = capsys.readouterr().err
    assert "gate.yaml" in error and said in error
    assert not (tmp_path / "run").exists()


def test_evaluations_of_another_kind_are_not_compared_with(commands, tmp_path, gate, monkeypatch, capsys):
    assert commands.run("evaluate", tmp_path / "first") == 0
    monkeypatch.setattr(InProcess, "sample", lambda *_: pytest.fail("a reply was drawn"))
    path = gate(
        f"against: {tmp_path / 'first'}\n"
        "bounds: {better: {metric: reward/helpful, change_at_least: 0}, longer: {metric: length, change_at_least: 0}}"
    )
    for changes, said in (
        ({"temperature": 0.5}, "was measured with --temperature 1.0"),
        ({"rewards.helpful": commands.snapshots / "cost2"}, "preference"),
        ({"data": commands.files / "harmful.jsonl"}, "on no prompt of all that is measured here"),
    ):
        assert commands.run("evaluate", tmp_path / "second", gate=path, **changes) == 2
        assert said in capsys.readouterr().err
    # the same weights under another name are another model: their folder has another hash
    shutil.copytree(commands.snapshots / "reward", tmp_path / "judge")
    (tmp_path / "judge" / "README.md").write_text("another")
    assert commands.run("evaluate", tmp_path / "second", gate=path, **{"rewards.helpful": tmp_path / "judge"}) == 2
    assert "was not judged by" in capsys.readouterr().err


def test_a_judge_that_had_a_part_is_refused(commands, tmp_path, gate, no_replies, capsys):
    """The model that PPO climbed, and one that learned from rows that the snapshot's ancestor learned from."""
    reward = commands.snapshots / "reward"
    snapshot = tmp_path / "ppo" / "snapshot"
    shutil.copytree(commands.snapshots / "policy", snapshot)
    judge = tmp_path / "judge" / "snapshot"
    shutil.copytree(reward, judge)
    own = {"role": "data", "knob": "data", "name": "", "source": "comparisons.jsonl", "rows": 2, "hash": "abc"}

    def lineage(parents, sources, labelled):
        (tmp_path / "ppo" / "lineage.json").write_text(json.dumps({"parents": parents, "sources": sources}))
        (tmp_path / "judge" / "lineage.json").write_text(json.dumps({"parents": [], "sources": [own]}))
        (judge / "labelled_prompts.txt").write_text(labelled)
        (snapshot / "trained_prompts.txt").write_text("one\ntwo\n")

    path = gate("bounds: {better: {metric: reward/helpful, at_least: 0}}")
    changes = {"model": snapshot, "gate": path, "rewards.helpful": judge}
    lineage([], [own], "two\n")
    assert commands.run("evaluate", tmp_path / "run", **changes) == 2
    assert "learned from labels that trained this snapshot" in capsys.readouterr().err
    from accord.lineage import hash_directory

    lineage([{"role": "reward.r", "path": "elsewhere", "hash": None}], [], "three\n")
    trained = {"role": "reward.r", "path": "elsewhere", "hash": hash_directory(judge)}
    lineage([trained], [], "three\n")
    assert commands.run("evaluate", tmp_path / "run", **changes) == 2
    assert "trained this snapshot and cannot judge it" in capsys.readouterr().err


def test_a_judge_stands_beside_its_verdict_with_its_accuracy(commands, tmp_path, gate):
    judge = tmp_path / "judge" / "snapshot"
    shutil.copytree(commands.snapshots / "reward", judge)
    accuracy = {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 90}
    (tmp_path / "judge" / "evaluation.json").write_text(json.dumps({"rows": [{"subset": "all", "accuracy": accuracy}]}))
    path = gate("bounds: {better: {metric: reward/helpful, at_least: -99}, safe: {metric: cost/harmless, at_most: 99}}")
    assert commands.run("evaluate", tmp_path / "run", gate=path, **{"rewards.helpful": judge}) == 0
    better, safe = read_json(tmp_path / "run" / "gate.json")["bounds"]
    assert better["judge"] == {"path": str(judge), "accuracy": accuracy}
    assert safe["judge"]["accuracy"] is None


def test_the_flag_stands_in_where_the_file_names_no_evaluation(gate):
    path = str(gate("bounds: {a: {metric: length, change_at_most: 1}, b: {metric: length, at_most: 1}}"))
    first, second = read_gate(path, "runs/first").bounds
    assert (first.against, second.against) == ("runs/first", "")
    assert read_gate("").bounds == ()


def test_a_win_rate_and_a_loss_are_bounded(commands, tmp_path, gate, capsys):
    shown = commands.files / "fresh.jsonl"
    first = {"eval_data": shown, "max_length": 64}
    assert commands.run("evaluate", tmp_path / "first", **first) == 0
    path = gate(
        "bounds: {wins: {metric: win_rate, at_least: 0.2}, loss: {metric: loss, at_most: 30}, "
        f"tax: {{metric: loss, change_at_most: 0.001, against: {tmp_path / 'first'}}}}}"
    )
    again = {**first, "against": tmp_path / "first", "judge": "reward/helpful", "gate": path}
    assert commands.run("evaluate", tmp_path / "same", **again) == 0
    found = {bound["name"]: bound for bound in read_json(tmp_path / "same" / "gate.json")["bounds"]}
    evaluated = read_json(tmp_path / "same" / "evaluation.json")
    # the same model draws the same replies: every prompt is a tie, and nothing is lost
    assert found["wins"]["mean"] == evaluated["win_rate"]["all"]["mean"] == 0.5 and found["wins"]["prompts"] == 24
    assert found["loss"]["mean"] == pytest.approx(evaluated["loss"], abs=1e-9)
    assert found["tax"]["mean"] == pytest.approx(0, abs=1e-12)
    rows = read_lines(tmp_path / "same" / "losses.jsonl")
    total = sum(row["tokens"] * row["scores"]["loss"] for row in rows)
    assert evaluated["loss"] == pytest.approx(total / sum(row["tokens"] for row in rows))
    assert found["loss"]["prompts"] == len(rows)
    assert commands.run("evaluate", tmp_path / "other", model=commands.snapshots / "other", **again) == 0
    found = {bound["name"]: bound for bound in read_json(tmp_path / "other" / "gate.json")["bounds"]}
    assert found["tax"]["mean"] < -0.1 and found["wins"]["mean"] != 0.5
    gate("bounds: {loss: {metric: loss, at_most: 0.5}}")
    assert commands.run("evaluate", tmp_path / "shut", **again) == 3
    for text, changed, said in (
        (f"bounds: {{wins: {{metric: win_rate, change_at_least: 0, against: {tmp_path / 'first'}}}}}", {}, "as it is"),
        ("bounds: {wins: {metric: win_rate, at_least: 0}}", {"judge": None}, "a win by whose word"),
        ("bounds: {wins: {metric: win_rate, at_least: 0}}", {"against": None, "judge": None}, "has no 'win_rate'"),
        ("bounds: {loss: {metric: loss, at_most: 3}}", {"eval_data": None}, "has no 'loss'"),
    ):
        gate(text)
        capsys.readouterr()
        assert commands.run("evaluate", tmp_path / "no", **{**again, **changed}) == 2
        assert said in capsys.readouterr().err
