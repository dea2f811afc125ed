"""`accord constitution --make calibration`: a judge beside people's labels, and labels at its temperature."""

import contextlib
import io
import json
import math
import random

import pytest

from accord.cli import main
from accord.disk import read_json, read_lines
from accord.evaluation.calibration import fit_temperature
from accord.labelers.backends import Labelers
from accord.labelers.preferences import logit, sigmoid
from accord.labelers.questions import Distribution
from accord.run import verify
from accord.stages.constitution.config import Constitution

PAIRS = 120


class Judge:
    """Finds the good reply three times in four, is always too sure of it, and likes the first place."""

    name = key = "judge"

    def __init__(self, right=0.75, sure=2.5, place=0.5, method="logprobs"):
        self.right, self.sure, self.place, self.method = right, sure, place, method

    def ask(self, questions):
        return [Distribution((p, 1 - p), self.method) for p in map(self.first, questions)]

    def first(self, question):
        shown = question.turns[-1].content
        number = int(shown.split("number ")[1].split()[0])
        knows = random.Random(number).random() < self.right
        good_first = shown.index("good") < shown.index("bad")
        return sigmoid(self.sure * (1 if good_first == knows else -1) + self.place)


def run(monkeypatch, tmp_path, judge, name="calibrated", **changes):
    monkeypatch.setattr(Labelers, "named", lambda self, where: judge)
    monkeypatch.setattr("accord.stages.shared.preflight", lambda *_, **__: None)
    data = tmp_path / "labelled.jsonl"
    rows = [
        {"prompt": f"number {i}", "chosen": "a good one", "rejected": "a bad one of many words"} for i in range(PAIRS)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {"make": "calibration", "judge": "j", "data": str(data), "shots": 0, "threads": 1, **changes}
    from accord.stages.constitution.run import run as constitution

    constitution(Constitution(out=str(tmp_path / name), **config))
    return tmp_path / name


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The folder of a judge that was measured, and what was said of it."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        out = run(patch, tmp_path_factory.mktemp("measured"), Judge())
    return out, said.getvalue()


@pytest.fixture
def calibration(measured):
    return measured[0]


def test_what_is_measured_is_what_the_judge_is_like(measured):
    out, said = measured
    verify(out)
    told = read_json(out / "calibration.json")
    right = sum(random.Random(i).random() < 0.75 for i in range(PAIRS))
    assert told["n"] == PAIRS and told["before"]["accuracy"] == pytest.approx(right / PAIRS)
    margins = [2.5] * right + [-2.5] * (PAIRS - right)
    expected = fit_temperature(margins, [1.0] * PAIRS)
    assert told["temperatures"]["logprobs"] == pytest.approx(expected, rel=1e-4) and expected > 1.5
    assert told["before"]["ece"] == pytest.approx(sigmoid(2.5) - right / PAIRS, abs=1e-6)
    assert told["after"]["ece"] < told["before"]["ece"] / 2
    assert told["flip_rate"] == 0.0 and told["labelers"] == ["human"]
    assert told["right_first"] == told["right_last"] == pytest.approx(right / PAIRS)
    assert told["first_place"] == pytest.approx((sigmoid(3.0) + sigmoid(-2.0)) / 2)
    assert told["longer"] == {"judge": pytest.approx(1 - right / PAIRS), "labels": 0.0} and told["uneven"] == PAIRS
    for name in ("before", "after"):
        found = told["intervals"][name]["slope"]
        assert found["low"] <= told[name]["slope"] <= found["high"] and found["low"] < found["high"]
    assert "judge, logprobs:" in said


def test_a_judge_of_places_is_found_out(monkeypatch, tmp_path):
    told = read_json(run(monkeypatch, tmp_path, Judge(sure=0.1, place=2.0)) / "calibration.json")
    assert told["flip_rate"] == 1.0 and told["first_place"] > 0.85
    assert (told["right_first"], told["right_last"]) == (1.0, 0.0)


def labelled(monkeypatch, tmp_path, judge, **changes):
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    shared = {"prompt_id": "p", "slice": "x", "source": "y", "prompt": [{"role": "user", "content": "number 3"}]}
    rows = [{**shared, "reply": reply} for reply in ("a good one", "a bad one")]
    (drawn / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"make": "comparisons", "replies": str(drawn), "data": "", **changes}
    return run(monkeypatch, tmp_path, judge, "labelled", **given)


def test_labels_are_had_at_the_measured_temperature(monkeypatch, tmp_path, calibration):
    temperature = read_json(calibration / "calibration.json")["temperatures"]["logprobs"]
    out = labelled(monkeypatch, tmp_path, Judge(), calibration=str(calibration), require_calibration=True)
    (row,), (label,) = (read_lines(out / name) for name in ("comparisons.jsonl", "labels.jsonl"))
    assert label["asked"] == pytest.approx(sigmoid(math.copysign(2.5, logit(label["asked"]))))
    assert label["first"] == pytest.approx(sigmoid(logit(label["asked"]) / temperature))
    assert row["probability"] == pytest.approx(max(label["first"], 1 - label["first"]))
    assert read_json(out / "lineage.json")["mapping"] == "temperature"


@pytest.mark.parametrize(
    ("judge", "changes", "says"),
    [
        (type("Namesake", (Judge,), {"key": "other"})(), {}, "measured with another model"),
        (Judge(), {"ensemble": 2}, "measured with another ensemble"),
        (Judge(), {"criterion": "kind"}, "measured with another criterion"),
        (Judge(), {"constitution": "world"}, "measured with another constitution"),
        (Judge(method="json"), {}, "had by json, and --calibration measured logprobs"),
    ],
)
def test_what_was_not_measured_is_refused(monkeypatch, tmp_path, calibration, judge, changes, says):
    from accord.errors import BadInput

    with pytest.raises(BadInput, match=says):
        labelled(monkeypatch, tmp_path, judge, calibration=str(calibration), **changes)


def test_a_judge_that_knows_nothing_is_refused(monkeypatch, tmp_path):
    from accord.errors import BadInput

    calibration = run(monkeypatch, tmp_path, Judge(right=0.3))
    assert read_json(calibration / "calibration.json")["temperatures"] == {"logprobs": None}
    with pytest.raises(BadInput, match="no better than chance"):
        labelled(monkeypatch, tmp_path, Judge(right=0.3), calibration=str(calibration))


def test_labels_of_an_unmeasured_judge_are_refused_where_that_is_asked(tmp_path, capsys):
    line = f"constitution --make comparisons --model m --data d --require_calibration true --out {tmp_path / 'run'}"
    assert main(line.split()) == 2 and "--require_calibration needs --calibration RUN" in capsys.readouterr().err


def test_a_few_pairs_measure_nothing(commands, tmp_path, capsys):
    data = tmp_path / "few.jsonl"
    data.write_text('{"prompt": "why", "chosen": "a", "rejected": "b"}\n')
    changes = {"make": "calibration", "data": data, "max_new_tokens": None, "revisions": None}
    assert commands.run("constitution", tmp_path / "run", **changes) == 2
    assert "1 plain comparisons under --criterion harmless; give 30 or more" in capsys.readouterr().err


def test_a_real_model_is_measured_and_then_labels(commands, tmp_path):
    shared = {"criterion": "helpful", "revisions": None}
    changes = {"make": "calibration", "data": commands.files / "comparisons.jsonl", "max_new_tokens": None}
    assert commands.run("constitution", tmp_path / "measured", **shared, **changes) == 0
    told = read_json(tmp_path / "measured" / "calibration.json")
    assert told["n"] == 80 and set(told["temperatures"]) == {"logprobs"} and 0 <= told["before"]["ece"] <= 1
    assert told["asked"]["judge"] == "policy"


def test_an_isotonic_map_is_measured_on_others_and_applied_where_it_is_asked_for(monkeypatch, tmp_path, calibration):
    told = read_json(calibration / "calibration.json")
    right = told["before"]["accuracy"]
    fitted = told["isotonic"]["maps"]["logprobs"]
    assert fitted["probabilities"][-1] == pytest.approx((right * PAIRS + 0.5) / (PAIRS + 1))
    assert told["isotonic"]["ece"] < told["before"]["ece"] / 2 and set(told["intervals"]) >= {"isotonic"}
    out = labelled(monkeypatch, tmp_path, Judge(), calibration=str(calibration), mapping="isotonic")
    (label,) = read_lines(out / "labels.jsonl")
    assert max(label["first"], 1 - label["first"]) == pytest.approx(fitted["probabilities"][-1])
    assert read_json(out / "lineage.json")["mapping"] == "isotonic"


def checked(monkeypatch, tmp_path, judge):
    known = tmp_path / "known.jsonl"
    rows = [{"prompt": f"number {i}", "chosen": "a good one", "rejected": "a bad one"} for i in range(200, 240)]
    known.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return labelled(monkeypatch, tmp_path, judge, checks=str(known))


def test_check_items_are_asked_about_among_the_others(monkeypatch, tmp_path):
    asked = []

    class Noting(Judge):
        def first(self, question):
            asked.append(int(question.turns[-1].content.split("number ")[1].split()[0]))
            return super().first(question)

    out = checked(monkeypatch, tmp_path, Noting())
    told = read_json(out / "checks.json")
    right = sum(random.Random(i).random() < 0.75 for i in range(200, 240))
    assert told["right"]["mean"] == pytest.approx(right / 40) and (told["asked"], told["unanswered"]) == (40, 0)
    assert len(read_lines(out / "comparisons.jsonl")) == 1, "check items are no labels"
    assert 30 < asked.index(3) < 50, "the pair stands in the middle of them"


def test_a_judge_that_fails_its_check_items_leaves_no_label(monkeypatch, tmp_path):
    from accord.errors import BadInput

    with pytest.raises(BadInput, match="no better than chance; no label of it is kept"):
        checked(monkeypatch, tmp_path, Judge(right=0.2))
    assert not (tmp_path / "labelled" / "comparisons.jsonl").exists()
