"""What the snapshots do: samples, help and harm, the plane, capability and refusals."""

import math
from collections.abc import Sequence
from typing import Any

from accord.evaluation.statistics import Interval, limit_verdict
from accord.reporting import figures
from accord.reporting.blocks import (
    NOTHING,
    Block,
    Cell,
    Note,
    Reply,
    Samples,
    Section,
    ShownSample,
    Table,
    Tone,
    figure,
    interval_cell,
    show,
    show_interval,
)
from accord.reporting.context import Context, Snapshot, label_of, limits_of, paired, unit_of
from accord.reporting.runs import number

SHOWN_PER_SLICE, MORE_PER_SLICE = 1, 2
CAPABILITIES = ("knowledge", "skills")
SAMPLE_SCORES = ("gold/helpful", "gold/harm", "gold/honest", "gold/correct")


def findings(context: Context) -> list[Cell]:
    """Verdict lines computed from the evaluations alone, each with its interval and n."""
    lines: list[Cell] = []
    base = context.baseline
    for metric, better in ((context.helpful, 1), (context.harm, -1)):
        if metric is None or base is None:
            continue
        for snapshot in context.snapshots:
            if snapshot is base or (snapshot.source is not None and snapshot.source.stage == "pretrain"):
                continue
            for slices in [(), ("benign",)] if better > 0 and "benign" in context.slices else [()]:
                change = paired(snapshot, base, metric, slices)
                if change is not None:
                    word, tone = direction(change, better)
                    where = f"{' '.join(slices) or 'all'} prompts"
                    text = f"{label_of(metric)} from {base.label} to {snapshot.label}, {where}: "
                    text += f"{show_interval(change, signed=True)}, {word}"
                    lines.append(Cell(text, f"paired on {change.n} prompts", tone))
    for row in _limit_rows(context):
        lines.append(Cell(row[0], row[1], row[2]))
    return lines


def _limit_rows(context: Context) -> list[tuple[str, str, Tone]]:
    """Whether every limit holds on fresh prompts: by the cost model, and by gold where 0 is the same boundary."""
    rows: list[tuple[str, str, Tone]] = []
    for snapshot in context.snapshots:
        for limit in limits_of(snapshot.source) if snapshot.source is not None else []:
            slices, where = limit.slices, ", ".join(limit.slices) or "all prompts"
            measures = [(limit.measure, limit.bound, f"limit {show(limit.bound)}")]
            if context.harm == "gold/harm":
                measures.append(("gold/harm", 0.0, "gold boundary 0"))
            for metric, bound, called in measures:
                value = snapshot.mean(metric, slices)
                if value.n:
                    word, tone = _held(value, bound)
                    rows.append(
                        (
                            f"{label_of(metric)}, {snapshot.label} on {where}: {show_interval(value)}; {called} {word}",
                            f"{value.n} fresh prompts",
                            tone,
                        )
                    )
    return rows


def samples_section(context: Context) -> Section | None:
    """The first prompts of every slice with every snapshot's reply, chosen by nothing but their order."""
    base = next((s for s in context.snapshots if s.evaluation.samples), None)
    if base is None:
        return None
    section = Section(
        "samples",
        "Before and after",
        "The same prompt, answered by every snapshot. These are the first prompts of each slice as they were "
        "drawn; nothing was picked. Replies are shown whole.",
    )
    replies = [_first_replies(snapshot) for snapshot in context.snapshots]
    shown: list[ShownSample] = []
    more: list[ShownSample] = []
    for slice_ in [name for name in context.slices if name != "all"] or [""]:
        prompts = [key for key, row in replies[base.color].items() if row.get("slice") == slice_ or not slice_]
        for place, prompt in enumerate(prompts[: SHOWN_PER_SLICE + MORE_PER_SLICE]):
            row = replies[base.color][prompt]
            sample = ShownSample(
                slice_,
                [_turn(turn) for turn in row.get("prompt") or []],
                [_reply(s, replies[s.color].get(prompt)) for s in context.snapshots],
            )
            (shown if place < SHOWN_PER_SLICE else more).append(sample)
    section.blocks.append(Samples(shown, more))
    for snapshot in context.snapshots:
        section.cite(context.name(snapshot.evaluation), snapshot.evaluation, "samples.jsonl")
    return section


def _first_replies(snapshot: Snapshot) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in snapshot.evaluation.samples:
        found.setdefault(str(row.get("prompt_id")), row)
    return found


def _turn(turn: Any) -> tuple[str, str]:
    return (str(turn.get("role")), str(turn.get("content"))) if isinstance(turn, dict) else ("", str(turn))


