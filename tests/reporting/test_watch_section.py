"""The section on hacking: curves, alarms that rang, limits that were checked."""

import json

from accord.reporting.context import load_context
from accord.reporting.page import build_report
from accord.reporting.watch_section import watch_section


def write(folder, **lineage):
    folder.mkdir()
    (folder / "config.yaml").write_text(
        "alarms: {objective/kl: warn above 1}\n" if lineage.pop("set_up", True) else "a: 1\n"
    )
    (folder / "lineage.json").write_text(json.dumps({"stage": "ppo", "seconds": 1.0, **lineage}))
    rows = [
        {"step": i + 1, "objective/kl": 0.1 * i, "watch/perplexity": 3.0 + i, "watch/other/gap": 0.1 * i}
        for i in range(5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def cells(section):
    return [cell.text for block in section.blocks for row in getattr(block, "rows", []) for cell in row]


def test_alarms_and_checked_limits_stand_in_the_report(tmp_path):
    said = "alarm at iteration 3: objective/kl is 1.2, above 1 (roll-back)"
    checked = {"harm": {"limit": 0.0, "mean": -0.3, "low": -0.5, "high": -0.1, "n": 40, "verdict": "met"}}
    run = write(tmp_path / "run", alarms=[said], ended=said, limits=checked)
    section = watch_section(load_context([run]))
    found = cells(section)
    assert said in found and "yes" in found
    assert "met" in found and "−0.30" in found and "40" in found
    page = build_report([run])
    assert "Signs of hacking" in page and "Gap to" in page


def test_what_an_alarm_means_stands_beside_it(tmp_path):
    words = {"means": "the policy is far", "look": "samples.jsonl", "turn": "raise --kl_coefficient"}
    rung = [{"metric": "objective/kl", "side": "above", **words}]
    run = write(tmp_path / "run", alarms=["alarm at iteration 3"], diagnoses=rung)
    found = cells(watch_section(load_context([run])))
    assert "objective/kl above its bound" in found and set(words.values()) <= set(found)
    before = write(tmp_path / "before", alarms=["alarm at iteration 3"])
    assert not any("its bound" in text for text in cells(watch_section(load_context([before]))))


def test_without_an_alarm_that_is_said(tmp_path):
    quiet, without = write(tmp_path / "a"), write(tmp_path / "b", set_up=False)
    assert "No alarm rang." in watch_section(load_context([quiet])).lead
    assert "No alarm was set" in watch_section(load_context([without])).lead


def test_runs_of_other_stages_have_no_such_section(tmp_path):
    folder = tmp_path / "sft"
    folder.mkdir()
    (folder / "lineage.json").write_text(json.dumps({"stage": "sft"}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n')
    assert watch_section(load_context([folder])) is None
