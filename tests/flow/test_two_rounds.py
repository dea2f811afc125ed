"""Two rounds by hand, as `examples/two_rounds.py` writes them out, at a size of seconds."""

import importlib.util
import json
from pathlib import Path

from accord.evaluation.statistics import Interval, limit_verdict
from accord.run import verify

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "two_rounds.py"
TOY = {"model": "nano", "documents": 150, "steps": 2, "demonstrations": 40, "prompts": 30, "iterations": 1}


def test_two_rounds_compose_into_a_loop(tmp_path, nano):
    spec = importlib.util.spec_from_file_location("two_rounds", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = example.main(tmp_path, TOY, threads=1)
    assert [set(round) for round in found] == [{"harmless"}, {"harmless"}]
    for checked in (round["harmless"] for round in found):
        interval = Interval(*(checked[key] for key in ("mean", "low", "high", "n")))
        assert interval.low <= interval.mean <= interval.high
        assert checked["verdict"] == limit_verdict(interval, checked["limit"])
    for number in (1, 2):
        for stage in ("replies", "labels", "helpful", "harmless", "policy", "evaluation"):
            verify(tmp_path / f"round-{number}" / stage)

    def parents(stage):
        lineage = json.loads((tmp_path / stage / "lineage.json").read_text())
        return {parent["role"]: Path(parent["path"]) for parent in lineage["parents"]}

    # the second round samples from the first one's policy and keeps the first reference
    assert parents("round-2/replies")["model"] == tmp_path / "round-1" / "policy" / "snapshot"
    assert parents("round-2/policy")["model"] == tmp_path / "round-1" / "policy" / "snapshot"
    assert parents("round-2/policy")["reference"] == tmp_path / "sft" / "snapshot"
    data = json.loads((tmp_path / "round-2" / "helpful" / "data" / "data.json").read_text())
    assert [part["name"] for part in data] == ["round0", "round1"] and all(part["used"] for part in data)
