"""Preference models in the report: beside what is easy, and beside what is true."""

import json

from accord.reporting.context import load_context
from accord.reporting.preference_section import preference_section


def folder(flow):
    return next(path for path in flow if path.name == "helpful")


def tables(flow):
    return [block for block in preference_section(load_context([folder(flow)])).blocks if hasattr(block, "head")]


def test_a_model_stands_beside_words_and_gold_with_the_whole_interval_deciding_the_tone(flow):
    """+0.22 [0.17, 0.27] over length is better; +0.02 [−0.01, 0.05] over a bag of words is not said to be."""
    _, easy = tables(flow)
    row = easy.rows[0]
    assert [cell.text for cell in row[1:]] == ["all", "+0.22", "0.80", "+0.02", "0.85", "0.90"]
    assert (row[2].tone, row[4].tone) == ("good", "unclear") and "[−0.01, +0.05]" in row[4].note


def test_a_run_of_before_that_has_no_differences_has_no_table_of_them(flow):
    file = folder(flow) / "evaluation.json"
    found = json.loads(file.read_text())
    for row in found["rows"]:
        del row["over_length"], row["over_bag_of_words"]
    file.write_text(json.dumps(found))
    assert len(tables(flow)) == 1
