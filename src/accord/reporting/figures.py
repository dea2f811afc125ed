"""Figures as SVG text: plain data in, one `<svg>` out, text kept as text, colours left to the page.

Nothing here knows of runs or pages. Colours are drawn as hex codes and handed to the page as CSS variables
with those codes as fallback, so that one figure serves light and dark. pyplot is never touched: a figure
lives as long as the call. What is NaN is a gap; callers say in words how much was missing.
"""

import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from accord.evaluation.statistics import Interval
from accord.reporting import alt_text

# (light, dark); told apart by colour-blind eyes and, through MARKERS, without colour
SERIES = (
    ("#3568c9", "#85abff"),
    ("#d5612a", "#ff9c6b"),
    ("#14917c", "#52d1bb"),
    ("#8d52bd", "#c99cf2"),
    ("#b8860b", "#efc65c"),
    ("#c93d74", "#ff8cb6"),
    ("#5d6f85", "#a7b6c8"),
)
MARKERS = ("o", "s", "D", "^", "v", "P", "X")
INK, MUTED, GRID, PAPER = "#1d2431", "#5b6470", "#e2e5ea", "#fdfdfc"
WIDTH = 7.6  # inches; SVG units are points, 72 to the inch
NARROW = 3.9  # the same for a phone: panels stand below each other, and letters stay as large
CHARACTER = 4.9  # points that a letter of the legend takes, on average
HANDLE = 28.0  # and its mark
LEGEND_ROW = 0.19  # inches
# where the name of a point may stand, in points from it: (right, up, alignment)
PLACES = ((7, 6, "left"), (7, -13, "left"), (-7, 6, "right"), (-7, -13, "right"), (0, 14, "center"), (0, -21, "center"))

_CSS = {INK: "currentColor"}
_CSS |= {color: f"var(--{name}, {color})" for name, color in (("muted", MUTED), ("grid", GRID), ("paper", PAPER))}
_CSS |= {light: f"var(--s{index}, {light})" for index, (light, _) in enumerate(SERIES)}

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # names hold dollar signs; they are no formulas
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.titley": 1.0,  # "automatic" would measure every tick once more; no axis here has any at its top
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.3,
    "legend.columnspacing": 1.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "accord",  # the same bytes in every run
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


class Line(NamedTuple):
    """A curve; `color` is an index into SERIES. `points` marks every value, and `joined` draws the line."""

    label: str
    color: int
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    points: bool = False
    joined: bool = True


class Panel(NamedTuple):
    """One pair of axes. `level` draws a horizontal line with its name, such as a limit."""

    title: str
    xlabel: str
    ylabel: str
    lines: Sequence[Line]
    level: float | None = None
    level_label: str = ""
    from_zero: bool = False


class Dots(NamedTuple):
    """One value with bounds per row; None where there is none."""

    label: str
    color: int
    values: Sequence[Interval | None]


class Column(NamedTuple):
    """One panel of a dot plot. `level` draws a vertical line."""

    title: str
    xlabel: str
    series: Sequence[Dots]
    level: float | None = None


class Point(NamedTuple):
    label: str
    color: int
    x: Interval
    y: Interval


class Reliability(NamedTuple):
    """Bins of one model: (confidence, accuracy, low, high, n)."""

    label: str
    color: int
    bins: Sequence[tuple[float, float, float, float, int]]


@dataclass(frozen=True)
class _Canvas:
    figure: Any
    axes: Any


def css_variables(dark: bool) -> str:
    """The declarations that the figures' colours refer to."""
    return " ".join(f"--s{index}: {pair[dark]};" for index, pair in enumerate(SERIES))


