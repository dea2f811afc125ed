"""`--rewards.NAME labeler:WHERE`: a labeler's answers about single replies as a reward of PPO (d-RLAIF)."""

import json
from types import SimpleNamespace

import pytest
import torch

from accord.config import Asking, Labeling
from accord.disk import read_lines
from accord.errors import BadInput
from accord.labelers.backends import Labelers
from accord.labelers.constitution_file import read_constitution
from accord.labelers.journal import Journal
from accord.labelers.local import LocalLabeler
from accord.labelers.scores import principles_of
from accord.records import Prompt, Turn
from accord.run import verify
from accord.stages.rewards import Setting
from accord.training import distributed
from tests.fixtures.serving import serving
from tests.labelers.conftest import Server

LABELED = {"rewards.helpful": None, "steps": 2, "max_rows": 12}


@pytest.fixture
def labeled(snapshots):
    return {**LABELED, "rewards.kind": f"labeler:{snapshots / 'policy'}", "labeling.question": "yes-no"}


@pytest.fixture
def server():
    stub = Server()
    stub.answers = {"yes": 0.75, "no": 0.25}
    with serving(stub):
        yield stub


def served(server, **more):
    asking = {"labeling.allow_local": "true", "labeling.question": "yes-no", **more}
    return {**LABELED, "rewards.kind": f"labeler:openai:{server.url}#judge", **asking}


def without_labels(folder):
    return [
        {k: v for k, v in row.items() if not k.startswith("labeler/") and k not in ("seconds", "tokens_per_second")}
        for row in read_lines(folder / "metrics.jsonl")
    ]


def test_the_reward_is_what_the_labeler_says_of_each_reply(labeled, commands, tmp_path, snapshots):
    out = tmp_path / "run"
    assert commands.run("ppo", out, **labeled, **{"labeling.ensemble": 2}) == 0
    verify(out)
    rows, logged = read_lines(out / "samples.jsonl"), read_lines(out / "metrics.jsonl")
    assert len(rows) == 8
    found = read_constitution("default")
    with Journal(tmp_path / "journal.jsonl") as journal:
        labeler = Labelers(Asking(), distributed.start(1), journal).named(str(snapshots / "policy"))
        for row in rows:
            prompt = Prompt(tuple(Turn(**turn) for turn in row["prompt"]), "", "")
            by = principles_of(found, prompt, [], 2, 0)
            answers = labeler.ask([found.about_one(p, "yes-no", prompt.turns, row["reply"]) for p in by])
            mean = sum(2 * answer.probabilities[0] - 1 for answer in answers) / 2
            assert row["scores"]["kind"] == pytest.approx(mean, abs=1e-5)
    assert logged[0]["reward/kind"] == logged[0]["objective/scores"]
    asked = [row for row in read_lines(out / "journal.jsonl") if "probabilities" in row]
    assert logged[-1]["labeler/kind/questions"] == len(asked) <= 2 * 2 * 8
    assert logged[0]["labeler/kind/questions"] < len(asked) and logged[-1]["labeler/kind/calls"] == 0


