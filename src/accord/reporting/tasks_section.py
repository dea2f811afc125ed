"""What snapshots know and can do: accuracy by task, and what it cost, paired by question."""

import math

from accord.evaluation.statistics import Interval
from accord.evaluation.tasks import ACCURACY, LOSS
from accord.reporting import figures
from accord.reporting.blocks import Cell, Section, Table, Tone, figure, interval_cell, show
from accord.reporting.context import Context
from accord.reporting.runs import Row, RunData, interval, number


def tasks_section(context: Context) -> Section | None:
    """Every task by every snapshot that was asked, and the changes from the run that each was compared with."""
    runs = [run for run in context.runs if run.evaluation.get("tasks")]
    if not runs:
        return None
    section = Section(
        "tasks",
        "Knowledge and skills, and what they cost",
        "Each question is asked in the same words of every snapshot. Accuracy is the share of right answers; what "
        "preference training takes from it is its tax. Bars and brackets are 95 % intervals over questions.",
    )
    labels = [context.measured_name(run) for run in runs]
    tasks = list(dict.fromkeys(task for run in runs for task in run.evaluation["tasks"]))
    right = [task for task in tasks if any(_value(run, task, ACCURACY) for run in runs)]
    if right:
        dots = [
            figures.Dots(label, color, [_value(run, task, ACCURACY) for task in right])
            for color, (label, run) in enumerate(zip(labels, runs, strict=True))
        ]
        column = figures.Column("Right answers", "share of questions", dots)
        caption = "Share of right answers by task and snapshot: a snapshot left of an earlier one has paid a tax."
        caption = f"{caption} Bars are 95 % intervals."
        section.blocks.append(figure(figures.dots, right, [column], label="Right answers", caption=caption))
    rows = []
    for task in tasks:
        metric = ACCURACY if task in right else LOSS
        of_task = [run.evaluation["tasks"][task] for run in runs if task in run.evaluation["tasks"]]
        chance = next((numbers["chance"] for numbers in of_task if "chance" in numbers), None)
        note = f"chance {show(number(chance))}" if chance is not None else ("" if task in right else "nats per token")
        rows.append([Cell(task, note), *(interval_cell(_value(run, task, metric), 3) for run in runs)])
    section.blocks.append(Table(["task", *labels], rows, "Accuracy, or loss of plain text: mean, [95 % interval], n."))
    for label, run in zip(labels, runs, strict=True):
        section.blocks += _changes(label, run)
        section.cite(context.name(run), run, "evaluation.json")
    return section


def _value(run: RunData, task: str, metric: str) -> Interval | None:
    return interval(run.evaluation["tasks"].get(task, {}).get(metric))


def _changes(label: str, run: RunData) -> list[Table]:
    changes: Row = run.evaluation.get("changes") or {}
    rows = [
        [Cell(task), Cell("loss" if metric == LOSS else "right answers"), _change(found, -1 if metric == LOSS else 1)]
        for task, numbers in (changes.get("tasks") or {}).items()
        for metric in (ACCURACY, LOSS)
        if (found := interval(numbers.get(metric))) is not None
    ]
    tax = interval(changes.get("tax"))
    if tax is not None:
        rows.append([Cell("all tasks"), Cell("right answers, each task once"), _change(tax, 1)])
    against = str(run.evaluation.get("against") or "").rstrip("/").rpartition("/")[2]
    caption = f"{label}: change from {against}, paired by question. A fall of right answers is the tax."
    return [Table(["task", "of", "change"], rows, caption)] if rows else []


def _change(found: Interval, better: int) -> Cell:
    tone: Tone = "unclear"
    if math.isfinite(found.low) and (found.low > 0 or found.high < 0):
        tone = "good" if (found.low > 0) == (better > 0) else "bad"
    return interval_cell(found, 3, signed=True, tone=tone)
