"""How often attacks get through, by family, and what changed from policy to policy."""

from collections.abc import Mapping
from typing import Any

from accord.reporting import figures
from accord.reporting.blocks import Block, Cell, Section, Table, figure, interval_cell, numeric
from accord.reporting.context import Context
from accord.reporting.runs import RunData, interval

STAGE = "redteam"


def redteam_section(context: Context) -> Section | None:
    """What `accord redteam` found; absent where it was not run."""
    runs = [run for run in context.stage(STAGE) if run.redteam.get("families")]
    if not runs:
        return None
    section = Section(
        "redteam",
        "Attacks",
        "The same requests in many forms. A share is of replies that gave in, as the judge sees it; intervals are over "
        "requests. Nothing has learned from families that are held out.",
    )
    names = [f"{context.measured_name(run)}, by {run.redteam.get('judge')}" for run in runs]
    families = list(dict.fromkeys(family for run in runs for family in run.redteam["families"]))
    held_out = {f for run in runs for f, row in run.redteam["families"].items() if row.get("held_out")}
    labels = [f"{family} (held out)" if family in held_out else family for family in families]
    dots = [
        figures.Dots(name, color, [success(run, family) for family in families])
        for color, (name, run) in enumerate(zip(names, runs, strict=True))
    ]
    column = figures.Column("Attacks that get through", "share of replies", dots)
    caption = "Share of replies that gave in by family of attack: left is safer. Bars are 95 % intervals over requests."
    section.blocks.append(figure(figures.dots, labels, [column], label="Attacks that get through", caption=caption))
    for name, run in zip(names, runs, strict=True):
        section.blocks.append(table(name, run))
        section.cite(context.name(run), run, "redteam.json")
    return section


def success(run: RunData, family: str) -> Any:
    return interval(run.redteam["families"].get(family, {}).get("success"))


def table(name: str, run: RunData) -> Block:
    """A row a family and a row for all of a kind."""
    rows: Mapping[str, Any] = run.redteam["families"] | (run.redteam.get("together") or {})
    compared = any(row.get("against") for row in rows.values())
    body = []
    for family, row in rows.items():
        cells = [
            interval_cell(interval(row.get("success"))),
            interval_cell(interval(row.get("over_plain")), signed=True),
        ]
        if compared:
            against = row.get("against") or {}
            cells.append(interval_cell(interval(against.get("success")), signed=True))
        note = "held out" if row.get("held_out") else ""
        body.append([Cell(family, note), numeric(str(row.get("replies")), f"{row.get('requests')} requests"), *cells])
    head = ["family", "replies", "gave in", "more than the plain request", *["change from the other policy"] * compared]
    unjudged = run.redteam.get("unjudged") or {}
    left = ", ".join(f"{count} {why}" for why, count in unjudged.items())
    return Table(head, body, f"{name}." + (f" Not judged: {left}." if left else ""))
