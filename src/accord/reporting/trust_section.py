"""How far preference models can be trusted: the cross table, calibration, where they are wrong, who agrees."""

from collections.abc import Mapping, Sequence
from typing import Any

from accord.reporting import figures
from accord.reporting.blocks import (
    Block,
    Cell,
    Section,
    Table,
    Tone,
    figure,
    interval_cell,
    numeric,
    show,
    show_interval,
)
from accord.reporting.context import Context
from accord.reporting.runs import interval, number

STAGE = "evaluate-preference"
SHOWN = 300  # characters of a prompt or reply in the table of errors
CALIBRATION = {
    "ece": "ECE, equal mass",
    "ece_width": "ECE, equal width",
    "brier": "Brier score",
    "log_loss": "−log likelihood, nats",
    "slope": "reliability slope",
    "elo_per_point": "Elo per score point",
}
TONES: dict[str, Tone] = {"above": "good", "below": "bad", "undecided": "unclear"}  # of a difference from 0
AGREEMENT = {"raw": "raw", "fleiss_kappa": "Fleiss κ", "krippendorff_alpha": "Krippendorff α"}


def trust_section(context: Context) -> Section | None:
    """What `accord evaluate preference` found; absent where it was not run."""
    runs = context.stage(STAGE)
    if not runs:
        return None
    section = Section(
        "trust",
        "How far to trust the preference models",
        "Every model on every criterion's comparisons, beside the length of the replies and the words in them; "
        "calibration before and after a temperature that was fitted on the other half of the prompts; where each model "
        "is right, and the pairs it is most sure of and wrong about.",
    )
    for run in runs:
        found = run.evaluation
        section.blocks += [
            block
            for block in (
                cross_table(found.get("cross") or []),
                *(paired_table(criterion, rows) for criterion, rows in (found.get("paired") or {}).items()),
                calibration_table(found.get("calibration") or {}),
                curve_figure(found.get("calibration") or {}),
                *(breakdown_table(name, value) for name, value in (found.get("analysis") or {}).items()),
                length_table(found.get("analysis") or {}),
                *(groups_table(name, value) for name, value in (found.get("groups") or {}).items()),
                agreement_table(found.get("agreement") or {}),
                distance_table(found.get("distance") or {}),
                *(errors_table(name, value) for name, value in (found.get("analysis") or {}).items()),
            )
            if block is not None
        ]
        section.cite(context.name(run), run, "evaluation.json")
    return section


def cross_table(rows: Sequence[Mapping[str, Any]]) -> Block | None:
    criteria = list(dict.fromkeys(str(row.get("criterion")) for row in rows))
    by_model: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_model.setdefault(str(row.get("model")), {})[str(row.get("criterion"))] = row
    if not by_model:
        return None
    body = [
        [Cell(model), *(interval_cell(interval(found.get(c, {}).get("accuracy"))) for c in criteria)]
        for model, found in by_model.items()
    ]
    caption = "Accuracy on the comparisons of each criterion; ties in score count half."
    return Table(["model", *criteria], body, caption)


def paired_table(criterion: str, rows: Sequence[Mapping[str, Any]]) -> Block | None:
    """Who is better than whom; a difference whose interval holds 0 is not decided."""
    body = []
    for row in rows:
        found = interval(row.get("difference"))
        tone: Tone = TONES[found.side_of(0.0)] if found else ""
        names = [Cell(str(row.get("model"))), Cell(str(row.get("less")))]
        body.append([*names, interval_cell(found, 3, signed=True, tone=tone), numeric(str(row.get("n")))])
    if not body:
        return None
    caption = f"Accuracy on {criterion} less that of another, pair by pair on the same comparisons."
    return Table(["model", "less", "difference", "pairs"], body, caption)


def calibration_table(found: Mapping[str, Mapping[str, Any]]) -> Block | None:
    body = []
    for name, value in found.items():
        before, after = value.get("intervals") or {}, value.get("refitted") or {}
        for metric, title in CALIBRATION.items():
            cells = [interval_cell(interval(part.get(metric)), 3) for part in (before, after)]
            body.append([Cell(name), Cell(title), *cells])
    if not body:
        return None
    head = ["model", "measure", "as trained", "with a refitted temperature"]
    return Table(head, body, "A calibrated model has slope 1 and 174 Elo per point. An ECE is never below 0.")


def curve_figure(found: Mapping[str, Mapping[str, Any]]) -> Block | None:
    """Accuracy against |score difference|, and what σ says it should be."""
    panels = []
    for name, value in found.items():
        points = value.get("curve") or []
        if len(points) > 1:
            x = [number(p.get("difference")) for p in points]
            lines = [
                figures.Line("accuracy", 0, x, [number(p.get("accuracy")) for p in points], points=True),
                figures.Line("σ(difference)", 1, x, [number(p.get("expected")) for p in points], dashed=True),
            ]
            panels.append(figures.Panel(name, "|score difference| (logits)", "accuracy", lines))
    if not panels:
        return None
    caption = (
        "How often the model is right, by how far apart it scores two replies. Below the dashed line it is surer than "
        "it is right. Bins hold equal numbers of pairs."
    )
    return figure(figures.curves, panels, label="Accuracy against score difference", caption=caption)


