"""Limits in the report: what each bounds is what it is compared with, in training and on fresh prompts."""

import json
import math

import pytest
import yaml

from accord.evaluation.metrics import metric_interval
from accord.evaluation.safety import with_fit
from accord.reporting import training_sections
from accord.reporting.context import RESAMPLES, limits_of, load_context
from accord.reporting.outcome_sections import findings
from accord.reporting.preference_section import preference_section
from accord.reporting.runs import load_run
from accord.reporting.watch_section import watch_section

FIT = {"temperature": 0.5, "relative_error": 0.5, "n": 90, "flips": 0.05, "ece": 0.011, "ece_before": 0.072}


def write(folder, config=None, rows=(), evaluation=None, samples=(), **lineage):
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {}))
    (folder / "lineage.json").write_text(json.dumps({"seconds": 1.0, **lineage}))
    for name, lines in (("metrics", rows), ("samples", samples)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    if evaluation:
        (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return folder


@pytest.fixture
def limited(tmp_path):
    """PPO with a share bounded by 0.3 and a cost by 1.5, and its replies measured on 60 prompts."""
    config = {"rewards": {}, "limits": {"harm": 0.3, "lies": 1.5}, "limit_slices": {"harm": "a"}}
    config["limit_of"] = {"harm": "unsafe"}
    rows = [
        {"step": i + 1, "watch/perplexity": 3.0, "lagrange/harm": 2.0, "lagrange/lies": 1.0}
        | {f"cost/{n}/{what}": 0.4 for n in ("harm", "lies") for what in ("mean", "unsafe")}
        | {"cost/harm/expected": 0.35}
        for i in range(3)
    ]
    checked = {"limit": 0.3, "of": "unsafe", "mean": 0.21, "low": 0.1, "high": 0.29, "n": 40, "verdict": "met"}
    checked |= {"cost": -1.25, "unsafe": 0.175}
    run = write(tmp_path / "ppo", config, rows, stage="ppo", limits={"harm": checked})
    shares = [1 / (1 + math.exp(-(i % 10 - 6) / 0.5)) for i in range(60)]
    samples = [
        {"prompt_id": str(i), "slice": "a", "scores": {"cost/harm": i % 10 - 6.0, "cost/harm/expected": share}}
        for i, share in enumerate(shares)
    ]
    evaluation = {"model": str(run / "snapshot"), "n": 60, "seed": 0, "calibrations": {"harm": FIT}}
    evaluation |= {"slices": {"all": {"n": 60, "cost/harm/expected": {"mean": 0.3, "low": 0.2, "high": 0.4, "n": 60}}}}
    parents = [{"role": "model", "path": str(run / "snapshot"), "hash": "ab" * 32}]
    measured = write(
        tmp_path / "evaluate", {}, evaluation=evaluation, samples=samples, stage="evaluate", parents=parents
    )
    return [run, measured], shares


def cells(section):
    return [[cell.text for cell in row] for block in section.blocks for row in getattr(block, "rows", [])]


def test_a_run_of_before_limits_its_costs_as_they_stand(tmp_path):
    run = write(tmp_path / "old", {"rewards": {}, "limits": {"harm": -0.6}}, stage="ppo")
    (bound,) = limits_of(load_run(run))
    assert (bound.of, bound.metric, bound.measure, bound.slices) == ("cost", "cost/harm/mean", "cost/harm", ())


def test_curves_have_the_bound_where_it_belongs(limited):
    section = training_sections.limits_section(load_context(limited[0]))
    curves = [block for block in section.blocks if block.kind == "figure"]
    drawn = {one.options["label"]: {panel.title: panel.level for panel in one.data[0]} for one in curves}
    harm, lies = drawn["Cost “harm” and its multiplier"], drawn["Cost “lies” and its multiplier"]
    assert {title for title, level in harm.items() if level == 0.3} == {"Expected unsafe share"}
    assert {title for title, level in lies.items() if level == 1.5} == {"Mean cost “lies”"}
    rows = cells(section)
    assert ["harm", "0.30", "expected unsafe share", "a"] in [row[1:5] for row in rows]
    assert ["lies", "1.50", "mean cost", "all prompts"] in [row[1:5] for row in rows]


def test_fresh_prompts_are_compared_with_what_is_bounded_and_the_fit_is_in_the_interval(limited):
    folders, shares = limited
    context = load_context(folders)
    (snapshot,) = context.snapshots
    found = snapshot.mean("cost/harm/expected", ("a",))
    expected = with_fit(metric_interval("cost/harm/expected", shares, resamples=RESAMPLES), shares, 0.5)
    assert (found.low, found.high) == (expected.low, expected.high)
    assert snapshot.mean("cost/harm", ("a",)).mean == pytest.approx(-1.5)
    lines = [line.text for line in findings(context)]
    (said,) = [line for line in lines if "limit 0.30" in line]
    assert "Expected unsafe share by cost model “harm”" in said and "is not decided" in said


def test_the_check_says_what_it_bounds_and_always_cost_and_share(limited):
    (row,) = cells(watch_section(load_context(limited[0])))
    assert row[1:] == ["harm", "expected unsafe share", "0.30", "0.21", "0.10", "0.29", "40", "−1.25", "0.17", "met"]


def test_the_fit_of_a_cost_model_is_told(tmp_path):
    rows = [{"subset": "all", "n": 9, "accuracy": {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 9}, "ece": 0.1}]
    evaluation = {"criterion": "harm", "role": "cost", "rows": rows, "bins": [], "safety_calibration": FIT}
    run = write(tmp_path / "cost", {"criterion": "harm"}, evaluation=evaluation, stage="preference")
    (note,) = [block for block in preference_section(load_context([run])).blocks if hasattr(block, "text")]
    assert "90 held-out safety labels, 5% of them known to be wrong: temperature 0.50" in note.text
    assert "ECE 0.072 before and 0.011 after" in note.text