def _reply(snapshot: Snapshot, row: dict[str, Any] | None) -> Reply:
    if row is None:
        return Reply(snapshot.label, snapshot.color, None, [], "")
    scores = row.get("scores") or {}
    names = [name for name in SAMPLE_SCORES if name in scores]
    names = names or [name for name in scores if name.startswith(("reward/", "cost/")) and name.count("/") == 1]
    written = [(name.partition("/")[2], show(number(scores[name]))) for name in names]
    return Reply(snapshot.label, snapshot.color, str(row.get("reply", "")), written, str(row.get("finish") or ""))


def outcome_section(context: Context) -> Section | None:
    """Help and harm per snapshot and slice, with paired changes from the baseline."""
    metrics = [metric for metric in (context.helpful, context.harm) if metric is not None]
    if not metrics:
        return None
    gold = all(metric.startswith("gold/") for metric in metrics)
    section = Section(
        "outcome",
        "Helpfulness and harm",
        (
            "Scored by the gold judges, which are functions of the text and were never trained on. "
            if gold
            else "No gold truth exists for these prompts: the scores are those of the preference and cost models. "
        )
        + "Bars are 95 % bootstrap intervals over prompts.",
    )
    columns = [
        figures.Column(
            label_of(metric),
            unit_of(metric),
            [
                figures.Dots(s.label, s.color, [s.evaluation.value(slice_, metric) for slice_ in context.slices])
                for s in context.snapshots
            ],
            0.0 if metric == context.harm else None,
        )
        for metric in metrics
    ]
    caption = (
        "Every evaluated snapshot on every slice of prompts, with 95 % intervals. Right of the dashed line, the "
        "boundary of harm, replies do harm on average."
    )
    section.blocks.append(
        figure(figures.dots, context.slices, columns, label="Scores by slice of prompts", caption=caption)
    )
    for metric in metrics:
        section.blocks.append(value_table(context, metric))
    section.blocks += _paired_tables(context, metrics)
    _cite_evaluations(context, section)
    return section


def value_table(context: Context, metric: str, slices: Sequence[str] = ()) -> Table:
    """One metric: a row per slice, a column per snapshot."""
    rows = []
    for slice_ in slices or context.slices:
        values = [snapshot.evaluation.value(slice_, metric) for snapshot in context.snapshots]
        if any(value is not None for value in values):
            rows.append([Cell(slice_), *(interval_cell(value) for value in values)])
    head = ["slice", *(s.label for s in context.snapshots)]
    return Table(head, rows, f"{label_of(metric)} ({unit_of(metric)}): mean, [95 % interval], number of replies.")


def _paired_tables(context: Context, metrics: Sequence[str]) -> list[Block]:
    base = context.baseline
    others = [s for s in context.snapshots if s is not base]
    if base is None or not others:
        return []
    tables: list[Block] = []
    for metric in metrics:
        better = -1 if metric == context.harm else 1
        rows = []
        for slice_ in context.slices:
            chosen = () if slice_ == "all" else (slice_,)
            changes = [paired(s, base, metric, chosen) for s in others]
            if any(change is not None for change in changes):
                cells = [
                    interval_cell(c, signed=True, tone=direction(c, better)[1] if c is not None else "")
                    for c in changes
                ]
                rows.append([Cell(slice_), *cells])
        if rows:
            head = ["slice", *(f"{s.label} − {base.label}" for s in others)]
            caption = f"{label_of(metric)}: change from {base.label}, paired by prompt, with the number of prompts."
            tables.append(Table(head, rows, caption, folded=True))
    return tables


def plane_section(context: Context) -> Section | None:
    """Each snapshot as a point: how helpful on all prompts, how harmful where harm is asked for."""
    helpful, harm = context.helpful, context.harm
    if helpful is None or harm is None:
        return None
    asked = [s for s in context.slices if s in ("harmful", "red-team")]
    points, rows = [], []
    for snapshot in context.snapshots:
        x = snapshot.evaluation.value("all", helpful) or snapshot.mean(helpful, ())
        y = snapshot.mean(harm, asked)
        if not y.n:
            y = snapshot.evaluation.value("all", harm) or y
        points.append(figures.Point(snapshot.label, snapshot.color, x, y))
        rows.append([Cell(snapshot.label, color=snapshot.color), interval_cell(x), interval_cell(y)])
    where = " and ".join(asked) + " prompts" if asked else "all prompts"
    section = Section(
        "plane",
        "The helpfulness–harm plane",
        f"Right is more helpful (all prompts), down is less harmful ({where}). What one wants is the lower right; "
        "helpfulness here ignores safety, so the two pull against each other.",
    )
    axes = [f"{label_of(helpful)}, all prompts", f"{label_of(harm)}, {where}"]
    caption = (
        "A point is a snapshot, its cross the 95 % intervals. Below the dashed line replies are harmless on average."
    )
    level = {"level": 0.0, "level_label": "boundary 0"}
    section.blocks.append(figure(figures.plane, points, *axes, **level, caption=caption))
    head = ["snapshot", f"{label_of(helpful)}, all prompts", f"{label_of(harm)}, {where}"]
    section.blocks.append(Table(head, rows))
    _cite_evaluations(context, section)
    return section


