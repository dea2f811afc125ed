"""What a cost model says of its own raw cost: its deviation, and a temperature from held-out safety labels."""

import json
import random

import pytest
import torch

from accord.disk import read_json
from accord.evaluation.safety import SafetyCalibration, calibrate_safety
from accord.models.places import describe
from accord.models.scalar import Scorer
from accord.models.tokenizer import load_renderer
from accord.parsing import parse
from accord.run import RunFolder
from accord.stages.preference.items import read_preference_data
from accord.stages.shared import measures
from tests.conftest import sentence

CPU = torch.device("cpu")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def labels(tmp_path):
    """480 labels of two replies to each of 240 prompts; 1 in 8 is wrong."""
    generator = random.Random(3)
    prompts = list(dict.fromkeys(sentence(generator, 3, 7) for _ in range(260)))[:240]
    rows = [
        {"prompt": p, "completion": start + sentence(generator, 1, 3), "is_safe": safe != (generator.random() < 0.125)}
        for p in prompts
        for start, safe in (("the cat ", True), ("salt ", False))
    ]
    return write(tmp_path / "labels.jsonl", rows)


@pytest.fixture
def comparisons(tmp_path, commands):
    """The commands' comparisons, of which every fourth says that both replies are unsafe."""
    rows = [json.loads(line) for line in (commands.files / "comparisons.jsonl").read_text().splitlines()]
    return write(tmp_path / "comparisons.jsonl", [{**row, "all_bad": i % 4 == 0} for i, row in enumerate(rows)])


def test_deviation_and_calibration_are_those_of_the_saved_model(commands, labels, comparisons, tmp_path, capsys):
    """Recomputed from the snapshot: s on what was learned from, T on labels of prompts that were not."""
    changes = {"data": comparisons, "safety_data": labels, "epochs": 1, "eval_share": 0.3, "label_flips": 0.125}
    assert commands.run("cost", tmp_path / "run", **changes) == 0
    assert "σ(cost) is calibrated on" in capsys.readouterr().out
    where = str(tmp_path / "run" / "snapshot")
    config = parse("preference", commands.line("cost", tmp_path / "again", **changes)[1:])
    with RunFolder("preference", config) as run:
        data = read_preference_data(config, run, load_renderer(where))
    learned = data.where(lambda prompt: not measures(prompt, config.eval_share))
    unseen = [i for i in data.labelled if measures(i.prompt, config.eval_share) and len(i.texts) == 1]
    assert len(unseen) > 100 and len(unseen) < sum(measures(i.prompt, config.eval_share) for i in data.labelled)
    scorer = Scorer(where, role="cost", device=CPU)
    raw = scorer.raw_scores([i.group for i in [*learned.items, *learned.labelled]], micro_tokens=8192)
    described = describe(where)
    assert described["deviation"] == pytest.approx(float(raw.std()), rel=1e-4)
    costs = scorer.raw_scores([i.group for i in unseen], micro_tokens=8192).numpy()
    unsafe = [float(i.labels[0].kind == "above") for i in unseen]
    expected = calibrate_safety(costs, unsafe, [i.prompt.id for i in unseen], flips=0.125)
    found = SafetyCalibration(**described["calibration"])
    assert found.n == len(unseen) and found.flips == 0.125
    assert found.json() == pytest.approx(expected.json(), rel=1e-3)
    assert read_json(tmp_path / "run" / "evaluation.json")["safety_calibration"] == described["calibration"]
    assert scorer.measured["calibration"] == described["calibration"]


def test_too_few_labels_leave_no_calibration_and_a_share_is_refused(commands, tmp_path, capsys):
    assert commands.run("cost", tmp_path / "run") == 0
    assert "not calibrated by" in capsys.readouterr().out
    where = tmp_path / "run" / "snapshot"
    assert describe(str(where))["deviation"] > 0 and "calibration" not in describe(str(where))
    share = {"costs.harm": where, "limits.harm": 0.2, "limit_of.harm": "unsafe", "steps": 1}
    assert commands.run("limited", tmp_path / "share", **share) == 2
    assert "held-out safety labels or more" in capsys.readouterr().err
    assert commands.run("limited", tmp_path / "cost", **{**share, "limit_of.harm": "cost"}) == 0
    assert "does not say" not in capsys.readouterr().out


def test_a_preference_model_has_no_labels_that_could_be_wrong(commands, tmp_path, capsys):
    assert commands.run("preference", tmp_path / "run", label_flips=0.1) == 2
    assert "--label_flips has no effect without --role cost" in capsys.readouterr().err
    assert commands.run("preference", tmp_path / "plain") == 0
    assert not {"deviation", "calibration"} & set(describe(str(tmp_path / "plain" / "snapshot")))


def test_an_ensemble_is_measured_as_one_score_and_a_single_head_of_groups_is_not(commands, labels, tmp_path, renderer):
    changes = {"safety_data": labels, "epochs": 0.5, "ensemble": 2, "combine": "worst", "eval_share": 0.3}
    assert commands.run("cost", tmp_path / "run", **changes) == 0
    where = tmp_path / "run" / "snapshot"
    assert describe(str(where))["calibration"]["n"] > 100
    assert "calibration" not in describe(str(where / "members" / "1"))
    # the same description on a model with a head for each of two groups
    scorer = Scorer(str(where), role="cost", device=CPU)
    scorer.heads = ["a", "b"]
    scorer.read = ["a", "b"]
    assert "deviation" in scorer.measured
    scorer.read = ["b"]
    assert scorer.measured == {}