def curves(
    panels: Sequence[Panel], *, columns: int = 2, label: str = "curves", height: float = 2.15, width: float = WIDTH
) -> str:
    """Panels of curves in a grid, one legend for all of them."""
    columns = min(columns if width >= WIDTH else 1, len(panels))
    rows = math.ceil(len(panels) / columns)
    with _styled():
        canvas = _canvas(rows, columns, width, rows * height + 0.35)
        for axis in canvas.axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(canvas.axes.flat, panels, strict=False):
            _titles(axis, panel.title, panel.xlabel, panel.ylabel)
            for line in panel.lines:
                axis.plot(
                    line.x,
                    line.y,
                    color=SERIES[line.color % len(SERIES)][0],
                    linestyle=("--" if line.dashed else "-") if line.joined else "none",
                    marker=MARKERS[line.color % len(MARKERS)] if line.points or _lonely(line.y) else None,
                    markeredgecolor=PAPER,
                    markeredgewidth=0.6,
                    label=line.label,
                )
            if panel.level is not None:
                _level(axis, panel.level, panel.level_label, vertical=False)
            if panel.from_zero:
                axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
            axis.margins(x=0.02)
            if all(math.isfinite(x) and x == int(x) for line in panel.lines for x in line.x):
                axis.xaxis.get_major_locator().set_params(integer=True)
        _legend(canvas)
        said = [(panel.title or panel.ylabel, {line.label: line.y for line in panel.lines}) for panel in panels]
        return _svg(canvas, alt_text.of_curves(label, said))


def dots(
    rows: Sequence[str], columns: Sequence[Column], *, label: str = "values with intervals", width: float = WIDTH
) -> str:
    """A dot plot: rows down the side, a panel per quantity, one dot with its interval per series."""
    count = max((len(column.series) for column in columns), default=1)
    height = 0.95 + len(rows) * (0.13 * count + 0.16)
    grid = (1, len(columns)) if width >= WIDTH else (len(columns), 1)
    with _styled():
        canvas = _canvas(*grid, width, grid[0] * height, sharey=True)
        for axis, column in zip(canvas.axes.flat, columns, strict=True):
            _titles(axis, column.title, column.xlabel, "")
            for place, series in enumerate(column.series):
                shift = (place - (len(column.series) - 1) / 2) * min(0.19, 0.72 / max(count, 1))
                pairs = [(y + shift, value) for y, value in enumerate(series.values) if value is not None]
                known = [(y, value) for y, value in pairs if math.isfinite(value.mean)]
                color = SERIES[series.color % len(SERIES)][0]
                bounds = [(y, v) for y, v in known if math.isfinite(v.low) and math.isfinite(v.high)]
                axis.hlines(
                    [y for y, _ in bounds], [v.low for _, v in bounds], [v.high for _, v in bounds], color=color, lw=1.7
                )
                axis.plot(
                    [v.mean for _, v in known],
                    [y for y, _ in known],
                    linestyle="none",
                    marker=MARKERS[series.color % len(MARKERS)],
                    markersize=5,
                    color=color,
                    markeredgecolor=PAPER,
                    markeredgewidth=0.7,
                    label=series.label,
                )
            if column.level is not None:
                _level(axis, column.level, "", vertical=True)
            axis.set_yticks(range(len(rows)), list(rows))
            axis.set_ylim(len(rows) - 0.5, -0.5)
            axis.grid(axis="y", visible=False)
            for between in range(1, len(rows)):
                axis.axhline(between - 0.5, color=GRID, lw=0.5)
            axis.spines["left"].set_visible(False)
        _legend(canvas)
        said = [(column.title or column.xlabel, {s.label: s.values for s in column.series}) for column in columns]
        return _svg(canvas, alt_text.of_dots(label, rows, said))


