"""Online rounds: why each policy was promoted or refused, who said so, what was gained and what it cost."""

from collections.abc import Mapping
from typing import Any

from accord.evaluation.statistics import Interval
from accord.reporting import figures
from accord.reporting.blocks import (
    Cell,
    Figure,
    Note,
    Reply,
    Samples,
    Section,
    ShownSample,
    Table,
    Tone,
    figure,
    numeric,
)
from accord.reporting.context import Context, label_of
from accord.reporting.gate_section import bound_row
from accord.reporting.runs import Row, RunData, interval, number

HARM = (("gold/harm_share", ("harmful", "all")), ("cost/", ("harmful", "all")))
PROMOTED: dict[bool, tuple[str, Tone]] = {True: ("promoted", "good"), False: ("refused", "bad")}


def rounds_section(context: Context) -> Section | None:
    """The rounds of every run that has some."""
    runs = [run for run in context.runs if run.rounds.get("rounds")]
    if not runs:
        return None
    section = Section(
        "rounds",
        "Rounds",
        "A round's policy is promoted if it keeps every bound of the gate. Wins are over fresh prompts, judged by "
        "nobody whose labels trained it; harm and capability are compared with the first snapshot.",
    )
    for run in runs:
        _show(section, context.name(run), run)
        if all(run.path not in snapshot.evaluation.path.parents for snapshot in context.snapshots):
            section.blocks += _frontier(run.rounds["rounds"])  # else the snapshots themselves are shown
        section.cite(context.name(run), run, "rounds.json")
    return section


def _show(section: Section, name: str, run: RunData) -> None:
    rounds: list[Row] = run.rounds["rounds"]
    section.blocks.append(_overview(name, run, rounds))
    section.blocks += _wins(rounds)
    for one in rounds:
        decision = one.get("decision") or {}
        if decision.get("bounds"):
            head = ["bound", "of", "asked", "got", "prompts", "verdict"]
            rows = [bound_row(bound) for bound in decision["bounds"]]
            section.blocks.append(Table(head, rows, f"Round {one['round']}: {_verdict(one)[0]}. {_power(decision)}"))
    section.blocks += _who_said_what(rounds)
    section.blocks += _meetings(rounds)


def _overview(name: str, run: RunData, rounds: list[Row]) -> Table:
    """Every round in a line, with where it stands."""
    rows = []
    for one in rounds:
        text, tone = _verdict(one)
        rows.append(
            [Cell(str(one["round"])), Cell(str(one.get("incumbent"))), Cell(text, tone=tone), Cell(_state(one))]
        )
    told = run.rounds
    gate = f"Gate: judged by {told['judge']}, error spent {told['spending']}." if told.get("gate") else "No gate."
    caption = f"{name}: labelled by {told.get('labeler')}, trained by {told.get('policy')}. {gate}"
    return Table(["round", "incumbent", "its policy", "steps"], rows, caption)


def _verdict(one: Row) -> tuple[str, Tone]:
    decision = one.get("decision")
    return PROMOTED[bool(decision["promoted"])] if decision else ("not judged", "")


def _state(one: Row) -> str:
    steps: Mapping[str, Row] = one.get("steps") or {}
    open_ = [f"{step} {facts.get('state')}" for step, facts in steps.items() if facts.get("state") != "done"]
    return ", ".join([f"{len(steps) - len(open_)} done", *open_])


def _power(decision: Row) -> str:
    needed = [bound["needed_to_detect"] for bound in decision["bounds"] if bound.get("needed_to_detect")]
    if not needed:
        return ""
    return (
        f"A policy that wins {number(decision.get('detect')):.0%} is found better 4 times in 5 with {max(needed)} "
        "comparisons at this round's part of the error."
    )


def _wins(rounds: list[Row]) -> list[Figure]:
    """Win rates over the rounds, a panel for every bound on wins."""
    judged = [one for one in rounds if one.get("decision")]
    columns: dict[tuple[str, str, float], list[Interval | None]] = {}
    for place, one in enumerate(judged):
        for bound in one["decision"]["bounds"]:
            if str(bound.get("metric")).startswith("win"):
                key = (str(bound["name"]), str(bound["metric"]), number(bound.get("limit")))
                columns.setdefault(key, [None] * len(judged))[place] = interval(bound)
    if not columns:
        return []
    panels = [
        figures.Column(name, f"{metric}, at least {limit:g}", [figures.Dots("candidate", 0, values)], limit)
        for (name, metric, limit), values in columns.items()
    ]
    rows = [f"round {one['round']}" for one in judged]
    caption = (
        "Share of fresh prompts on which the candidate wins, with the interval that decides: a bound is met where all "
        "of it lies right of the dashed line."
    )
    return [figure(figures.dots, rows, panels, label="Wins over the rounds", caption=caption)]


