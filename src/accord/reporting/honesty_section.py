"""Whether snapshots know what they know: calibration by way of asking, declining, premises, opinions."""

from collections.abc import Sequence
from dataclasses import replace

from accord.reporting import figures
from accord.reporting.blocks import (
    Cell,
    Figure,
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

HABITS = (
    ("knowing", "prudence", "unknown questions declined", "prudence"),
    ("knowing", "over_conservativeness", "known questions declined", "over-conservativeness"),
    ("knowing", "honesty", "½ (prudence + 1 − over-conservativeness)", "½ for who never declines"),
    ("knowing_since", "prudence", "declined, not right before", "prudence by what the earlier snapshot knew"),
    ("knowing_since", "over_conservativeness", "declined, right before", "the same of what it knew"),
    ("premises", "denied_false", "false premises denied", ""),
    ("premises", "denied_true", "true premises denied", ""),
    ("opinions", "right_after_right", "right after a right opinion of the user", ""),
    ("opinions", "right_after_wrong", "right after a wrong one", ""),
    ("opinions", "swayed", "right answers lost to a wrong opinion", "paired; sycophancy"),
    ("opinions", "echoes", "wrong opinions given back", ""),
)


def honesty_section(context: Context) -> Section | None:
    """Every snapshot that was probed, side by side."""
    runs = [run for run in context.runs if run.evaluation.get("probes")]
    if not runs:
        return None
    section = Section(
        "honesty",
        "Honesty",
        "Whether a stated or read chance means what it says, and whether a snapshot says that it does not know when "
        "it does not. Brackets are 95 % intervals over questions.",
    )
    labels = [context.measured_name(run) for run in runs]
    if table := _trade(runs, labels):
        section.blocks.append(table)
    ways = list(dict.fromkeys(way for run in runs for way in run.evaluation.get("calibration") or {}))
    for way in ways:
        section.blocks += _reliability(way, runs, labels)
    rows = [row for way in ways for row in _calibration(way, runs, labels)]
    if rows:
        head = ["way, snapshot", "right", "ECE", "ECE refitted", "Brier", "AUROC", "wrong of the surest half"]
        section.blocks.append(Table(head, rows, "Refitted: at a temperature from the other half of the questions."))
    habits = [
        [Cell(text, note), *(interval_cell(interval((run.evaluation.get(part) or {}).get(key))) for run in runs)]
        for part, key, text, note in HABITS
        if any((run.evaluation.get(part) or {}).get(key) for run in runs)
    ]
    if habits:
        section.blocks.append(Table(["share", *labels], habits, "What is declined, denied and given in to."))
    for label, run in zip(labels, runs, strict=True):
        section.blocks += _changes(label, run)
        section.cite(context.name(run), run, "evaluation.json")
    return section


def _trade(runs: Sequence[RunData], labels: Sequence[str]) -> Table | None:
    """What is won by saying that one does not know, and what it costs: before anything else."""
    names = dict.fromkeys(name for run in runs for name in run.evaluation.get("trade") or {})
    rows = []
    for name in names:
        cells = []
        for run in runs:
            found = (run.evaluation.get("trade") or {}).get(name) or {}
            change = interval(found.get("change"))
            shown = interval_cell(interval(found.get("now")))
            cells.append(
                replace(shown, note=f"{shown.note}, {show_interval(change, signed=True)}") if change else shown
            )
        rows.append([Cell(name), *cells])
    caption = (
        "What is won and what it costs. A second interval is the change from the evaluation that was compared with, "
        "paired by question."
    )
    return Table(["share", *labels], rows, caption) if rows else None


def _reliability(way: str, runs: Sequence[RunData], labels: Sequence[str]) -> list[Figure]:
    lines = []
    for color, (label, run) in enumerate(zip(labels, runs, strict=True)):
        bins = (run.evaluation["calibration"].get(way) or {}).get("bins") or []
        if bins:
            x, y = ([number(each[key]) for each in bins] for key in ("confidence", "accuracy"))
            lines.append(figures.Line(label, color, x, y))
    if not lines:
        return []
    panel = figures.Panel(way, "chance given", "share of answers that are right", lines)
    caption = (
        f"{way}: share of right answers by the chance given, in tenths. Where the two are equal, the chance means what "
        "it says; below that the snapshot is too sure."
    )
    label = f"Right answers by chance given, {way}"
    return [figure(figures.curves, [panel], columns=1, label=label, height=2.4, caption=caption)]


def _calibration(way: str, runs: Sequence[RunData], labels: Sequence[str]) -> list[list[Cell]]:
    rows = []
    for label, run in zip(labels, runs, strict=True):
        found: Row = run.evaluation["calibration"].get(way) or {}
        if found:
            again = found.get("refitted") or {}
            cells = [interval_cell(interval(found.get(key)), 3) for key in ("accuracy", "ece")]
            cells += [interval_cell(interval(again.get("ece")), 3)]
            cells += [interval_cell(interval(found.get(key)), 3) for key in ("brier", "auroc")]
            rows.append([Cell(way, label), *cells, numeric(show(number((found.get("risk") or {}).get("0.5"))))])
    return rows


def _changes(label: str, run: RunData) -> list[Table]:
    rows = [
        [Cell(name), Cell(metric.partition("/")[2]), interval_cell(interval(found), 3, signed=True)]
        for name, numbers in (run.evaluation.get("changes") or {}).items()
        for metric, found in numbers.items()
    ]
    against = str(run.evaluation.get("against") or "").rstrip("/").rpartition("/")[2]
    caption = f"{label}: change from {against}, paired by question."
    return [Table(["probe", "of", "change"], rows, caption, folded=True)] if rows else []
