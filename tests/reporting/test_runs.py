"""Run folders are read tolerantly, but a broken file is named."""

import json
import math

import pytest

from accord.errors import BadInput
from accord.reporting import load_run
from accord.reporting.context import load_context
from accord.reporting.runs import display_names, interval
from tests.reporting.conftest import evaluation_of, write_run


def test_what_is_there_is_read_and_hashed(flow):
    run = load_run(flow[4])
    assert (run.stage, run.name, run.finished) == ("ppo", "limited", True)
    assert run.config["limits"] == {"harmless": -0.2}
    assert len(run.metrics) == 40 and not run.samples and not run.evaluation
    assert set(run.hashes) == {"config.yaml", "lineage.json", "metrics.jsonl", "manifest.json"}
    assert run.changed == ()


def test_an_unfinished_run_is_read(flow):
    (flow[4] / "lineage.json").unlink()
    (flow[4] / "manifest.json").unlink()
    run = load_run(flow[4])
    assert not run.finished and run.stage == "ppo" and run.lineage == {}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.jsonl", '{"step": 1}\n{"step": 2\n', r"metrics\.jsonl:2: not valid JSON"),
        ("metrics.jsonl", '{"step": 1}\n[2]\n', r"metrics\.jsonl:2: holds a list"),
        ("samples.jsonl", "\n\nnot json\n", r"samples\.jsonl:3: not valid JSON"),
        ("evaluation.json", '{"slices": ', r"evaluation\.json: not valid JSON"),
        ("evaluation.json", "[1]", r"evaluation\.json: holds a list"),
        ("evaluation.json", '{"slices": [1]}', r"evaluation\.json: 'slices'"),
        ("evaluation.json", '{"rows": {}}', r"evaluation\.json: 'rows'"),
        ("lineage.json", "{]", r"lineage\.json: not valid JSON"),
        ("config.yaml", "a: [1\n", r"config\.yaml: not valid YAML"),
    ],
)
def test_a_broken_file_is_bad_input_that_names_it(flow, name, text, message):
    (flow[5] / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        load_run(flow[5])


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\x00\x01", b"\x80abc"])
def test_binary_rubbish_is_bad_input(flow, rubbish):
    (flow[5] / "metrics.jsonl").write_bytes(rubbish)
    with pytest.raises(BadInput, match=r"metrics\.jsonl:1"):
        load_run(flow[5])


def test_no_folder_and_an_empty_one_are_bad_input(tmp_path):
    with pytest.raises(BadInput, match="no such run folder"):
        load_run(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="not a run folder"):
        load_run(tmp_path / "empty")


def test_model_text_with_line_separators_stays_one_row(flow):
    row = {"prompt_id": "p", "reply": "one\u2028two\x85three", "scores": {}}
    (flow[-1] / "samples.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_run(flow[-1]).samples == [row]


def test_null_and_nan_are_nan_and_true_is_no_number():
    got = interval({"mean": None, "low": float("nan"), "high": "3", "n": None})
    assert all(math.isnan(value) for value in (got.mean, got.low, got.high)) and got.n == 0
    assert math.isnan(interval({"mean": True}).mean)
    assert interval(3.0) is None and interval({"n": 3}) is None


def test_series_and_names_of_metrics(flow):
    run = load_run(flow[4])
    assert run.names("lagrange/") == ["harmless"]
    assert run.names("cost/", "/mean") == ["harmless"]
    assert run.names("completions/", "_ratio") == ["clipped"]
    x, y = run.series("lagrange/harmless")
    assert x[:2] == [1.0, 2.0] and y[0] == 5.0
    assert run.series("absent") == ([], [])


def test_names_are_as_short_as_they_can_be(flow, tmp_path):
    other = tmp_path / "other" / "ppo"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text("{}")
    names = display_names([load_run(flow[5]), load_run(other), load_run(flow[4])])
    assert names == ["demo/ppo", "other/ppo", "limited"]


def test_evaluations_find_the_run_they_measured(flow):
    context = load_context(flow)
    assert [s.label for s in context.snapshots] == ["pretrain", "sft", "ppo", "limited"]
    assert [s.source.name for s in context.snapshots] == ["pretrain", "sft", "ppo", "limited"]
    assert context.baseline.label == "sft"
    alone = load_context(flow[-1:])
    assert [(s.label, s.source) for s in alone.snapshots] == [("limited", None)]


@pytest.mark.parametrize(("known", "order"), [("a1", ["base", "dpo"]), ("b2", ["dpo", "base"])])
def test_what_others_were_trained_from_comes_first_and_changes_are_measured_from_it(known, order, tmp_path):
    """Somebody else's model has no run here; that it is the start is told by its hash, not by its path."""
    _, slices = evaluation_of("ppo")
    start = {"role": "model", "path": "elsewhere/base", "hash": "a1"}
    write_run(tmp_path / "dpo", "dpo", parents=[start])
    made = str(tmp_path / "dpo" / "snapshot")
    measured = {"model": made, "slices": slices}
    parents = [{"role": "model", "path": made, "hash": "d4"}]
    write_run(tmp_path / "e1", "evaluate", evaluation=measured, parents=parents)
    measured = {"model": "hub/base", "slices": slices}
    write_run(tmp_path / "e2", "evaluate", evaluation=measured, parents=[{**start, "path": "hub/base", "hash": known}])
    context = load_context([tmp_path / name for name in ("dpo", "e1", "e2")])
    assert [s.label for s in context.snapshots] == order
    assert context.baseline.label == order[0]


def test_a_model_that_policies_were_optimised_from_is_the_baseline_beside_one_fine_tuned_from_it(tmp_path):
    """An SFT run is no baseline where PPO did not begin with it."""
    _, slices = evaluation_of("ppo")
    start = {"role": "model", "path": "elsewhere/base", "hash": "a1"}
    for place, (name, stage) in enumerate((("lessons", "sft"), ("ppo", "ppo"))):
        write_run(tmp_path / name, stage, parents=[start])
        made = str(tmp_path / name / "snapshot")
        parents = [{"role": "model", "path": made, "hash": f"d{place}"}]
        write_run(tmp_path / f"e{place}", "evaluate", evaluation={"model": made, "slices": slices}, parents=parents)
    write_run(tmp_path / "e", "evaluate", evaluation={"model": "elsewhere/base", "slices": slices}, parents=[start])
    context = load_context([tmp_path / name for name in ("lessons", "ppo", "e0", "e1", "e")])
    assert context.baseline.label == "base"
