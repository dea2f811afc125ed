"""Preference and cost models: accuracy by subset, beside what is easy and what is true, and calibration."""

import math
from typing import Any

from accord.evaluation.statistics import Interval, wilson
from accord.reporting import figures
from accord.reporting.blocks import (
    NOTHING,
    Cell,
    Note,
    Section,
    Table,
    Tone,
    figure,
    interval_cell,
    numeric,
    show,
)
from accord.reporting.context import Context
from accord.reporting.runs import RunData, interval, number


def preference_section(context: Context) -> Section | None:
    """Reliability curve and accuracy by subset, beside what length alone would get."""
    section = Section(
        "preference",
        "Preference and cost models",
        "How often each model puts a held-out pair into the labeler's order, and whether its probabilities mean what "
        "they say: of the pairs it is 80 % sure of, 80 % should be right. ECE is the mean gap between the two.",
    )
    models, rows = [], []
    for color, (label, run, value) in enumerate(_calibrated(context)):
        bins = [_bin(b) for b in value.get("bins") or [] if isinstance(b, dict)]
        if bins:
            models.append(figures.Reliability(label, color, bins))
        for row in value.get("rows") or []:
            n = row.get("n")
            accuracy, baseline = interval(row.get("accuracy")), interval(row.get("length_baseline"))
            prefers = str(row.get("length_baseline_prefers") or "")
            rows.append(
                [
                    Cell(label, color=color),
                    Cell(str(row.get("subset"))),
                    numeric(str(n) if n is not None else NOTHING),
                    interval_cell(accuracy),
                    interval_cell(baseline),
                    numeric(show(number(row.get("ece")), 3)),
                    numeric(show(number(row.get("tie_rate")))),
                ]
            )
            if prefers:
                rows[-1][4] = numeric(rows[-1][4].text, f"{rows[-1][4].note} {prefers}")
        if not value.get("rows"):
            rows.append(
                [
                    Cell(label, color=color),
                    Cell("all"),
                    numeric(str(sum(b[4] for b in bins))),
                    numeric(show(number(value.get("accuracy")))),
                    numeric(NOTHING),
                    numeric(show(number(value.get("ece")), 3)),
                    numeric(show(number(value.get("tie_rate")))),
                ]
            )
        section.cite(context.name(run), run, "evaluation.json")
    if not rows:
        return None
    if models:
        caption = (
            "The dashed line is a calibrated model, and below it a model is surer than it is right. Bars are 95 % "
            "Wilson intervals; bins hold equal numbers of pairs."
        )
        section.blocks.append(figure(figures.reliability, models, label="Reliability", caption=caption))
    head = ["model", "subset", "pairs", "accuracy", "length alone", "ECE", "ties"]
    section.blocks.append(
        Table(head, rows, "Ties count half. “Length alone” always prefers the longer (or shorter) reply.")
    )
    if beside := [row for label, _, value in _calibrated(context) for row in _beside_the_easy(label, value)]:
        head = [
            "model",
            "subset",
            "over length",
            "bag of words",
            "over it",
            "labels against gold",
            "model against gold",
        ]
        caption = (
            "“Over” is the difference pair by pair. The bag of words learned from the same comparisons. Where gold is "
            "known: how often the labels have its order (equal worth counts half), which no model can be asked to "
            "pass, and how often the model has it where two replies differ in worth."
        )
        section.blocks.append(Table(head, beside, caption))
    for run in context.runs:
        if fit := run.evaluation.get("safety_calibration"):
            section.blocks.append(Note(_safety(context.name(run), fit)))
    return section


def _beside_the_easy(label: str, value: dict[str, Any]) -> list[list[Cell]]:
    """Rows of a model beside length, words and gold: of all pairs and of each subset."""
    rows = []
    for row in value.get("rows") or []:
        over_length, over_words = interval(row.get("over_length")), interval(row.get("over_bag_of_words"))
        if over_length is None and over_words is None:
            continue
        rows.append(
            [
                Cell(label),
                Cell(str(row.get("subset"))),
                interval_cell(over_length, signed=True, tone=_tone_above(over_length)),
                interval_cell(interval(row.get("bag_of_words"))),
                interval_cell(over_words, signed=True, tone=_tone_above(over_words)),
                interval_cell(interval(row.get("gold_ceiling"))),
                interval_cell(interval(row.get("gold_accuracy"))),
            ]
        )
    return rows


def _tone_above(difference: Interval | None) -> Tone:
    """Good where the whole interval is above 0."""
    side = difference.side_of(0.0) if difference else "undecided"
    return "good" if side == "above" else "bad" if side == "below" else "unclear"


def _safety(name: str, fit: dict[str, Any]) -> str:
    """How σ(cost) became a share, in a sentence."""
    found = {key: number(value) for key, value in fit.items()}
    flips = f", {found['flips']:.0%} of them known to be wrong" if found.get("flips") else ""
    return (
        f"σ(cost) of {name} on {fit.get('n')} held-out safety labels{flips}: temperature {show(found['temperature'])} "
        f"(relative error {found['relative_error']:.0%}), ECE {show(found['ece_before'], 3)} before and "
        f"{show(found['ece'], 3)} after."
    )


def _calibrated(context: Context) -> list[tuple[str, RunData, dict[str, Any]]]:
    found: list[tuple[str, RunData, dict[str, Any]]] = []
    for run in context.runs:
        if run.evaluation.get("rows") or run.evaluation.get("bins"):
            role = str(run.evaluation.get("role") or "")
            found.append((f"{context.name(run)} ({role})" if role else context.name(run), run, run.evaluation))
        for name, value in (run.evaluation.get("calibration") or {}).items():
            if isinstance(value, dict):
                found.append((f"{name}, {context.name(run)}", run, value))
    return found


def _bin(value: dict[str, Any]) -> tuple[float, float, float, float, int]:
    n = value.get("n") if isinstance(value.get("n"), int) else 0
    confidence, accuracy = number(value.get("confidence")), number(value.get("accuracy"))
    low, high = number(value.get("low")), number(value.get("high"))
    if n and math.isfinite(accuracy) and not math.isfinite(low):
        bounds = wilson(min(max(accuracy, 0.0), 1.0) * n, n)
        low, high = bounds.low, bounds.high
    return confidence, accuracy, low, high, n or 0