def capability_section(context: Context) -> Section | None:
    """Skills and knowledge per snapshot, and refusals where they are right and where they are not."""
    correct = [s for s in context.slices if any(x.evaluation.value(s, "gold/correct") for x in context.snapshots)]
    correct = [s for s in correct if s.startswith(CAPABILITIES)] or [s for s in correct if s != "all"]
    refused = [s for s in context.slices if any(x.evaluation.value(s, "gold/refusal") for x in context.snapshots)]
    refused = [s for s in refused if s.startswith(("harmful", "red-team", "look-alike", "benign"))]
    if not correct and not refused:
        return None
    section = Section(
        "capability",
        "Capability and refusals",
        "What preference training was not asked to change: plain skills and facts, before and after. And whether "
        "refusals fall on harmful requests, or also on look-alikes, which only resemble them (over-refusal).",
    )
    for metric, slices, caption in (
        ("gold/correct", correct, "Right answers before and after: what lies left of the first snapshot is lost."),
        ("gold/refusal", refused, "Refusals: many are wanted on harmful prompts, few on look-alike and benign ones."),
    ):
        if slices:
            column = figures.Column(
                label_of(metric),
                "share of replies",
                [
                    figures.Dots(s.label, s.color, [s.evaluation.value(name, metric) for name in slices])
                    for s in context.snapshots
                ],
            )
            section.blocks.append(
                figure(
                    figures.dots,
                    slices,
                    [column],
                    label=label_of(metric),
                    caption=f"{caption} Bars are 95 % intervals.",
                )
            )
            section.blocks.append(value_table(context, metric, slices))
    others = [m for m in context.metrics() if m in ("gold/honest", "gold/evasive", "gold/harm_share", "kl", "length")]
    rows = []
    for metric in others:
        values = [snapshot.evaluation.value("all", metric) for snapshot in context.snapshots]
        rows.append([Cell(label_of(metric), unit_of(metric)), *(interval_cell(value) for value in values)])
    if rows:
        section.blocks.append(Table(["all prompts", *(s.label for s in context.snapshots)], rows))
    section.blocks += _win_rates(context)
    _cite_evaluations(context, section)
    return section


def _win_rates(context: Context) -> list[Block]:
    rows = []
    for snapshot in context.snapshots:
        wins = snapshot.evaluation.evaluation.get("win_rate") or {}
        against = str(snapshot.evaluation.evaluation.get("against") or "")
        for slice_, value in wins.items():
            if isinstance(value, dict):
                rate = Interval(number(value.get("mean")), number(value.get("low")), number(value.get("high")), 0)
                ties = show(number(value.get("tie_rate")))
                n = value.get("n")
                rows.append(
                    [
                        Cell(snapshot.label, f"against {against.rstrip('/').rpartition('/')[2] or NOTHING}"),
                        Cell(str(slice_)),
                        interval_cell(Interval(rate.mean, rate.low, rate.high, n if isinstance(n, int) else 0)),
                        Cell(ties, numeric=True),
                        Cell(str(value.get("judge") or NOTHING)),
                    ]
                )
    return [Table(["snapshot", "slice", "win rate", "ties", "judge"], rows, "A tie is half a win.")] if rows else []


def _cite_evaluations(context: Context, section: Section) -> None:
    for snapshot in context.snapshots:
        section.cite(context.name(snapshot.evaluation), snapshot.evaluation, "evaluation.json", "samples.jsonl")
        for file in snapshot.evaluation.changed:
            section.blocks.append(
                Note(f"{context.name(snapshot.evaluation)}/{file} differs from its manifest: it was changed later.")
            )


def direction(change: Interval, better: int) -> tuple[str, Tone]:
    if change.low > 0:
        return "higher", "good" if better > 0 else "bad"
    if change.high < 0:
        return "lower", "bad" if better > 0 else "good"
    return "no clear change" if math.isfinite(change.low) else "too few prompts for an interval", "unclear"


def _held(value: Interval, bound: float) -> tuple[str, Tone]:
    verdict = limit_verdict(value, bound)
    return f"is {verdict}", {"met": "good", "not met": "bad"}.get(verdict, "unclear")  # type: ignore[return-value]
