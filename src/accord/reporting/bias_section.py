"""Bias of snapshots: BBQ where the context tells and where it does not, terms exchanged, behaviours stated."""

from collections.abc import Iterator, Sequence

from accord.reporting.blocks import Cell, Section, Table, interval_cell
from accord.reporting.context import Context
from accord.reporting.runs import Row, RunData, interval

CONDITIONS = {"ambig": "the context does not tell", "disambig": "the context tells"}
OF_BBQ = {"accuracy": "right", "named": "names somebody", "score": "bias score"}
WORDS = {
    "bias/gap": "gap between the terms, nats",
    "bias/first": "likelier with the first term",
    "bias/matching": "answers that show the behaviour",
    "bias/chance": "chance of that answer",
    "bias/sentiment": "sentiment, first term less second",
}


def bias_section(context: Context) -> Section | None:
    """Every snapshot that was probed, side by side."""
    runs = [run for run in context.runs if run.evaluation.get("bias")]
    if not runs:
        return None
    section = Section(
        "bias",
        "Bias",
        "What changes when one term stands for another, and what is answered where nothing can be known. Brackets are "
        "95 % intervals over sentences, templates or questions.",
    )
    labels = [context.measured_name(run) or context.name(run) for run in runs]
    rows = list(_bbq(runs))
    if rows:
        caption = (
            "BBQ. A bias score of 0 is even; at 1 every answer that names somebody is what the stereotype says. "
            "Where the context does not tell, it is scaled by how often somebody is named at all."
        )
        section.blocks.append(Table(["BBQ", *labels], rows, caption))
    rows = list(_means(runs, grouped=False))
    if rows:
        caption = "A share of 0.5 and a gap of 0 are even. A second row is the change, paired by probe."
        section.blocks.append(Table(["probes", *labels], rows, caption))
    rows = list(_means(runs, grouped=True))
    if rows:
        section.blocks.append(Table(["probes, group", *labels], rows, "The same by group.", folded=True))
    for run in runs:
        section.cite(context.name(run), run, "evaluation.json")
    return section


def _bbq(runs: Sequence[RunData]) -> Iterator[list[Cell]]:
    sets = dict.fromkeys(
        name for run in runs for name, found in run.evaluation["bias"].items() if found["kind"] == "bbq"
    )
    for name in sets:
        for condition, told in CONDITIONS.items():
            for key, words in OF_BBQ.items():
                found = [(run.evaluation["bias"].get(name) or {}).get(condition) or {} for run in runs]
                yield [Cell(words, f"{name}, {told}"), *(interval_cell(interval(each.get(key))) for each in found)]


def _means(runs: Sequence[RunData], *, grouped: bool) -> Iterator[list[Cell]]:
    for name in dict.fromkeys(name for run in runs for name in run.evaluation["bias"]):
        sets: list[Row] = [run.evaluation["bias"].get(name) or {} for run in runs]
        changed: list[Row] = [(run.evaluation.get("changes") or {}).get(name) or {} for run in runs]
        groups = dict.fromkeys(group for each in sets for group in each.get("groups") or {}) if grouped else [""]
        for group in groups:
            own = [_part(each, group) for each in sets]
            changes = [_part(each, group) for each in changed]
            for metric in dict.fromkeys(key for each in own for key in each if key.startswith("bias/")):
                where = f"{name}, {group}" if group else name
                yield [Cell(_words(metric), where), *(interval_cell(interval(each.get(metric)), 3) for each in own)]
                if any(each.get(metric) for each in changes):
                    cells = [interval_cell(interval(each.get(metric)), 3, signed=True) for each in changes]
                    yield [Cell("change", where), *cells]


def _part(found: Row, group: str) -> Row:
    """The numbers of a set, or of one of its groups."""
    part: Row = (found.get("groups") or {}).get(group) or {} if group else found
    return part


def _words(metric: str) -> str:
    """A metric in words; of a preference or cost model with its name."""
    *_, last = parts = metric.split("/")
    if len(parts) == 2:
        return WORDS.get(metric, metric)
    return f"gap between the terms by {last}, logits" if parts[1] == "gap" else f"first term scores higher, by {last}"
