"""How the pages of runs/ write numbers: intervals, differences, tables."""

from collections.abc import Mapping, Sequence
from typing import Any

NONE = "–"


def interval(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """`0.657 [0.602, 0.710]`; a dash where there is none."""
    if value is None or value.get("mean") is None:
        return NONE
    return f"{value['mean']:.{digits}f} [{plain(value['low'], digits)}, {plain(value['high'], digits)}]"


def signed(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """The same of a difference."""
    if value is None or value.get("mean") is None:
        return NONE
    bounds = (NONE if value[key] is None else f"{value[key]:+.{digits}f}" for key in ("low", "high"))
    return f"{value['mean']:+.{digits}f} [{', '.join(bounds)}]"


def plain(value: float | None, digits: int = 2) -> str:
    """A number; a dash where there is none."""
    return NONE if value is None else f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, and an empty one."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
