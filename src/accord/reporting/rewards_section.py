"""Preference models on benchmarks in the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from accord.reporting.blocks import Block, Cell, Section, Table, interval_cell, numeric, show
from accord.reporting.context import Context
from accord.reporting.runs import interval, number

STAGE = "evaluate-rewards"
LEVELS = ("hard", "normal", "easy")


def rewards_section(context: Context) -> Section | None:
    """What `accord evaluate rewards` found; absent where it was not run."""
    runs = context.stage(STAGE)
    if not runs:
        return None
    section = Section(
        "rewards",
        "Preference models on benchmarks",
        "How often a right reply has the best score of all replies to a question. Hard pairs have the wrong reply in "
        "the more elaborate style. Brackets are 95 % intervals over prompts.",
    )
    for run in runs:
        rows = run.evaluation.get("rewards") or []
        section.blocks += [block for block in (answered_table(rows), length_table(rows)) if block is not None]
        section.cite(context.name(run), run, "evaluation.json")
    return section


def answered_table(rows: Sequence[Mapping[str, Any]]) -> Block | None:
    body = [
        [
            Cell(str(row.get("set")), _subset(row)),
            Cell(str(row.get("model"))),
            numeric(str(row.get("questions"))),
            interval_cell(interval(row.get("answered"))),
            numeric(show(number(row.get("chance")))),
            *(interval_cell(interval(row.get(level))) for level in LEVELS),
        ]
        for row in rows
    ]
    head = ["benchmark", "model", "questions", "answered", "by chance", *(f"{level} pairs" for level in LEVELS)]
    return Table(head, body, "A tie counts as the share of right replies among those that tie.") if body else None


def _subset(row: Mapping[str, Any]) -> str:
    """What is counted, and which subsets of it are not there."""
    missing = row.get("missing") or []
    return f"{row.get('subset')} without {', '.join(missing)}" if missing else str(row.get("subset"))


def length_table(rows: Sequence[Mapping[str, Any]]) -> Block | None:
    body = []
    for row in rows:
        if length := row.get("length"):
            kinds = ("better_is_longer", "better_is_shorter", "partial")
            cells = [interval_cell(interval(length.get(kind))) for kind in kinds]
            correlation = numeric(show(number(length.get("correlation"))))
            body.append([Cell(str(row.get("set"))), Cell(str(row.get("model"))), correlation, *cells])
    if not body:
        return None
    head = ["benchmark", "model", "score and length", "right is longer", "right is shorter", "length taken out"]
    return Table(head, body, "Correlation of score and characters; accuracy by pairs of a right and a wrong reply.")
