"""What a snapshot had to keep, and whether it did: a row for every bound of a gate."""

from accord.reporting.blocks import Cell, Section, Table, Tone, interval_cell, numeric, show
from accord.reporting.context import Context
from accord.reporting.runs import Row, interval, number

TONES: dict[str, Tone] = {"met": "good", "not met": "bad", "not decided": "unclear"}


def gate_section(context: Context) -> Section | None:
    """Every bound of every evaluation with a gate: what it asked, what it got, what would decide it."""
    runs = [run for run in context.runs if run.gate.get("bounds")]
    if not runs:
        return None
    shut = [context.name(run) for run in runs if not run.gate.get("passed")]
    section = Section(
        "gate",
        "Gate",
        "A bound is met when its whole interval lies on the side that was asked for; what an interval leaves open is "
        "refused. " + (f"Refused: {', '.join(shut)}." if shut else "Every bound is met."),
    )
    for run in runs:
        rows = [bound_row(bound) for bound in run.gate["bounds"]]
        passed = "passed" if run.gate.get("passed") else "refused"
        caption = f"{context.name(run)}: {passed}. A change is paired by prompt."
        head = ["bound", "of", "asked", "got", "prompts", "verdict"]
        section.blocks.append(Table(head, rows, caption))
        section.cite(context.name(run), run, "gate.json")
    return section


def bound_row(bound: Row) -> list[Cell]:
    """A bound as a row of a table: what it asked, what it got, what would decide it."""
    of_change = bool(bound.get("against"))
    verdict, needed = str(bound.get("verdict")), bound.get("needed")
    asked = f"{bound.get('side')} {show(number(bound.get('limit')), 3, signed=of_change)}"
    what = f"change of {bound.get('metric')}" if of_change else str(bound.get("metric"))
    judge = bound.get("judge") or {}
    accuracy = interval(judge.get("accuracy"))
    judged = f", judge right {show(accuracy.mean)}" if accuracy else (", judge unmeasured" if judge else "")
    return [
        Cell(str(bound.get("name"))),
        Cell(what, f"on {bound.get('slices')}{judged}"),
        Cell(asked, f"at {show(number(bound.get('confidence')), 3)}"),
        interval_cell(interval(bound), 3, signed=of_change),
        numeric(str(bound.get("prompts")), f"about {needed} would decide" if needed else ""),
        Cell(verdict, tone=TONES.get(verdict, "")),
    ]