def breakdown_table(name: str, value: Mapping[str, Any]) -> Block | None:
    rows = [
        [
            Cell(str(row.get("by"))),
            Cell(str(row.get("group"))),
            interval_cell(interval(row.get("accuracy"))),
            numeric(show(number(row.get("margin")))),
        ]
        for row in value.get("breakdown") or []
    ]
    if not rows:
        return None
    return Table(["by", "group", "accuracy", "mean margin"], rows, f"Accuracy of {name}, by what a pair is like.", True)


def length_table(found: Mapping[str, Mapping[str, Any]]) -> Block | None:
    rows = []
    for name, value in found.items():
        bias = value.get("length") or {}
        takes = bias.get("prefers_longer") or {}
        rows.append(
            [
                Cell(name),
                numeric(show(number(bias.get("correlation")))),
                interval_cell(interval(bias.get("better_is_longer"))),
                interval_cell(interval(bias.get("better_is_shorter"))),
                interval_cell(interval(takes.get("model"))),
                interval_cell(interval(takes.get("labeler"))),
                interval_cell(interval(bias.get("partial"))),
            ]
        )
    if not rows:
        return None
    head = [
        "model",
        "correlation",
        "better is longer",
        "better is shorter",
        "takes the longer",
        "labelers do",
        "partial",
    ]
    caption = (
        "Length bias: correlation of score and characters; accuracy where the better reply is the longer, and the "
        "shorter; how often the model and the labelers take the longer; accuracy with what length explains taken out."
    )
    return Table(head, rows, caption)


def groups_table(name: str, value: Mapping[str, Any]) -> Block | None:
    """Whose values: heads that order pairs differently, and the weights by which groups answer."""
    rows = [
        [
            Cell(" and ".join(map(str, row.get("heads") or []))),
            interval_cell(interval(row.get("opposed"))),
            numeric(show(number(row.get("correlation")))),
        ]
        for row in value.get("heads") or []
    ]
    for group, weights in (value.get("values") or {}).items():
        told = "; ".join(f"{head} {show_interval(interval(w), signed=True)}" for head, w in weights.items())
        rows.append([Cell(f"answers of {group} follow"), Cell(told), Cell("")])
    if not rows:
        return None
    caption = (
        f"Heads on {name}: share of pairs ordered differently; weights in logits per deviation of a head's margin."
    )
    return Table(["heads", "opposed, or weights", "correlation"], rows, caption)


def agreement_table(found: Mapping[str, Mapping[str, Any]], of: str = "criterion") -> Block | None:
    rows = []
    for criterion, value in found.items():
        if value:
            cells = [interval_cell(interval(value.get(measure))) for measure in AGREEMENT]
            kappas = "; ".join(f"{pair} {show(number(k))}" for pair, k in (value.get("cohen_kappa") or {}).items())
            rows.append([Cell(criterion), numeric(str(value.get("labelers"))), *cells, Cell(kappas)])
    if not rows:
        return None
    head = [of, "labelers", *AGREEMENT.values(), "Cohen κ"]
    return Table(head, rows, "Agreement of labelers who were asked about the same replies (Krippendorff α: nominal).")


def distance_table(found: Mapping[str, Mapping[str, Any]]) -> Block | None:
    rows = [
        [Cell(name), Cell(show_interval(interval(value.get("auroc"))))]
        for name, value in found.items()
        if isinstance(value, Mapping)
    ]
    if not rows:
        return None
    caption = "Relative Mahalanobis distance on last hidden states: how well it tells strange texts from measured ones."
    return Table(["model", "AUROC"], rows, caption)


def errors_table(name: str, value: Mapping[str, Any]) -> Block | None:
    rows = [
        [
            numeric(show(number(error.get("margin")))),
            Cell(_short(error.get("prompt"))),
            Cell(_short(error.get("preferred_by_labeler"))),
            Cell(_short(error.get("preferred_by_model"))),
            Cell(str(error.get("source") or ""), str(error.get("labeler") or "")),
        ]
        for error in value.get("errors") or []
    ]
    if not rows:
        return None
    head = ["margin", "prompt, last turn", "the labeler's choice", "the model's", "source"]
    return Table(head, rows, f"Most confident errors of {name}.", True)


def _short(text: object) -> str:
    whole = " ".join(str(text or "").split())
    return whole if len(whole) <= SHOWN else whole[: SHOWN - 1] + "…"
