"""Help against harm over values of a knob: the runs that stand behind a point, and the point that is chosen."""

import shutil

import numpy as np
import pytest
import yaml

from accord.disk import read_json, read_lines
from accord.reporting import build_report
from accord.reporting.context import load_context
from accord.run import verify
from accord.stages.frontier.run import choose


@pytest.fixture(scope="module")
def command():
    from accord.cli import main

    return main


@pytest.fixture(scope="module")
def knobs(commands, tmp_path_factory):
    """The config of a run of PPO and of an evaluation, as files that those runs left."""
    root = tmp_path_factory.mktemp("knobs")
    assert commands.run("limited", root / "ppo", steps=1) == 0
    data = {"data": None, "data.plain": commands.files / "fresh-prompts.jsonl"}
    (commands.files / "fresh-prompts.jsonl").write_text(
        "".join(f'{{"prompt": "{word} the stone, {word}"}}\n' for word in ("how", "why", "help", "please", "bakes"))
    )
    data["data.harmful"] = commands.files / "held-harmful.jsonl"
    assert commands.run("evaluate", root / "evaluate", reference=commands.snapshots / "policy", **data) == 0
    return {stage: root / stage / "config.yaml" for stage in ("ppo", "evaluate")}


@pytest.fixture(scope="module")
def line(knobs):
    def build(out, **changes):
        chosen = {"ppo": knobs["ppo"], "evaluate": knobs["evaluate"], "over": "limits.harm", "values": "[-0.5, 5]"}
        chosen |= {"harm_metric": "cost/harmless", "harm_slices": "harmful", "at_most": 100, "out": out, **changes}
        return ["frontier", "--threads", "1", *(part for k, v in chosen.items() for part in (f"--{k}", str(v)))]

    return build


def test_a_point_is_what_its_runs_measured(line, tmp_path, command, drawn):
    out = tmp_path / "run"
    assert command(line(out, seeds=2)) == 0
    verify(out)
    found = read_json(out / "frontier.json")
    assert [point["name"] for point in found["points"]] == ["start", "-0.5", "5"]
    assert (found["help_metric"], found["harm_metric"]) == ("reward/helpful", "cost/harmless")
    for point in found["points"][1:]:
        seeds = [read_lines(out / f"evaluate-{point['name']}-seed-{seed}" / "samples.jsonl") for seed in (0, 1)]
        helped = [np.mean([row["scores"]["reward/helpful"] for row in rows]) for rows in seeds]
        harmed = [
            np.mean([row["scores"]["cost/harmless"] for row in rows if row["slice"] == "harmful"]) for rows in seeds
        ]
        assert point["help"]["values"] == pytest.approx(helped) and point["help"]["mean"] == pytest.approx(
            np.mean(helped)
        )
        assert point["harm"]["values"] == pytest.approx(harmed)
        for seed in (0, 1):
            config = yaml.safe_load((out / f"ppo-{point['name']}-seed-{seed}" / "config.yaml").read_text())
            assert (config["limits"], config["seed"]) == ({"harm": point["value"]}, seed)
    assert found["chosen"] in ("start", "-0.5", "5")
    page = build_report([out])
    assert f"{found['chosen']} (chosen)" in page and "The frontier" in page
    assert len(load_context([out]).snapshots) == 5, "the start and two seeds of two points"


def test_it_goes_on_where_it_was_stopped(line, tmp_path, command, stop_after):
    stop_after(1)
    assert command(line(tmp_path / "run")) == 1
    stop_after(99)
    trained = (tmp_path / "run" / "ppo--0.5-seed-0" / "manifest.json").stat().st_mtime_ns
    assert command([*line(tmp_path / "run"), "--resume"]) == 0
    assert (tmp_path / "run" / "ppo--0.5-seed-0" / "manifest.json").stat().st_mtime_ns == trained
    assert command(line(tmp_path / "whole")) == 0
    first, second = (read_json(tmp_path / name / "frontier.json") for name in ("run", "whole"))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"over": "kl_coeficient"}, "did you mean kl_coefficient"),
        ({"over": "seed"}, "no such knob"),
        ({"over": "clip", "values": "[0.2, -1]"}, "--over clip, --values -1: clip: "),
        ({"over": "limits.other"}, "--values -0.5: "),
        ({"values": "[1, 1]"}, "each once"),
        ({"harm_metric": "cost/harmles"}, "did you mean cost/harmless"),
        ({"harm_slices": "harmfull"}, "did you mean harmful"),
        ({"ppo": "absent.yaml"}, "absent.yaml: no such file"),
        ({"evaluate": "modle: x"}, "has no knob 'modle' (did you mean model"),
        ({"evaluate": "seed: 1"}, "'seed' stands twice"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(line, knobs, tmp_path, command, capsys, changes, said):
    if more := changes.get("evaluate"):
        broken = tmp_path / "broken.yaml"
        broken.write_text(knobs["evaluate"].read_text() + more + "\n")
        changes = {"evaluate": broken}
    assert command(line(tmp_path / "run", **changes)) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("run/ppo-*"))
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


def test_the_most_helpful_of_those_that_keep_the_bound_is_chosen():
    def point(name, helped, harm, verdict):
        return {"name": name, "help": {"mean": helped}, "harm": {"mean": harm}, "verdict": verdict}

    points = [
        point("start", 0.1, 0.0, "met"),
        point("a", 0.5, 0.02, "met"),
        point("b", 0.5, 0.01, "met"),
        point("c", 0.9, 0.08, "not decided"),
        point("d", 1.0, 0.3, "not met"),
    ]
    assert choose(points) == "b"
    assert choose(points[3:]) is None
