"""Snapshots head to head: Elo and win rates with intervals, by judge; and what the judges themselves are worth."""

from collections.abc import Mapping, Sequence
from typing import Any

from accord.reporting import figures
from accord.reporting.blocks import (
    NOTHING,
    Block,
    Cell,
    Section,
    Table,
    figure,
    interval_cell,
    numeric,
    show,
)
from accord.reporting.context import Context
from accord.reporting.runs import interval, number
from accord.reporting.trust_section import agreement_table

STAGE = "evaluate-ratings"
STEPS = {
    "promised": "mean score, other prompts",
    "scored": "mean score, judged prompts",
    "chosen": "its own choices",
    "judged": "the judge's choices",
    "step/prompts": "change of prompts",
    "step/choices": "scores to choices",
    "step/error": "error of the model",
}
Judges = Mapping[str, Mapping[str, Any]]


def ratings_section(context: Context) -> Section | None:
    """What `accord evaluate ratings` found; absent where it was not run."""
    runs = context.stage(STAGE)
    if not runs:
        return None
    section = Section(
        "ratings",
        "Head to head",
        "Elo by maximum likelihood (Bradley–Terry): 400 points are odds of ten to one. A win rate counts a tie half; "
        "under length control it is what the rate would be if both replies were equally long. Brackets are 95 % "
        "intervals over prompts.",
    )
    for run in runs:
        judges: Judges = run.ratings.get("judges") or {}
        section.blocks += [
            block
            for block in (
                elo_figure(judges),
                *(ratings_table(judge, found) for judge, found in judges.items()),
                judges_table(judges),
                agreement_table(
                    {"all judges": run.ratings.get("agreement") or {}}
                    | {f"within {name}": found.get("agreement") or {} for name, found in judges.items()},
                    "judges",
                ),
                *(
                    decomposition_table(judge, str(run.ratings.get("decomposed")), found)
                    for judge, found in (run.ratings.get("decomposition") or {}).items()
                ),
            )
            if block is not None
        ]
        section.cite(context.name(run), run, "ratings.json")
    return section


def elo_figure(judges: Judges) -> Block | None:
    """A row a snapshot and a dot a judge; win rates raw and controlled where there is one judge."""
    order = list(dict.fromkeys(name for found in judges.values() for name in _elo(found)))
    if not order:
        return None
    series = [
        figures.Dots(judge, color, [interval(_elo(found).get(name)) for name in order])
        for color, (judge, found) in enumerate(judges.items())
    ]
    columns = [figures.Column("Elo", "points", series, 0.0)]
    if len(judges) == 1:
        controlled = next(iter(judges.values())).get("length_controlled") or {}
        rates = [
            figures.Dots(title, color, [interval((controlled.get(name) or {}).get(key)) for name in order])
            for color, (key, title) in enumerate((("raw", "as judged"), ("controlled", "at equal length")), 1)
        ]
        columns.append(figures.Column("Win rate against the anchor", "share of prompts", rates, 0.5))
    label = "Elo of every snapshot by judge, with intervals"
    caption = "The dashed line is the anchor (Elo), or even odds (win rate). Intervals that overlap may still differ."
    return figure(figures.dots, order, columns, label=label, caption=caption)


def ratings_table(judge: str, found: Mapping[str, Any]) -> Block | None:
    controlled, lengths = found.get("length_controlled") or {}, found.get("lengths") or {}
    anchor = str((found.get("ratings") or {}).get("anchor"))
    body = []
    for name, elo in _elo(found).items():
        rate = controlled.get(name) or {}
        cells = [interval_cell(interval(rate.get(key))) for key in ("raw", "controlled")]
        effect, length = (
            numeric(show(number(rate.get("effect")), signed=True)),
            numeric(show(number(lengths.get(name)), 0)),
        )
        body.append([Cell(name), interval_cell(interval(elo), 0, signed=True), *cells, effect, length])
    if not body:
        return None
    head = [
        "snapshot",
        f"Elo from {anchor}",
        f"win rate against {anchor}",
        "at equal length",
        "length effect",
        "length",
    ]
    caption = (
        f"Judged by {judge}. The length effect is in logits, for a reply that is longer by much more than replies "
        "differ; length is in characters."
    )
    return Table(head, body, caption)


def judges_table(judges: Judges) -> Block | None:
    """What the order did, and whether the judge contradicts itself."""
    body = []
    for judge, found in judges.items():
        order, cycles = found.get("order") or {}, found.get("cycles") or {}
        ties = number((found.get("ratings") or {}).get("tie_rate"))
        triples = cycles.get("triples") or 0
        body.append(
            [
                Cell(judge),
                numeric(str(found.get("votes", NOTHING)), f"{found.get('prompts', NOTHING)} prompts"),
                numeric(show(ties)),
                interval_cell(interval(order.get("first_wins"))),
                interval_cell(interval(order.get("kept"))),
                interval_cell(interval(cycles.get("seen")) if triples else None, 3),
                numeric(show(number(cycles.get("expected")), 3)),
            ]
        )
    if not body:
        return None
    head = ["judge", "votes", "ties", "shown first wins", "same in both orders", "cyclic triples", "expected of them"]
    caption = (
        "Cyclic triples: of three replies to one prompt, a beats b, b beats c and c beats a; beside it what "
        "Bradley–Terry expects of the same triples. A judge that scores each reply alone has none."
    )
    return Table(head, body, caption)


def decomposition_table(judge: str, model: str, found: Mapping[str, Any]) -> Block | None:
    snapshots: Mapping[str, Mapping[str, Any]] = found.get("snapshots") or {}
    body = [
        [Cell(name), *(interval_cell(interval(parts.get(key)), 0, signed=True) for key in STEPS)]
        for name, parts in snapshots.items()
    ]
    if not body:
        return None
    same = " No other prompts were scored: the first column is of the judged ones." if found.get("same_prompts") else ""
    caption = (
        f"Elo from {found.get('anchor')} as the preference model {model} promises it, and as {judge} gives it. The "
        f"steps between the four add up to the whole difference.{same}"
    )
    return Table(["snapshot", *STEPS.values()], body, caption)


def _elo(found: Mapping[str, Any]) -> Mapping[str, Any]:
    elo: Sequence[str] | Mapping[str, Any] = (found.get("ratings") or {}).get("elo") or {}
    return elo if isinstance(elo, Mapping) else {}
