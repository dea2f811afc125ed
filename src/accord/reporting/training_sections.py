"""How the runs went: reward against √KL, limits, curves, time and lineage."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any

from accord.evaluation.statistics import r_squared
from accord.reporting import figures
from accord.reporting.blocks import (
    NOTHING,
    Block,
    Cell,
    Note,
    Section,
    Table,
    Tiles,
    figure,
    missing,
    numeric,
    show,
    show_gib,
    show_seconds,
)
from accord.reporting.context import Context, label_of, limits_of
from accord.reporting.runs import RunData, number

LAST = 10  # iterations that a table's "at the end" averages over
VITALS = (
    ("objective/kl", "KL to the reference", "nats per reply"),
    ("objective/entropy", "Entropy", "nats per token"),
    ("completions/mean_length", "Reply length", "tokens"),
    ("completions/clipped_ratio", "Replies cut at the limit", "share"),
    ("policy/clip_fraction", "Clipped tokens", "share"),
    ("kl_coefficient", "KL coefficient β", "score per nat"),
)


def reward_section(context: Context) -> Section | None:
    """Proxy and gold along PPO against √KL, and how straight the lines are."""
    runs = [run for run in context.stage("ppo") if run.metrics]
    names = list(dict.fromkeys(name for run in runs for name in run.names("reward/")))
    metrics = [f"reward/{name}" for name in names] + ["gold/helpful", "gold/harm"]
    section = Section(
        "kl",
        "Reward against √KL",
        "How much the preference model's score (the proxy) and the gold score change as the policy moves away from "
        "its reference. Bai et al. 2022 found the reward to be linear in √KL early on; where the proxy still rises "
        "and gold turns, the reward is being over-optimised. Each point is one PPO iteration.",
    )
    panels, notes = [], list[str]()
    for metric in metrics:
        if lines := _lines(context, runs, metric, notes, over="sqrt_kl", points=True, joined=False):
            panels.append(figures.Panel(label_of(metric), "√KL to the reference (√nats)", _unit(metric), lines))
    if not panels:
        return None
    section.blocks.append(
        figure(
            figures.curves,
            panels,
            columns=2 if len(panels) in (2, 4) else 3,
            label="Reward against root KL",
            caption="Further right is further from the reference. A proxy that rises while gold falls is exploited.",
        )
    )
    rows = [row for run in runs for row in _linearity(context, run, metrics[:-1])]
    head = ["run", "score", "first", "highest", "last", "KL at highest", "last KL", "R² in √KL", "R² in KL", "points"]
    caption = (
        "R² of a straight line over the iterations before KL first reaches half the KL at the score's highest "
        "point; KL in nats per reply."
    )
    section.blocks += [Table(head, rows, caption), *_notes(notes)]
    _cite(context, section, runs, "metrics.jsonl")
    return section


def _linearity(context: Context, run: RunData, metrics: Sequence[str]) -> list[list[Cell]]:
    rows = []
    for metric in metrics:
        kl, score = run.series(metric, "objective/kl")
        known = [(k, s) for k, s in zip(kl, score, strict=True) if math.isfinite(k) and math.isfinite(s)]
        if not known:
            continue
        peak_kl, peak = max(known, key=lambda pair: pair[1])
        until = next((i for i, (k, _) in enumerate(known) if k >= peak_kl / 2), len(known))
        early = known[: until + 1]
        y = [s for _, s in early]
        root = r_squared([math.sqrt(max(k, 0.0)) for k, _ in early], y) if len(early) > 2 else math.nan
        line = r_squared([k for k, _ in early], y) if len(early) > 2 else math.nan
        rows.append(
            [
                Cell(context.name(run), color=context.color(run)),
                Cell(label_of(metric)),
                *(numeric(show(v)) for v in (known[0][1], peak, known[-1][1], peak_kl, known[-1][0], root, line)),
                numeric(str(len(early))),
            ]
        )
    return rows


def limits_section(context: Context) -> Section | None:
    """Cost, unsafe share and multiplier over the iterations, with the limit drawn in."""
    runs = [run for run in context.stage("ppo") if run.names("cost/", "/mean") or run.names("lagrange/")]
    if not runs:
        return None
    section = Section(
        "limits",
        "Limits and multipliers",
        "Raw costs on the slice that a limit holds on; above 0 a reply is unsafe. A limit bounds their mean, or the "
        "expected share of unsafe replies. While that is over the limit λ rises and the policy pays for it, under the "
        "limit λ falls. A run without a limit shows what help alone does to the same cost.",
    )
    names = list(dict.fromkeys(n for run in runs for n in [*run.names("cost/", "/mean"), *run.names("lagrange/")]))
    rows, notes = [], list[str]()
    for name in names:
        bounds = sorted({(b.metric, b.bound) for run in runs for b in limits_of(run) if b.name == name})
        level = dict(bounds) if len(bounds) == 1 else {}
        panels = []
        for metric, title, unit in (
            (f"cost/{name}/mean", f"Mean cost “{name}”", "raw cost"),
            (f"cost/{name}/expected", "Expected unsafe share", "share of replies"),
            (f"cost/{name}/unsafe", "Share of unsafe replies", "share of replies"),
            (f"lagrange/{name}", "Multiplier λ", "λ"),
        ):
            if lines := _lines(context, runs, metric, notes):
                at = level.get(metric)
                label = f"limit {show(at)}" if at is not None else ""
                panels.append(figures.Panel(title, "iteration", unit, lines, at, label, not metric.endswith("/mean")))
        if panels:
            columns = len(panels) if len(panels) < 4 else 2
            label = f"Cost “{name}” and its multiplier"
            section.blocks.append(
                figure(figures.curves, panels, columns=columns, label=label, height=2.4, caption=BOUND)
            )
        for run in runs:
            rows.append(_limit_row(context, run, name))
    head = ["run", "cost", "limit", "of", "on", "first cost", f"cost, last {LAST}", f"unsafe, last {LAST}", "largest λ"]
    caption = f"“Last {LAST}” is the mean over the last {LAST} iterations of training, on the training prompts."
    section.blocks += [Table([*head, "last λ"], rows, caption), *_notes(notes)]
    _cite(context, section, runs, "metrics.jsonl", "config.yaml")
    return section


def _limit_row(context: Context, run: RunData, name: str) -> list[Cell]:
    limit = next((bound for bound in limits_of(run) if bound.name == name), None)
    cost = run.series(f"cost/{name}/mean")[1]
    unsafe = run.series(f"cost/{name}/unsafe")[1]
    multiplier = [value for value in run.series(f"lagrange/{name}")[1] if math.isfinite(value)]
    return [
        Cell(context.name(run), color=context.color(run)),
        Cell(name),
        numeric(show(limit.bound) if limit else "none"),
        Cell("expected unsafe share" if limit.of == "unsafe" else "mean cost") if limit else Cell("–"),
        Cell(", ".join(limit.slices) or "all prompts") if limit else Cell("–"),
        numeric(show(cost[0] if cost else None)),
        numeric(show(_mean(cost[-LAST:]))),
        numeric(show(_mean(unsafe[-LAST:]))),
        numeric(show(max(multiplier, default=None))),
        numeric(show(multiplier[-1] if multiplier else None)),
    ]


def curves_section(context: Context) -> Section | None:
    """Loss of every supervised stage, and the vital signs of every PPO run."""
    section = Section("curves", "Training curves", "The loss of every stage, and what to look at when PPO goes wrong.")
    supervised = [run for run in context.runs if run.stage != "ppo" and run.series("loss")[0]]
    panels, notes, rows = [], [], []
    for run in supervised:
        lines = []
        for color, (metric, label) in enumerate((("loss", "training loss"), ("eval/loss", "held-out loss"))):
            x, y = run.series(metric)
            if x:
                lines.append(figures.Line(label, color, x, y, points=metric.startswith("eval/")))
                notes += missing(f"{metric} of {context.name(run)}", y)
        panels.append(figures.Panel(context.name(run), "step", "loss (nats)", lines))
        rows.append(_curve_row(context, run))
    if panels:
        section.blocks.append(figure(figures.curves, panels, label="Training loss", caption=LEARNED))
        head = ["run", "steps", "tokens", f"loss, last {LAST}", "held-out loss", "held-out accuracy", "tokens/s"]
        section.blocks.append(Table(head, rows, "Tokens per second is the median over steps."))
    drifts = [_drift_panel(context, run) for run in context.stage("dpo") if run.series("eval/logps/chosen_drift")[0]]
    if drifts:
        section.blocks.append(figure(figures.curves, drifts, label="Drift of held-out replies", caption=DRIFT))
    policies = [run for run in context.stage("ppo") if run.metrics]
    panels = []
    for metric, title, unit in VITALS:
        if lines := _lines(context, policies, metric, notes):
            panels.append(figures.Panel(title, "iteration", unit, lines, from_zero=True))
    if panels:
        signs = {"columns": 3, "label": "Vital signs of PPO", "height": 1.9}
        section.blocks.append(figure(figures.curves, panels, **signs, caption=VITAL))
    if not section.blocks:
        return None
    section.blocks += _notes(notes)
    _cite(context, section, [*supervised, *policies], "metrics.jsonl")
    return section


BOUND = (
    "A limit is kept where its curve stays under the dashed line; λ rises while it does not, and is the price of it."
)
LEARNED = (
    "Held-out loss that rises while training loss falls is learning by heart; a curve that ends steep is not done."
)
VITAL = "KL that runs away, replies that grow or are cut, many clipped tokens: so PPO most often goes wrong."
DRIFT = (
    "Change of the log-probability of held-out replies since the first step. Where the better ones fall too, what "
    "becomes more probable is neither."
)


def _lines(
    context: Context, runs: Sequence[RunData], metric: str, notes: list[str], *, over: str = "step", **marks: bool
) -> list[figures.Line]:
    """The metric of every run that has it, over another one; what is missing of it goes to `notes`."""
    lines = []
    for run in runs:
        x, y = run.series(metric, over)
        if x:
            lines.append(figures.Line(context.name(run), context.color(run), x, y, **marks))
            notes += missing(f"{metric} of {context.name(run)}", y)
    return lines


def _drift_panel(context: Context, run: RunData) -> figures.Panel:
    lines = []
    for color, (side, label) in enumerate((("chosen", "better replies"), ("rejected", "worse replies"))):
        x, y = run.series(f"eval/logps/{side}_drift")
        lines.append(figures.Line(label, color, x, y, points=True))
    return figures.Panel(context.name(run), "step", "drift (nats per reply)", lines, level=0.0)


def _curve_row(context: Context, run: RunData) -> list[Cell]:
    def last(metric: str) -> float | None:
        values = run.series(metric)[1]
        return values[-1] if values else None

    speed = [value for value in run.series("tokens_per_second")[1] if math.isfinite(value)]
    tokens = last("num_tokens")
    return [
        Cell(context.name(run)),
        numeric(show(last("step"), 0)),
        numeric(show(tokens if tokens is not None else last("tokens"), 0)),
        numeric(show(_mean(run.series("loss")[1][-LAST:]), 3)),
        numeric(show(last("eval/loss"), 3)),
        numeric(show(last("eval/accuracy"))),
        numeric(show(median(speed), 0) if speed else NOTHING),
    ]


def lineage_section(context: Context) -> Section:
    """Where every snapshot comes from, what it cost, and every file that this page has read."""
    section = Section(
        "lineage",
        "Time and lineage",
        "Every run, what it started from (by content hash), its seed, time, peak memory, version and machine.",
    )
    seconds = [number(run.lineage.get("seconds")) for run in context.runs]
    known = [(context.name(r), s) for r, s in zip(context.runs, seconds, strict=True) if math.isfinite(s)]
    if known:
        bars = [name for name, _ in known], [s for _, s in known], "wall-clock time (s)"
        section.blocks.append(figure(figures.bars, *bars, caption="Time of each run, as its lineage says."))
    rows = []
    for run, took in zip(context.runs, seconds, strict=True):
        parents = [p for p in run.lineage.get("parents") or [] if isinstance(p, dict)]
        rows.append(
            [
                Cell(context.name(run), "" if run.finished else "not finished"),
                Cell(run.stage),
                Cell("; ".join(_parent(context, p) for p in parents) or "–"),
                numeric(_plain(run.lineage.get("seed", run.config.get("seed")))),
                numeric(show_seconds(took)),
                numeric(show_gib(run.lineage.get("peak_memory"))),
                Cell(_plain(run.lineage.get("config_hash"))),
                Cell(_plain(run.lineage.get("version")), _world(run)),
                Cell(_machine(run.lineage.get("machine"))),
            ]
        )
        _cite(context, section, [run], "lineage.json")
    head = ["run", "stage", "from", "seed", "time", "memory", "config", "version", "machine"]
    section.blocks.append(Table(head, rows))
    files = [
        [Cell(f"{context.name(run)}/{name}"), Cell(digest), Cell("changed later" if name in run.changed else "")]
        for run in context.runs
        for name, digest in run.hashes.items()
    ]
    section.blocks.append(Table(["file", "SHA-256", ""], files, "Every file that this page was made from."))
    return section


def tiles(context: Context) -> Block:
    """The page in a few numbers."""
    whole = {run.path.resolve() for run in context.runs if run.rounds}  # whose seconds are those of all below it too
    counted = [run for run in context.runs if run.stage != "demo" and whole.isdisjoint(run.path.resolve().parents)]
    seconds = [number(run.lineage.get("seconds")) for run in counted]
    known = [value for value in seconds if math.isfinite(value)]
    replies = sum(len(s.evaluation.samples) for s in context.snapshots)
    seeds = sorted({str(run.lineage["seed"]) for run in context.runs if run.lineage.get("seed") is not None})
    found = [
        (str(len(context.runs)), "runs"),
        (str(len(context.snapshots)), "snapshots evaluated"),
        (f"{replies:,}", "replies scored"),
        (show_seconds(sum(known)) if known else NOTHING, "of computation in all"),
        (", ".join(seeds) or NOTHING, "seed" if len(seeds) < 2 else "seeds"),
    ]
    return Tiles(found)


def _parent(context: Context, parent: dict[str, Any]) -> str:
    path = str(parent.get("path") or "").rstrip("/").removesuffix("/snapshot")
    digest = str(parent.get("hash") or NOTHING)[:12]
    return f"{parent.get('role')}: {path.rpartition('/')[2]} {digest}"


def _machine(value: Any) -> str:
    if isinstance(value, dict):
        cores = value.get("cores")
        parts = [str(value[key]) for key in ("system", "processor", "device") if value.get(key)]
        return ", ".join([*parts, f"{cores} cores"] if cores else parts) or NOTHING
    return _plain(value)


def _world(run: RunData) -> str:
    world = run.lineage.get("world")
    if isinstance(world, dict):
        return "world " + " ".join(str(v)[:12] for v in world.values())
    return f"world {str(world)[:12]}" if world else ""


def _plain(value: Any) -> str:
    return NOTHING if value is None or value == "" else str(value)


def _unit(metric: str) -> str:
    return "gold score" if metric.startswith("gold/") else "normalised score"


def _mean(values: Sequence[float]) -> float | None:
    """Mean of the finite values; None if there are none."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else None


def _notes(lines: Sequence[str]) -> list[Block]:
    return [Note(line) for line in dict.fromkeys(lines)]


def _cite(context: Context, section: Section, runs: Sequence[RunData], *files: str) -> None:
    for run in runs:
        section.cite(context.name(run), run, *files)
