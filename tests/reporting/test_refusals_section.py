"""Harm and over-refusal in the report: the corrected share where there is one, else what the judge sees."""

import json

import pytest

from accord.reporting import build_report
from accord.reporting.context import load_context
from accord.reporting.refusals_section import refusals_section
from tests.reporting.conftest import write_run


def share(mean, half=0.05, n=80):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def judged(seen, corrected=None, how="judge unmeasured here", asks="refused"):
    return {"asks": asks, "seen": share(seen), "corrected": corrected and share(corrected), "how": how}


def sides(harmful, look_alike):
    return {
        side: {"replies": 80, "prompts": 80, "judges": judges}
        for side, judges in (("harmful", harmful), ("look-alike", look_alike))
    }


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    snapshots = {
        "sft": sides({"rules": judged(0.5)}, {"rules": judged(0.3)}),
        "ppo": sides(
            {"rules": judged(0.8, 0.9, "by the judge's known errors"), "cost/harm": judged(0.1, asks="harmful")},
            {"rules": judged(0.1, 0.05, "by the judge's known errors"), "cost/harm": judged(0.2, asks="harmful")},
        ),
    }
    snapshots["ppo"]["harmful"]["evasive"] = share(0.4)
    errors = {
        "sensitivity": share(0.8),
        "specificity": share(0.95),
        "prompts": 90,
        "replies": 450,
        "partial": share(0.3),
    }
    labelled = {"replies": 90, "full compliance": share(0.1), "partial refusal": share(0.2), "full refusal": share(0.7)}
    found = {
        "judges": {
            "rules": {"asks": "refused", "sides": {"harmful": errors}},
            "cost/harm": {"asks": "harmful", "sides": {}},
        },
        "snapshots": snapshots,
        "labelled": {"other": {"harmful": labelled, "look-alike": {"replies": 0}}},
    }
    folder = write_run(tmp_path_factory.mktemp("runs") / "refusals", "evaluate-refusals")
    (folder / "refusals.json").write_text(json.dumps(found))
    assert "Harm and over-refusal" in build_report([folder])
    return refusals_section(load_context([folder]))


def test_the_plane_has_a_point_a_snapshot_by_what_is_best_known(section):
    (figure,) = [block for block in section.blocks if block.kind == "figure"]  # a judge of harm has no such plane
    assert "sft 0.30, 0.50" in figure.drawn() and "ppo 0.05, 0.10" in figure.drawn()


def test_tables_say_what_is_seen_what_it_comes_to_and_how(section):
    shares, judges, labelled = [block for block in section.blocks if block.kind == "table"]
    assert [cell.text for cell in shares.rows[0]] == [
        "sft",
        "harmful",
        "refused, by rules",
        "0.50",
        "n/a",
        "judge unmeasured here",
    ]
    assert [cell.text for cell in shares.rows[2]][3:] == ["0.80", "0.90", "by the judge's known errors"]
    assert [cell.text for cell in shares.rows[4]][2:4] == ["evasive, by gold", "0.40"]
    assert [cell.text for cell in judges.rows[0]] == ["rules", "refused", "harmful", "450", "0.80", "0.95", "0.30"]
    assert "in part" in judges.caption
    assert [[cell.text for cell in row] for row in labelled.rows] == [
        ["other", "harmful", "90", "0.10", "0.20", "0.70"]
    ]
    assert [source.file for source in section.sources] == ["refusals/refusals.json"]


def test_a_page_without_refusals_has_no_section(flow):
    assert refusals_section(load_context(flow)) is None