def reliability(models: Sequence[Reliability], *, label: str = "reliability", width: float = WIDTH) -> str:
    """Accuracy against confidence with Wilson bounds, the diagonal of a calibrated model, and how many per bin."""
    with _styled():
        if width >= WIDTH:
            canvas = _canvas(1, 2, width, 3.1, width_ratios=(1.5, 1))
        else:
            canvas = _canvas(2, 1, width, 5.2, height_ratios=(1.5, 1))
        left, right = canvas.axes.flat
        _titles(left, "Does 80 % mean 80 %?", "confidence of the preference model", "share of pairs it got right")
        _titles(right, "How many pairs", "confidence of the preference model", "pairs per bin")
        left.plot([0, 1], [0, 1], color=MUTED, lw=1, linestyle=(0, (4, 3)), zorder=1)
        lowest = 0.5
        for model in models:
            color, marker = SERIES[model.color % len(SERIES)][0], MARKERS[model.color % len(MARKERS)]
            bins = [b for b in model.bins if math.isfinite(b[0]) and math.isfinite(b[1])]
            x, y = [b[0] for b in bins], [b[1] for b in bins]
            lowest = min([lowest, *x, *(b[2] for b in bins if math.isfinite(b[2])), *y])
            left.vlines(x, [b[2] for b in bins], [b[3] for b in bins], color=color, lw=1.2, alpha=0.6)
            left.plot(x, y, color=color, marker=marker, markersize=5, markeredgecolor=PAPER, label=model.label)
            right.plot(x, [b[4] for b in bins], color=color, marker=marker, linestyle=":", lw=1, markersize=4)
        left.set_xlim(min(lowest, 0.5) - 0.02, 1.02)
        left.set_ylim(min(lowest, 0.5) - 0.02, 1.02)
        right.set_ylim(bottom=0)
        _legend(canvas)
        said = {model.label: [b[1] for b in model.bins] for model in models}
        return _svg(canvas, alt_text.of_curves(label, [("share right from the least to the most confident", said)]))


def plane(
    points: Sequence[Point],
    xlabel: str,
    ylabel: str,
    *,
    level: float | None = None,
    level_label: str = "",
    width: float = WIDTH,
) -> str:
    """Points with interval crosses, each with its name; `level` draws a horizontal line."""
    with _styled():
        canvas = _canvas(1, 1, width, 3.5)
        axis = canvas.axes.flat[0]
        _titles(axis, "", xlabel, ylabel)
        known = [p for p in points if math.isfinite(p.x.mean) and math.isfinite(p.y.mean)]
        if level is not None:
            _level(axis, level, level_label, vertical=False)
        for point in known:
            color = SERIES[point.color % len(SERIES)][0]
            if math.isfinite(point.x.low) and math.isfinite(point.x.high):
                axis.hlines(point.y.mean, point.x.low, point.x.high, color=color, lw=1.6)
            if math.isfinite(point.y.low) and math.isfinite(point.y.high):
                axis.vlines(point.x.mean, point.y.low, point.y.high, color=color, lw=1.6)
            axis.plot(
                [point.x.mean],
                [point.y.mean],
                linestyle="none",
                marker=MARKERS[point.color % len(MARKERS)],
                markersize=7,
                color=color,
                markeredgecolor=PAPER,
                label=point.label,
            )
        axis.margins(0.16)
        _name_points(canvas, axis, known, level)
        said = [f"{point.label} {point.x.mean:.2f}, {point.y.mean:.2f}" for point in known]
        return _svg(canvas, f"{xlabel} (across) and {ylabel} (up). {'; '.join(said) or 'No points'}.")


def bars(
    labels: Sequence[str], values: Sequence[float], xlabel: str, *, colors: Sequence[int] = (), width: float = WIDTH
) -> str:
    """Horizontal bars with their values written at the end."""
    with _styled():
        canvas = _canvas(1, 1, width, 0.55 + 0.25 * len(labels))
        axis = canvas.axes.flat[0]
        _titles(axis, "", xlabel, "")
        shades = [SERIES[(colors[i] if i < len(colors) else 0) % len(SERIES)][0] for i in range(len(labels))]
        known = [value if math.isfinite(value) else 0.0 for value in values]
        axis.barh(range(len(labels)), known, color=shades, height=0.62)
        for place, value in enumerate(values):
            text = f"{value:,.0f}" if math.isfinite(value) else "n/a"
            axis.annotate(text, (known[place], place), xytext=(4, 0), textcoords="offset points", va="center")
        axis.set_yticks(range(len(labels)), list(labels))
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        axis.margins(x=0.12)
        axis.set_xlim(left=0)
        return _svg(canvas, alt_text.of_values(xlabel, dict(zip(labels, values, strict=True))))