def test_a_run_that_was_stopped_goes_on_and_asks_nothing_twice(labeled, commands, tmp_path, monkeypatch, same_run):
    asked = []
    read = LocalLabeler._read
    monkeypatch.setattr(LocalLabeler, "_read", lambda self, some: asked.extend(some) or read(self, some))
    assert commands.run("ppo", tmp_path / "whole", **labeled) == 0
    once, asked[:] = list(asked), []

    class Killed(BaseException):
        pass

    from accord.stages.ppo import run as ppo

    improve = ppo.improve
    calls = []

    def die_in_the_second(*given, **more):
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return improve(*given, **more)

    monkeypatch.setattr(ppo, "improve", die_in_the_second)
    with pytest.raises(Killed):
        commands.run("ppo", tmp_path / "killed", checkpoint_every=1, **labeled)
    assert commands.run("ppo", tmp_path / "killed", checkpoint_every=1, resume="true", **labeled) == 0
    assert sorted(asked) == sorted(once), "the second iteration was asked about before the kill"
    assert without_labels(tmp_path / "killed") == without_labels(tmp_path / "whole")
    one, other = (tmp_path / name / "journal.jsonl" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()


def test_calls_and_cost_of_a_server_are_counted_and_bounded(server, commands, tmp_path, capsys):
    prices = {"labeling.price_sent": 1000.0, "labeling.price_answered": 0.0, "labeling.at_once": 1}
    out = tmp_path / "run"
    assert commands.run("ppo", out, **served(server, **prices, **{"labeling.max_calls": 9})) == 1
    assert "--max_calls 9" in capsys.readouterr().err and len(server.seen) == 9
    more = served(server, **prices, **{"labeling.max_calls": 40})
    assert commands.run("ppo", out, resume="true", **more) == 0, "the budget is no part of what is computed"
    last = read_lines(out / "metrics.jsonl")[-1]
    assert last["labeler/kind/calls"] == len(server.seen) == last["labeler/kind/questions"]
    assert last["labeler/kind/cost"] == pytest.approx(len(server.seen) * 10 * 1000 / 1e6)
    assert last["reward/kind"] == pytest.approx(0.5) and max(server.asked.values()) == 1
    assert "NAME" not in json.dumps(last)


def test_a_reply_without_an_answer_ends_the_run(server, commands, tmp_path, capsys):
    server.gives, server.answers = set(), {"perhaps": 1.0}
    assert commands.run("ppo", tmp_path / "run", **served(server)) in (1, 2)
    assert "question" in capsys.readouterr().err


def measured(commands, out, **changes):
    """A judge's calibration in which the tiny model is as good as told."""
    knobs = {"make": "calibration", "data": commands.files / "comparisons.jsonl", "max_new_tokens": None}
    knobs |= {"revisions": None, "shots": None, "criterion": "helpful", "question": "yes-no", "max_rows": 40}
    assert commands.run("constitution", out, **{**knobs, **changes}) == 0
    told = json.loads((out / "calibration.json").read_text())
    told["temperatures"]["logprobs"] = 0.25
    (out / "calibration.json").write_text(json.dumps(told))
    return told


def test_a_measured_labeler_scores_in_logits_and_another_is_refused(labeled, commands, tmp_path, capsys):
    told = measured(commands, tmp_path / "measured")
    assert told["n"] == 40 and told["asked"]["question"] == "yes-no" and told["first_place"] is None
    assert 0 <= told["before"]["accuracy"] <= 1
    trust = {"labeling.calibration": tmp_path / "measured", "labeling.require_calibration": "true"}
    one = {**labeled, "steps": 1}
    assert commands.run("ppo", tmp_path / "plain", **one) == 0
    assert commands.run("ppo", tmp_path / "logits", **one, **trust) == 0
    plain, logits = (read_lines(tmp_path / name / "metrics.jsonl")[0] for name in ("plain", "logits"))
    assert logits["reward/kind"] == pytest.approx(4 * plain["reward/kind"], rel=1e-4)
    refused = {**one, **trust, "labeling.question": "score"}
    assert commands.run("ppo", tmp_path / "other", **refused) == 2
    assert "measured with another question ('yes-no', not 'score')" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"labeling.require_calibration": "true"}, "require_calibration needs calibration RUN"),
        ({"labeling.questions": "score"}, "--labeling.questions"),
        ({"labeling.question": "choice"}, "--labeling.question"),
        ({"labeling.max_calls": 3}, "--labeling.max_calls has no effect: no labeler among the rewards is a server"),
        ({"labeling.tags": "wild"}, "no principle with a tag of wild has a text"),
        ({"costs.harm": "labeler:x"}, "labeler gives rewards of `accord ppo` alone"),
        (
            {f"rewards.{n}": f"labeler:openai:https://127.0.0.{n}/v1#m" for n in (1, 2)}
            | {"labeling.allow_local": "true"},
            "its answers would be journalled as those of openai:https://127.0.0.1/v1#m",
        ),
        ({"rewards.kind": "labeler:SNAPSHOTS/reward"}, "gives scores and no answers"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(labeled, commands, tmp_path, capsys, snapshots, changes, says):
    given = {key: str(value).replace("SNAPSHOTS", str(snapshots)) for key, value in changes.items()}
    assert commands.run("ppo", tmp_path / "run", **{**labeled, **given}) == 2
    assert says in capsys.readouterr().err


def test_where_a_labeler_is_no_reward_one_process_asks(snapshots, tmp_path):
    run = SimpleNamespace(path=tmp_path, config=SimpleNamespace(seed=0))
    two = distributed.World(0, 2, torch.device("cpu"))
    with pytest.raises(BadInput, match="run without torchrun"):
        Setting(run, two, None, Labeling()).labeler(str(snapshots / "policy"))


def test_the_journal_adds_up_as_it_grows(tmp_path):
    rows = [{"id": f"{i}", "key": "ab"[i % 2], "probabilities": [1.0], "calls": i, "cost": i / 4} for i in range(6)]
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert journal.spent("a") == {"questions": 0, "calls": 0, "cost": 0}
        journal.add(*rows, {"id": "failed", "key": "a", "calls": 2}, {"id": "ways", "without": []})
        journal.add({"id": "0", "key": "a", "calls": 5})  # instead of the first
        expected = {"questions": 2, "calls": 13, "cost": 1.5}
        assert journal.spent("a") == expected and journal.spent("b") == {"questions": 3, "calls": 9, "cost": 2.25}
    with Journal(tmp_path / "journal.jsonl") as journal:
        assert journal.spent("a") == expected
