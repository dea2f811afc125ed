"""Harm and over-refusal side by side: the 2×2 of every snapshot, by every judge, and what the judges get wrong."""

from collections.abc import Mapping
from typing import Any

from accord.evaluation.statistics import Interval
from accord.reporting import figures
from accord.reporting.blocks import Block, Cell, Section, Table, figure, interval_cell, numeric
from accord.reporting.context import Context
from accord.reporting.runs import interval

STAGE = "evaluate-refusals"
HARMFUL, LOOK_ALIKE = "harmful", "look-alike"
Snapshots = Mapping[str, Mapping[str, Any]]


def refusals_section(context: Context) -> Section | None:
    """What `accord evaluate refusals` found; absent where it was not run."""
    runs = context.stage(STAGE)
    if not runs:
        return None
    section = Section(
        "refusals",
        "Harm and over-refusal",
        "A snapshot should refuse harmful prompts and answer those that only look harmful: what one wants is the lower "
        "left. A judge's errors are in the interval where people have labelled replies to the same prompts; elsewhere "
        "the share is what the judge sees, and the judge is unmeasured.",
    )
    for run in runs:
        snapshots: Snapshots = run.refusals.get("snapshots") or {}
        section.blocks += [
            block
            for block in (
                *(plane_figure(judge, snapshots) for judge in refusal_judges(snapshots)),
                shares_table(snapshots),
                judges_table(run.refusals.get("judges") or {}),
                labelled_table(run.refusals.get("labelled") or {}),
            )
            if block is not None
        ]
        section.cite(context.name(run), run, "refusals.json")
    return section


def refusal_judges(snapshots: Snapshots) -> list[str]:
    """The judges of refusals that were asked on both sides of some snapshot."""
    found: dict[str, None] = {}
    for sides in snapshots.values():
        here = [sides.get(side, {}).get("judges") or {} for side in (HARMFUL, LOOK_ALIKE)]
        found |= dict.fromkeys(j for j in here[0] if j in here[1] and here[0][j].get("asks") == "refused")
    return list(found)


def plane_figure(judge: str, snapshots: Snapshots) -> Block | None:
    """Over-refusal against giving in, a point a snapshot."""
    points = []
    for color, (name, sides) in enumerate(snapshots.items()):
        refused = [best((sides.get(side, {}).get("judges") or {}).get(judge)) for side in (LOOK_ALIKE, HARMFUL)]
        if refused[0] is not None and refused[1] is not None:
            points.append(figures.Point(name, color, refused[0], complement(refused[1])))
    if not points:
        return None
    axes = [f"share of look-alikes refused, by {judge}", f"share of harmful prompts complied with, by {judge}"]
    caption = f"Best is the lower left. As {judge} sees it, its known errors taken out; crosses are 95 % intervals."
    return figure(figures.plane, points, *axes, caption=caption)


def best(found: Mapping[str, Any] | None) -> Interval | None:
    """The corrected share where there is one, else what the judge sees."""
    return interval((found or {}).get("corrected")) or interval((found or {}).get("seen"))


def complement(share: Interval) -> Interval:
    return Interval(1 - share.mean, 1 - share.high, 1 - share.low, share.n)


def shares_table(snapshots: Snapshots) -> Block | None:
    body = []
    for name, sides in snapshots.items():
        for side, row in sides.items():
            for judge, found in (row.get("judges") or {}).items():
                cells = [interval_cell(interval(found.get(key))) for key in ("seen", "corrected")]
                asked = Cell(f"{found.get('asks')}, by {judge}")
                body.append([Cell(name), Cell(side), asked, *cells, Cell(str(found.get("how")))])
            if evasive := interval(row.get("evasive")):
                asked = Cell("evasive, by gold")
                body.append([Cell(name), Cell(side), asked, interval_cell(evasive), Cell(""), Cell("gold score")])
    if not body:
        return None
    head = ["snapshot", "prompts", "share of replies", "as the judge sees it", "errors taken out", "how"]
    return Table(head, body, "On harmful prompts what is not refused was complied with, in full or in part.")


def judges_table(judges: Mapping[str, Mapping[str, Any]]) -> Block | None:
    body = []
    for judge, found in judges.items():
        for side, row in (found.get("sides") or {}).items():
            known = numeric(str(row.get("replies")), f"{row.get('prompts')} prompts")
            cells = [interval_cell(interval(row.get(key))) for key in ("sensitivity", "specificity", "partial")]
            body.append([Cell(judge), Cell(str(found.get("asks"))), Cell(side), known, *cells])
    if not body:
        return None
    head = ["judge", "asked for", "prompts", "labelled replies", "sensitivity", "specificity", "partial refusals found"]
    caption = (
        "Against people's labels. A partial refusal counts as a refusal; XSTest's rule looks at how a reply begins, so "
        "that one that refuses later or in part is compliance to it."
    )
    return Table(head, body, caption)


def labelled_table(labelled: Snapshots) -> Block | None:
    kinds = ("full compliance", "partial refusal", "full refusal")
    body = []
    for name, sides in labelled.items():
        for side, row in sides.items():
            if row.get("replies"):
                cells = [interval_cell(interval(row.get(kind))) for kind in kinds]
                body.append([Cell(name), Cell(side), numeric(str(row["replies"])), *cells])
    if not body:
        return None
    return Table(["labelled replies", "prompts", "replies", *kinds], body, "As people labelled them.")
