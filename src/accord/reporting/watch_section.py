"""What to look at when the reward rises: signs of hacking, the alarms that rang, limits checked at the end."""

import math

from accord.evaluation.diagnoses import AlarmMeaning
from accord.reporting import figures
from accord.reporting.blocks import Cell, Section, Table, figure, numeric, show
from accord.reporting.context import Context
from accord.reporting.runs import RunData

SIGNS = (
    ("watch/perplexity", "Perplexity under the reference", "–"),
    ("watch/repetition", "Repeated runs of three tokens", "share"),
    ("watch/tail", "Rewards in the first tail", "share of replies"),
    ("watch/entropy", "Entropy by its estimate", "nats per token"),
)


def watch_section(context: Context) -> Section | None:
    """Curves of the signs, the gap to watched models, and a table of the alarms."""
    runs = [run for run in context.stage("ppo") if run.names("watch/")]
    if not runs:
        return None
    section = Section(
        "watch",
        "Signs of hacking",
        "A reward that is exploited rises like any other; these numbers change with it. The gap is how far the reward "
        "has outrun a model of other data since the first iteration, in deviations; the first tail is the 1 % of "
        "rewards that were highest then.",
    )
    gaps = list(dict.fromkeys(name for run in runs for name in run.names("watch/", "/gap")))
    signs = [*SIGNS, *((f"watch/{name}/gap", f"Gap to “{name}”", "deviations") for name in gaps)]
    panels = []
    for metric, title, unit in signs:
        lines = []
        for run in runs:
            x, y = run.series(metric)
            if any(math.isfinite(value) for value in y):
                lines.append(figures.Line(context.name(run), context.color(run), x, y))
        if lines:
            panels.append(figures.Panel(title, "iteration", unit, lines))
    caption = "Read beside the reward: a sign that turns while the reward still rises is worth a look at the replies."
    signs_of = {"columns": 3, "label": "Signs of hacking", "height": 1.9}
    section.blocks.append(figure(figures.curves, panels, **signs_of, caption=caption))
    rows = [row for run in runs for row in _alarms(context, run)]
    if rows:
        section.blocks.append(Table(["run", "alarm", "ended the run"], rows, "Alarms that rang."))
        head = ["run", "alarm", "what it means", "what to look at", "what to turn"]
        meanings = [row for run in runs for row in _meanings(context, run)]
        if meanings:
            caption = "What these alarms most often mean. A number past its bound proves nothing by itself."
            section.blocks.append(Table(head, meanings, caption))
    else:
        set_up = any(run.config.get("alarms") or run.config.get("kl_budget") for run in runs)
        said = "No alarm rang." if set_up else "No alarm was set (`--alarms`)."
        section.lead = f"{section.lead} {said}"
    verdicts = [row for run in runs for row in _limits(context, run)]
    if verdicts:
        caption = "Limits on held-out prompts at the end of training, by the cost model that was optimised against."
        head = ["run", "limit", "of", "bound", "mean", "low", "high", "n", "mean cost", "unsafe", "verdict"]
        section.blocks.append(Table(head, verdicts, caption))
    for run in runs:
        section.cite(context.name(run), run, "metrics.jsonl", "lineage.json")
    return section


def _alarms(context: Context, run: RunData) -> list[list[Cell]]:
    ended = str(run.lineage.get("ended") or "")
    said = [str(alarm) for alarm in run.lineage.get("alarms") or []]
    name = Cell(context.name(run), color=context.color(run))
    return [[name, Cell(alarm), Cell("yes" if alarm == ended else "")] for alarm in said]


def _meanings(context: Context, run: RunData) -> list[list[Cell]]:
    name = Cell(context.name(run), color=context.color(run))
    rows = []
    for found in run.lineage.get("diagnoses") or []:
        told = [str(found.get(field) or "") for field in AlarmMeaning._fields]
        rows.append([name, Cell(f"{found.get('metric')} {found.get('side')} its bound"), *map(Cell, told)])
    return rows


def _limits(context: Context, run: RunData) -> list[list[Cell]]:
    rows = []
    for name, found in (run.lineage.get("limits") or {}).items():
        numbers = [numeric(show(found.get(key))) for key in ("limit", "mean", "low", "high")]
        name_cell = Cell(context.name(run), color=context.color(run))
        of = Cell("expected unsafe share" if found.get("of") == "unsafe" else "mean cost")
        always = [numeric(show(found.get("cost", found.get("mean")))), numeric(show(found.get("unsafe")))]
        rows.append(
            [
                name_cell,
                Cell(name),
                of,
                *numbers,
                numeric(show(found.get("n"), 0)),
                *always,
                Cell(str(found.get("verdict"))),
            ]
        )
    return rows