def warm() -> None:
    """Import what drawing takes, which is a good part of a second."""
    _canvas(1, 1, WIDTH, WIDTH)


def _styled() -> Any:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _canvas(rows: int, columns: int, width: float, height: float, **options: Any) -> _Canvas:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasSVG(figure)
    return _Canvas(figure, figure.subplots(rows, columns, squeeze=False, **options))


def _titles(axis: Any, title: str, xlabel: str, ylabel: str) -> None:
    axis.set_title(title)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)


def _lonely(values: Sequence[float]) -> bool:
    """Whether a line would show nothing: fewer than two neighbouring finite points."""
    known = [math.isfinite(value) for value in values]
    return not any(a and b for a, b in pairwise(known))


def _level(axis: Any, at: float, label: str, *, vertical: bool) -> None:
    draw = axis.axvline if vertical else axis.axhline
    draw(at, color=INK, lw=0.9, linestyle=(0, (5, 3)), zorder=1.5)
    if label:
        axis.annotate(
            label,
            (1, at),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            fontsize=7.5,
            color=MUTED,
        )


def _name_points(canvas: _Canvas, axis: Any, points: Sequence[Point], level: float | None) -> None:
    """Write the name of every point beside it, where it meets no other text, no other point and not the level."""
    canvas.figure.draw_without_rendering()
    inside = axis.get_window_extent()
    line = math.nan if level is None else axis.transData.transform((0, level))[1]
    taken = [text.get_window_extent() for text in axis.texts]
    marks = axis.transData.transform([(point.x.mean, point.y.mean) for point in points])
    for point in points:
        tried = []
        for right, up, side in PLACES:
            text = axis.annotate(
                point.label,
                (point.x.mean, point.y.mean),
                xytext=(right, up),
                textcoords="offset points",
                ha=side,
                fontsize=8.5,
            )
            text.set_in_layout(False)
            box = text.get_window_extent()
            faults = box.count_overlaps(taken) + sum(box.contains(*mark) for mark in marks)
            faults += (box.x0 < inside.x0 or box.x1 > inside.x1) + (box.y0 < line < box.y1)
            tried.append((faults, text, box))
        best = min(tried, key=lambda one: one[0])
        for _, text, _ in tried:
            if text is not best[1]:
                text.remove()
        taken.append(best[2])


def _legend(canvas: _Canvas) -> None:
    found: dict[str, Any] = {}
    for axis in canvas.axes.flat:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if len(found) > 1:
        each = HANDLE + CHARACTER * max(map(len, found))
        columns = max(1, min(len(found), 5, int(72 * canvas.figure.get_figwidth() / each)))
        more = math.ceil(len(found) / columns) - 1  # rows, which the panels would pay for else, down to nothing
        canvas.figure.set_figheight(canvas.figure.get_figheight() + more * LEGEND_ROW)
        canvas.figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns, borderaxespad=0)


def _svg(canvas: _Canvas, label: str) -> str:
    # laid out here: `savefig` would draw the whole figure once more to have it done
    canvas.figure.get_layout_engine().execute(canvas.figure)
    canvas.figure.set_layout_engine("none")
    stream = io.StringIO()
    canvas.figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    for color, variable in _CSS.items():
        text = text.replace(color, variable)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)  # the page's font
    # several figures share a page: ids must differ, and be the same in every run
    salt = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'\bid="', f'id="f{salt}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>f{salt}-", text)
    head = f'<svg role="img" aria-label="{_attribute(label)}" '
    return text.replace("<svg ", head, 1).strip()


def _attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
