"""Collect: how good the labels are, as a table and as JSON."""

import json
from typing import Any

from accord.disk import write_text
from accord.errors import BadInput
from accord.feedback.store.database import Database
from accord.stages.collect.config import CollectQuality
from accord.stages.collect.transfer import new_file

COLUMNS = ("answers", "seconds", "first", "longer_than_others", "agreement", "checks", "too_fast", "pasted")


def run(config: CollectQuality) -> dict[str, Any]:
    """Print and return the numbers; with --out they are written too."""
    from accord.feedback.store.events import last_event
    from accord.feedback.store.quality import quality

    out = new_file(config.out) if config.out else None
    database = Database(config.database, writes=False)
    try:
        with database.read() as connection:
            newest = last_event(connection)
            if config.until > newest:
                raise BadInput(f"--until {config.until}: {config.database} has {newest} events")
            found: dict[str, Any] = quality(connection, config.until or newest, fused=config.fused)
    finally:
        database.close()
    if not found["people"]:
        raise BadInput(f"{config.database}: nothing was said yet")
    if config.fused and not found["fused"]:
        raise BadInput(f"--fused {config.fused}: no texts were judged by two people under it and under each other one")
    print("\n".join(lines_of(found)))
    if out is not None:
        write_text(out, json.dumps(found, indent=1) + "\n")
    return found


def lines_of(found: dict[str, Any]) -> list[str]:
    """The report as text: criteria, then people."""
    counts = ", ".join(f"{count} {line}" for line, count in sorted(found["answers"].items()))
    lines = [f"answers up to event {found['event']}: {counts}; what follows is of those that are random"]
    for criterion, agreed in found["criteria"].items():
        if agreed:
            said = ", ".join(
                f"{name} {text_of(agreed[name])}" for name in ("raw", "fleiss_kappa", "krippendorff_alpha")
            )
            lines.append(f"{criterion}: {agreed['questions']} questions by two or more, {said}")
        else:
            lines.append(f"{criterion}: no question was answered by two")
    if fused := found.get("fused"):
        alphas = ", ".join(f"{name} {_number(alpha)}" for name, alpha in fused["krippendorff_alpha"].items())
        lines.append(f"Krippendorff's α on the same texts: {alphas}; separate − fused {text_of(fused['difference'])}")
    for number, person in found["people"].items():
        values = ", ".join(f"{name} {text_of(person[name])}" for name in COLUMNS)
        marks = " ".join([*person["flags"], *(["excluded"] if person["excluded"] else [])])
        lines.append(f"person {number}: {values}" + (f" ! {marks}" if marks else ""))
    return lines


def text_of(value: Any) -> str:
    """A number or an interval."""
    if not isinstance(value, dict):
        return _number(value)
    return f"{_number(value['mean'])} [{_number(value['low'])}, {_number(value['high'])}]" if value["n"] else "–"


def _number(value: float | None) -> str:
    return "–" if value is None else str(value) if isinstance(value, int) else f"{value:.2f}"
