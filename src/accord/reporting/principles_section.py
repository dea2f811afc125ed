"""Tests by principle: which hold, at what price, which two contradict each other, and what changed."""

from collections.abc import Mapping
from typing import Any

from accord.reporting import figures
from accord.reporting.blocks import Block, Cell, Section, Table, figure, interval_cell, numeric
from accord.reporting.context import Context
from accord.reporting.runs import RunData, interval

STAGE = "evaluate-principles"
MOST = 12  # pairs of principles that are shown, the most opposed first


def principles_section(context: Context) -> Section | None:
    """What `accord evaluate principles` found; absent where it was not run."""
    runs = [run for run in context.stage(STAGE) if run.evaluation.get("principles")]
    if not runs:
        return None
    section = Section(
        "principles",
        "Principle by principle",
        "Each principle's own test prompts, as the judge sees the replies. How scores go together is their correlation "
        "among replies to the same prompt. Bars and brackets are 95 % intervals over prompts.",
    )
    labels = [f"{context.measured_name(run)}, by {run.evaluation.get('judge')}" for run in runs]
    names = list(dict.fromkeys(name for run in runs for name in run.evaluation["principles"]))
    dots = [
        figures.Dots(label, color, [interval(run.evaluation["principles"].get(n, {}).get("holds")) for n in names])
        for color, (label, run) in enumerate(zip(labels, runs, strict=True))
    ]
    column = figures.Column("Replies that keep to the principle", "share of replies", dots)
    caption = "Each principle on its own tests: what lies to the left is kept to the least. Bars are 95 % intervals."
    section.blocks.append(figure(figures.dots, names, [column], label="Principles", caption=caption))
    for label, run in zip(labels, runs, strict=True):
        blocks = (price_table(label, run), pairs_table(run), against_table(run))
        section.blocks += [block for block in blocks if block is not None]
        section.cite(context.name(run), run, "evaluation.json")
    return section


def price_table(label: str, run: RunData) -> Block:
    """A row a principle: how it holds, and what goes with it."""
    body = []
    for name, row in run.evaluation["principles"].items():
        plain = [interval_cell(interval(row.get(key))) for key in ("holds", "helpful", "evasive")]
        together = [interval_cell(interval(row.get(f"with_{key}")), signed=True) for key in ("helpful", "evasive")]
        body.append(
            [
                Cell(name, str(row.get("text") or "")),
                numeric(str(row.get("replies")), f"{row.get('prompts')} prompts"),
                *plain,
                *together,
            ]
        )
    head = ["principle", "replies", "keep to it", "helpfulness", "evasive", "goes with help", "goes with evasion"]
    left = ", ".join(f"{name} {count}" for name, count in (run.evaluation.get("unjudged") or {}).items())
    return Table(head, body, f"{label}." + (f" Without an answer: {left}." if left else ""))


def pairs_table(run: RunData) -> Block | None:
    body = [
        [
            Cell(f"{pair.get('one')} and {pair.get('other')}"),
            interval_cell(interval(pair), signed=True),
            Cell("contradict each other", tone="bad") if pair.get("contradict") else Cell("not decided"),
        ]
        for pair in (run.evaluation.get("pairs") or [])[:MOST]
        if isinstance(pair, Mapping) and (pair.get("mean") or 0) < 0
    ]
    if not body:
        return None
    caption = f"Of {len(run.evaluation['pairs'])} pairs the most opposed. The verdict is at a level that all share."
    return Table(["principles", "go together", "verdict"], body, caption)


def against_table(run: RunData) -> Block | None:
    against: Mapping[str, Any] = run.evaluation.get("against") or {}
    body = []
    for name, row in against.items():
        changes = [interval_cell(interval(row.get(key)), signed=True) for key in ("holds", "helpful", "evasive")]
        body.append([Cell(name), interval_cell(interval(row.get("preferred"))), *changes])
    head = ["principle", "preferred to the other's", "more keep to it", "more helpful", "more evasive"]
    caption = "Against another snapshot's replies to the same prompts, each pair in both orders."
    return Table(head, body, caption) if body else None
