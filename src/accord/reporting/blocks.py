"""What a page is made of: sections of notes, figures, tables and samples; and how a number is written.

Everything is plain text until the template escapes it; only what a `Figure` draws is markup, and only figures.py
makes it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from accord.evaluation.statistics import Interval
from accord.reporting.figures import WIDTH
from accord.reporting.runs import RunData

Tone = Literal["", "good", "bad", "unclear"]
NOTHING = "n/a"


@dataclass(frozen=True)
class Cell:
    """A table cell: `note` stands small beside the text, `color` is a series' chip, `tone` a verdict's."""

    text: str
    note: str = ""
    tone: Tone = ""
    color: int | None = None
    numeric: bool = False


@dataclass(frozen=True, eq=False)
class Figure:
    """What a function of figures.py draws of the data; `caption` says what there is to see. Drawing takes most of a
    report's time and may be done in another process: the data is plain."""

    kind: ClassVar[str] = "figure"
    draw: Callable[..., str]
    data: Sequence[Any]
    options: Mapping[str, Any]
    caption: str

    def drawn(self, width: float = WIDTH) -> str:
        """The SVG in a width: WIDTH for a desk's screen and for paper, NARROW for a phone."""
        return self.draw(*self.data, **self.options, width=width)


def figure(draw: Callable[..., str], *data: Any, caption: str, **options: Any) -> Figure:
    return Figure(draw, data, options, caption)


@dataclass(frozen=True)
class Table:
    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Note:
    kind: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Verdicts:
    """Lines of what was shown."""

    kind: ClassVar[str] = "verdicts"
    lines: Sequence[Cell]


@dataclass(frozen=True)
class Tiles:
    """A few large numbers: (value, what it is)."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """One snapshot's reply; `text` is None where the snapshot was not asked."""

    label: str
    color: int
    text: str | None
    scores: Sequence[tuple[str, str]]
    finish: str


@dataclass(frozen=True)
class ShownSample:
    slice: str
    turns: Sequence[tuple[str, str]]
    replies: Sequence[Reply]


@dataclass(frozen=True)
class Samples:
    kind: ClassVar[str] = "samples"
    shown: Sequence[ShownSample]
    more: Sequence[ShownSample]


Block = Figure | Table | Note | Verdicts | Tiles | Samples


@dataclass(frozen=True)
class Source:
    """A file that a section's numbers come from, with the first digits of its SHA-256."""

    file: str
    hash: str
    changed: bool


@dataclass
class Section:
    id: str
    title: str
    lead: str
    blocks: list[Block] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)

    def cite(self, name: str, run: RunData, *files: str) -> None:
        """Say that numbers came from these files of a run, once each."""
        for file in files:
            if file in run.hashes:
                source = Source(f"{name}/{file}", run.hashes[file][:16], file in run.changed)
                if source not in self.sources:
                    self.sources.append(source)


def show(value: float | None, digits: int = 2, *, signed: bool = False) -> str:
    """A number for a reader: a true minus, n/a for what is missing or not finite."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", "−")


def show_interval(value: Interval | None, digits: int = 2, *, signed: bool = False) -> str:
    """`0.42 [0.31, 0.53]`."""
    if value is None:
        return NOTHING
    low, high = show(value.low, digits, signed=signed), show(value.high, digits, signed=signed)
    return f"{show(value.mean, digits, signed=signed)} [{low}, {high}]"


def show_seconds(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 60:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def show_gib(count: Any) -> str:
    """Bytes in GiB; a run of before has none."""
    return f"{count / 2**30:.1f} GiB" if isinstance(count, int) else NOTHING


def numeric(text: str, note: str = "", tone: Tone = "") -> Cell:
    return Cell(text, note, tone, numeric=True)


def interval_cell(value: Interval | None, digits: int = 2, *, signed: bool = False, tone: Tone = "") -> Cell:
    """Mean large, interval and n small; an absent value is n/a."""
    if value is None:
        return numeric(NOTHING)
    low, high = show(value.low, digits, signed=signed), show(value.high, digits, signed=signed)
    return numeric(show(value.mean, digits, signed=signed), f"[{low}, {high}] n {value.n}", tone)


def missing(what: str, values: Sequence[float]) -> list[str]:
    """Says in words which values of a curve are not there to be drawn."""
    gone = sum(not math.isfinite(value) for value in values)
    return [f"{what}: {gone} of {len(values)} values are n/a and leave a gap."] if gone else []
