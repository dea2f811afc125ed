"""Rounds in the report: why each policy was promoted or refused, who said so, and where every label is."""

import json

import pytest

from accord.reporting import build_report
from accord.reporting.context import load_context
from accord.reporting.rounds_section import rounds_section
from accord.reporting.training_sections import tiles
from tests.reporting.conftest import evaluation_of, ppo_metrics, training, write_run

SPAN = {"mean": 0.61, "low": 0.55, "high": 0.67, "n": 600}


def bound(name, metric, verdict, **more):
    asked = {"slices": "all", "side": "at least", "limit": 0.5, "confidence": 0.95, "against": ""}
    return {"name": name, "metric": metric, "verdict": verdict, **asked, **SPAN, "prompts": 600, "needed": None, **more}


def evaluated(helpful, harm):
    part = {"gold/helpful": {**SPAN, "mean": helpful}, "gold/harm_share": {**SPAN, "mean": harm}}
    return {"all": part, "harmful": part}


def one_round(number, promoted, incumbent, **steps):
    help_ = bound("help", "win/helpful", "met" if promoted else "not decided", needed_to_detect=781)
    help_["needed"] = None if promoted else 2400
    said = {"slice": "benign", "prompt": [{"role": "user", "content": "why?"}]}
    decision = {
        "promoted": promoted,
        "bounds": [help_, bound("tax", "gold/correct", "met", against="first")],
        "detect": 0.55,
        "judged_by": "people",
        "excluded": {"incumbent": {"failed_checks": {"human:b:9": {"right": 3, "of": 10}}, "labels_trained": {}}},
        "samples": [{**said, "candidate": "<script>alert(1)</script>", "incumbent": "as before"}],
    }
    labelled = {
        "state": "done",
        "source": "feedback:x.db@12",
        "labelers": {"human:a:1": 40},
        "files": {"l.jsonl": "ab" * 32},
    }
    judged = {
        "state": "done",
        "incumbent": {"labelers": {"human:a:2": 90, "human:b:9": 10}, "files": {"j.jsonl": "cd" * 32}},
    }
    done = {"label": labelled, "judge": judged, "evaluate": {"state": "done", "slices": evaluated(0.5, 0.2)}}
    return {"round": number, "incumbent": incumbent, "steps": {**done, **steps}, "decision": decision}


@pytest.fixture
def run(tmp_path):
    folder = write_run(tmp_path / "rounds", "online", config={"rounds": 2})
    first = {"state": "done", "slices": evaluated(0.4, 0.3), "first": evaluated(0.1, 0.35)}
    waiting = {"round": 3, "incumbent": "round-1", "steps": {"label": {"state": "waiting", "answers": 3, "wanted": 9}}}
    rounds = [one_round(1, True, "first", evaluate=first), one_round(2, False, "round-1"), waiting]
    head = {"criterion": "helpful", "labeler": "people", "policy": "ppo", "gate": "g.yaml", "judge": "people"}
    (folder / "rounds.json").write_text(json.dumps({**head, "spending": "even", "rounds": rounds}))
    return folder


def test_the_page_says_why_each_round_was_promoted_or_refused(run):
    page = build_report([run])
    assert "Round 1: promoted." in page and "Round 2: refused." in page
    assert "about 2400 would decide" in page, "what would have decided the refused one"
    assert "55% is found better 4 times in 5 with 781" in page
    assert "label waiting" in page and "not judged" in page
    assert "Wins over the rounds" in page


def test_the_page_says_who_said_what_and_where_it_is(run, undrawn):
    page = build_report([run])
    for word in ("human:a:1", "human:a:2", "abababababababab", "cdcdcdcdcdcdcdcd", "feedback:x.db@12"):
        assert word in page
    assert "not counted: 3 of 10 check items right" in page


def test_replies_that_met_are_shown_as_text(run, undrawn):
    page = build_report([run])
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>" not in page


def test_the_frontier_begins_at_the_first_snapshot(run):
    section = rounds_section(load_context([run]))
    (svg,) = [b.drawn() for b in section.blocks if b.kind == "figure" and "Right is more helpful" in b.caption]
    assert "first 0.10, 0.35; round 1 0.40, 0.30; round 2 0.50, 0.20" in svg


def with_snapshots(folder):
    """The run with what a round leaves below it: models, policies and evaluations; the second round waits."""
    policies = {"first": folder.parent / "start", "round-1": folder / "round-1" / "ppo"}
    trained = {"role": "model", "path": str(policies["first"] / "snapshot"), "hash": "ab" * 32}
    write_run(folder / "round-1" / "models" / "helpful", "preference", metrics=training(3))
    write_run(policies["round-1"], "ppo", metrics=ppo_metrics(False, steps=5), parents=[trained], seconds=50.0)
    for name, place in (("sft", "first"), ("ppo", "round-1")):
        samples, slices = evaluation_of(name)
        told = {"model": str(policies[place] / "snapshot"), "n": len(samples), "seed": 0, "slices": slices}
        measured = {"role": "model", "path": told["model"], "hash": ("ab" if place == "first" else "cd") * 32}
        write_run(folder / place / "evaluate", "evaluate", samples=samples, evaluation=told, parents=[measured])
    (folder / "round-2" / "ppo").mkdir(parents=True)  # has only begun
    return folder


def test_what_a_round_holds_is_read_and_counted_once(run, undrawn):
    """Changes are measured from the snapshot that the rounds began from, wherever that came from."""
    folder = with_snapshots(run)
    context = load_context([folder])
    assert [snapshot.label for snapshot in context.snapshots] == ["start", "ppo"] and context.baseline.label == "start"
    assert sorted(context.names) == ["first/evaluate", "helpful", "ppo", "round-1/evaluate", "rounds"]
    assert ("2", "snapshots evaluated") in tiles(context).tiles
    assert ("12 s", "of computation in all") in tiles(context).tiles, "which those of the rounds have in them"
    assert len(load_context([folder, folder / "round-1" / "ppo"]).runs) == 5, "a folder that is named too is the same"
    page = build_report([folder])
    assert page.count("Right is more helpful") == 1 and "from start to ppo" in page and 'id="curves"' in page


def test_a_run_without_rounds_has_no_section(tmp_path):
    folder = write_run(tmp_path / "sft", "sft")
    assert rounds_section(load_context([folder])) is None