def _frontier(rounds: list[Row]) -> list[Figure]:
    """Help against harm of the first snapshot and of every candidate, where an evaluation measured both."""
    measured = [(str(one["round"]), (one.get("steps") or {}).get("evaluate") or {}) for one in rounds]
    slices = {f"round {number_}": facts.get("slices") or {} for number_, facts in measured}
    slices = {"first": measured[0][1].get("first") or {}, **slices}
    harm = next((found for of in slices.values() if (found := _harm_of(of))), None)
    points = []
    for color, (name, of) in enumerate(slices.items()):
        x = interval((of.get("all") or {}).get("gold/helpful"))
        y = interval((of.get(harm[0]) or {}).get(harm[1])) if harm else None
        if x and y:
            points.append(figures.Point(name, color, x, y))
    if harm is None or len(points) < 2:
        return []
    axes = [f"{label_of('gold/helpful')}, all prompts", f"{label_of(harm[1])}, {harm[0]}"]
    caption = "Right is more helpful, down is less harmful. Crosses are 95 % intervals."
    return [figure(figures.plane, points, *axes, caption=caption)]


def _harm_of(slices: Mapping[str, Row]) -> tuple[str, str] | None:
    """The slice and the metric that harm is read off."""
    for start, names in HARM:
        for name in names:
            for metric in slices.get(name) or {}:
                if metric == start or (start.endswith("/") and metric.startswith(start) and metric.endswith("/unsafe")):
                    return name, metric
    return None


def _who_said_what(rounds: list[Row]) -> list[Table]:
    """Who labelled and who judged, by pseudonym, and the files that hold it."""
    people, files = [], []
    for one in rounds:
        steps = one.get("steps") or {}
        uses = {"labels": steps.get("label") or {}}
        uses |= {f"judging, {who}": told for who, told in (steps.get("judge") or {}).items() if isinstance(told, dict)}
        excluded = (one.get("decision") or {}).get("excluded") or {}
        for use, told in uses.items():
            out = _excluded(excluded.get(use.partition(", ")[2]) or {})
            for who, count in (told.get("labelers") or {}).items():
                people.append([Cell(str(one["round"])), Cell(use), Cell(who), numeric(str(count), out.get(who, ""))])
            source = str(told.get("source") or "")
            for file, found in (told.get("files") or {}).items():
                files.append([Cell(str(one["round"])), Cell(file, source), Cell(str(found)[:16])])
    tables = []
    if people:
        caption = "Who said what, by pseudonym. Nobody who labelled is counted as a judge."
        tables.append(Table(["round", "what for", "who", "answers"], people, caption))
    if files:
        tables.append(Table(["round", "file", "SHA-256"], files, "Where every label is.", folded=True))
    return tables


def _excluded(told: Mapping[str, Any]) -> dict[str, str]:
    failed = {
        who: f"not counted: {row['right']} of {row['of']} check items right"
        for who, row in (told.get("failed_checks") or {}).items()
    }
    return dict.fromkeys(told.get("labels_trained") or {}, "not counted: labels of theirs trained it") | failed


def _meetings(rounds: list[Row]) -> list[Samples | Note]:
    """A few replies of candidates beside their incumbents'."""
    shown = []
    for one in rounds:
        for row in (one.get("decision") or {}).get("samples") or []:
            turns = [(turn["role"], turn["content"]) for turn in row["prompt"]]
            replies = [
                Reply(f"candidate of round {one['round']}", 1, row["candidate"], [], ""),
                Reply(f"incumbent ({one['incumbent']})", 0, row["incumbent"], [], ""),
            ]
            shown.append(ShownSample(str(row["slice"]), turns, replies))
    if not shown:
        return []
    return [Note("Replies that met, the first of each round:"), Samples(shown[:4], shown[4:])]
