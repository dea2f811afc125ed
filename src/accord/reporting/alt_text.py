"""What a figure shows, in words, for whoever does not see it: every series with its numbers."""

import math
from collections.abc import Mapping, Sequence

from accord.evaluation.statistics import Interval

MOST = 24  # series told one by one; a table beside the figure has the others


def of_curves(label: str, panels: Sequence[tuple[str, Mapping[str, Sequence[float]]]]) -> str:
    """Of every panel's lines, (title, {line: values}), where each begins and ends."""
    told = []
    for title, lines in panels:
        for line, values in lines.items():
            known = [value for value in values if math.isfinite(value)]
            if known:
                ends = f"{known[0]:.3g}" if len(known) == 1 else f"from {known[0]:.3g} to {known[-1]:.3g}"
                told.append(f"{title}, {line}: {ends}" if title else f"{line}: {ends}")
    return _joined(label, told)


def of_dots(
    label: str, rows: Sequence[str], columns: Sequence[tuple[str, Mapping[str, Sequence[Interval | None]]]]
) -> str:
    """Of every column's series, (title, {series: a value for each row}), the value in each row."""
    told = []
    for title, series in columns:
        for name, values in series.items():
            known = [
                f"{row} {value.mean:.3g}"
                for row, value in zip(rows, values, strict=True)
                if value is not None and math.isfinite(value.mean)
            ]
            if known:
                told.append(f"{title}, {name}: {', '.join(known)}")
    return _joined(label, told)


def of_values(label: str, values: Mapping[str, float]) -> str:
    """Of every name its value."""
    return _joined(label, [f"{name} {value:.3g}" for name, value in values.items() if math.isfinite(value)])


def _joined(label: str, told: Sequence[str]) -> str:
    more = f"; and {len(told) - MOST} more" if len(told) > MOST else ""
    return f"{label}. {'; '.join(told[:MOST]) or 'Nothing to show'}{more}."
