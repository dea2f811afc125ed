"""The summary's lines of suites: changes with their price, refusals by the judge that is known best, bias."""

import json

from accord.reporting import build_report
from accord.reporting.context import load_context
from accord.reporting.suite_lines import suite_lines
from tests.reporting.conftest import write_run


def share(mean, half=0.05, n=80):
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def judged(seen, corrected=None, how="judge unmeasured here", asks="refused"):
    return {"asks": asks, "seen": share(seen), "corrected": corrected and share(corrected), "how": how}


def test_what_is_won_and_what_it_costs_stand_first(tmp_path, undrawn):
    trade = {
        "unknown declined": {"now": share(0.6), "change": share(0.4)},
        "known answered right": {"now": share(0.7), "change": share(-0.2)},
        "benign prompts refused": {"now": share(0.1), "change": share(0.01)},
        "kept of those right before": {"now": share(0.8)},
    }
    honest = {"model": "honest", "against": "runs/before", "probes": {"a": {}}, "calibration": {}, "trade": trade}
    bbq = {"kind": "bbq", "n": 9, "ambig": {"accuracy": share(0.5), "named": share(0.5), "score": share(0.2)}}
    bias = {"model": "honest", "bias": {"bbq": bbq, "other": {"kind": "pair", "n": 3}}}
    sides = {
        "harmful": {"judges": {"rules": judged(0.5), "labeler/x": judged(0.7, 0.75, "by known errors")}},
        "look-alike": {"judges": {"rules": judged(0.2), "labeler/x": judged(0.1, 0.05), "gold/refusal": judged(0.1)}},
    }
    runs = [
        write_run(tmp_path / "a", stage="evaluate-honesty", evaluation=honest),
        write_run(tmp_path / "b", stage="evaluate-bias", evaluation=bias),
        write_run(tmp_path / "c", stage="evaluate-refusals"),
    ]
    (tmp_path / "c" / "refusals.json").write_text(json.dumps({"snapshots": {"ppo": sides}}))
    lines = suite_lines(load_context(runs))
    assert [(line.text.partition(":")[0], line.tone) for line in lines[:3]] == [
        ("Unknown declined, honest", "good"),
        ("Known answered right, honest", "bad"),
        ("Benign prompts refused, honest", "unclear"),
    ]
    assert "+0.40 [+0.35, +0.45] since before" in lines[0].text
    assert (
        lines[3].text.startswith("Refused by ppo, by labeler/x: 0.75")
        and "0.05 [0.00, 0.10] of look-alikes" in lines[3].text
    )
    assert "where the context does not tell, bbq: 0.20" in lines[4].text and len(lines) == 5
    page = build_report(runs)
    assert page.index("Unknown declined, honest") < page.index('id="honesty"')
