"""Runs of `accord constitution`: revisions step by step, how labelled replies sound, how far a judge was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from accord.reporting import figures
from accord.reporting.blocks import (
    Block,
    Cell,
    Section,
    Table,
    figure,
    interval_cell,
    numeric,
    show,
    show_interval,
)
from accord.reporting.context import Context
from accord.reporting.runs import Row, RunData, interval, number

STAGE = "constitution"
# how replies sound (`evaluation/phrases.py`), and gold where it is known: (key, title, unit)
SOUNDS = (
    ("boilerplate", "Ready-made phrases", "share of replies"),
    ("preachy", "Preaching", "share of replies"),
    ("evasive", "Evasive", "share of replies"),
    ("words", "Length", "words"),
    ("gold/harm_share", "Harmful, by gold", "share of replies"),
    ("gold/helpful", "Helpfulness, by gold", "gold score"),
)


def constitution_section(context: Context) -> Section | None:
    """What `accord constitution` left; absent where it was not run."""
    runs = [r for r in context.stage(STAGE) if r.revisions or r.watch or r.calibration or r.steering]
    if not runs:
        return None
    section = Section(
        "constitution",
        "Principles at work",
        "Replies that were revised step by step, and those that a judge prefers. Phrases are plain lists, for watching "
        "one run beside another: policies that are trained on AI feedback turn to boilerplate and preaching.",
    )
    revised = [run for run in runs if run.revisions]
    blocks: list[Block | None] = [revisions_figure(context, revised) if revised else None]
    for run in runs:
        name = context.name(run)
        blocks += [revisions_table(name, run), watch_table(name, run), calibration_table(name, run)]
        blocks.append(steering_table(name, run))
        section.cite(name, run, "revisions.json", "watch.json", "checks.json", "calibration.json", "steering.json")
    section.blocks += [block for block in blocks if block is not None]
    return section


def revisions_figure(context: Context, runs: Sequence[RunData]) -> Block | None:
    """A panel for each number, a line a run, over the number of revisions."""
    panels = []
    for key, title, unit in SOUNDS:
        lines = []
        for color, run in enumerate(runs):
            rows = [row for row in run.revisions if key in row]
            if rows:
                x, y = ([number(row.get(name)) for row in rows] for name in ("step", key))
                lines.append(figures.Line(context.name(run), color, x, y))
        if lines:
            panels.append(figures.Panel(title, "revisions", unit, lines))
    if not panels:
        return None
    caption = "Every revision in turn; 0 is the reply itself. Harm should fall at once, and evasiveness not rise."
    return figure(figures.curves, panels, columns=3, label="Revisions", height=1.9, caption=caption)


def revisions_table(name: str, run: RunData) -> Block | None:
    keys = [key for key, _, _ in SOUNDS if any(key in row for row in run.revisions)]
    body = []
    for row in run.revisions:
        cells = [numeric(show(number(row.get(key)))) for key in keys]
        body.append([numeric(str(row.get("step"))), numeric(f"{row.get('whole')} of {row.get('rows')}"), *cells])
    titles = [title.lower() for key, title, _ in SOUNDS if key in keys]
    return Table(["revision", "whole", *titles], body, f"{name}, by step.") if body else None


def watch_table(name: str, run: RunData) -> Block | None:
    """All replies beside those that the judge prefers, and the phrases that stand under many prompts."""
    body = []
    for which, label in (("replies", "all replies"), ("preferred", "preferred")):
        row: Mapping[str, Any] = run.watch.get(which) or {}
        if row.get("n"):
            keys = ("boilerplate", "preachy", "evasive", "words")
            cells = [numeric(show(number(row.get(key)))) for key in keys]
            body.append([Cell(label), numeric(str(row["n"])), *cells, Cell(common_phrases(row))])
    if not body:
        return None
    longer, uneven = number(run.watch.get("longer_preferred")), run.watch.get("uneven")
    caption = f"{name}. Of {uneven} pairs of uneven length the longer reply is preferred in {show(longer)}."
    if right := interval(run.checks.get("right")):
        caption += f" Of {right.n} check items among them the judge has {show_interval(right)} right."
    return Table(["", "replies", "ready-made", "preachy", "evasive", "words", "commonest phrases"], body, caption)


def common_phrases(row: Mapping[str, Any]) -> str:
    """The first of a profile's phrases with the number of prompts that they stand under."""
    found = [pair for pair in row.get("phrases") or [] if isinstance(pair, Sequence) and len(pair) == 2]
    return "; ".join(f"{phrase} ({count})" for phrase, count in found[:3])


def calibration_table(name: str, run: RunData) -> Block | None:
    """A judge beside labels: as it is, and after each way of mapping its probabilities."""
    told: Row = run.calibration
    body = []
    for key, label in (("before", "as it is"), ("after", "temperature"), ("isotonic", "isotonic")):
        row: Mapping[str, Any] = told.get(key) or {}
        if row:
            bounds = (told.get("intervals") or {}).get(key) or {}
            cells = [interval_cell(interval(row.get("accuracy_interval")))]
            cells += [interval_cell(interval(bounds.get(value))) for value in ("ece", "brier")]
            body.append([Cell(label), *cells])
    if not body:
        return None
    asked = told.get("asked") or {}
    caption = f"{name}: {asked.get('judge')}, asked by {asked.get('question')}, beside {told.get('n')} labelled pairs; "
    caption += "what is fitted is measured on other prompts." + swayed(told)
    return Table(["probabilities", "accuracy", "calibration error", "Brier"], body, caption)


def swayed(told: Mapping[str, Any]) -> str:
    """What the order of showing does to a judge that was shown two replies; nothing of one that was shown one."""
    if told.get("flip_rate") is None:
        return ""
    turns, first, last = (show(number(told.get(key))) for key in ("flip_rate", "right_first", "right_last"))
    return (
        f" The verdict turns with the order in {turns} of pairs; it is right in {first} where the better reply is "
        f"shown first, in {last} where it is shown last."
    )


def steering_table(name: str, run: RunData) -> Block | None:
    """What texts inside replies do to the judge, by kind, for each way of putting questions."""
    ways: Mapping[str, Any] = run.steering.get("ways") or {}
    kinds = list(dict.fromkeys(kind for found in ways.values() for kind in found.get("kinds") or {}))
    if not kinds:
        return None
    body = []
    for kind in [*kinds, "all"]:
        cells = []
        for found in ways.values():
            row = found.get("all") if kind == "all" else (found.get("kinds") or {}).get(kind)
            values = [interval((row or {}).get(key)) for key in ("moved", "turned")]
            cells += [interval_cell(values[0], signed=True), interval_cell(values[1])]
        body.append([Cell(kind), *cells])
    head = ["text in the reply", *(f"{title}, {way}" for way in ways for title in ("moves the verdict", "turns it"))]
    less = interval(run.steering.get("guarded_change"))
    beside = f" Guarded questions are moved by {show_interval(less, signed=True)} more." if less else ""
    told = f"{name}: {run.steering.get('judge')}, {run.steering.get('attacks')} texts at the end of worse replies"
    return Table(head, body, f"{told}, on a scale from −1 to 1.{beside}")
