"""What a source holds, read once: the pure half of `accord data SOURCE`."""

from collections import Counter
from dataclasses import dataclass, field

from accord.data.conversations import Dropped
from accord.data.formats import Row
from accord.data.parse import Reader, check_id, make_records
from accord.data.parts import Kind, Parts
from accord.data.rows import Record
from accord.data.shapes import SHAPES
from accord.records import SPLITS, Comparison, Document, Judgement, Prompt, unit_hash


@dataclass(frozen=True)
class Summary:
    """What a source holds. `counts` and `drops` go by kind of record; word lengths are (0, 25, 50, 75, 100 %)
    quantiles; `splits` and `slices` count prompts (one a row), `openings` their different first turns, `notes` rows in
    which something was seen that does no harm; `kind` is the one that says most, `example`
    its first record; None where there is none."""

    source: str
    shape: str
    columns: list[str]
    rows: int
    counts: dict[str, int]
    drops: dict[str, dict[str, int]]
    criteria: dict[str, int]
    prompt_words: tuple[int, ...]
    reply_words: tuple[int, ...]
    text_words: tuple[int, ...]
    slices: dict[str, int]
    splits: dict[str, int]
    openings: int
    notes: dict[str, int]
    duplicates: dict[str, int]
    kind: Kind | None
    example: Record | None


@dataclass
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    criteria: Counter[str] = field(default_factory=Counter)
    slices: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    openings: set[float] = field(default_factory=set)
    drops: dict[str, Counter[str]] = field(default_factory=dict)
    seen: set[tuple[str, str]] = field(default_factory=set)
    words: dict[str, list[int]] = field(default_factory=lambda: {"prompt": [], "reply": [], "text": []})
    examples: dict[str, Record] = field(default_factory=dict)

    def add(self, kind: Kind, record: Record) -> None:
        self.counts[kind] += 1
        self.duplicates[kind] += (kind, record.id) in self.seen
        self.seen.add((kind, record.id))
        self.examples.setdefault(kind, record)
        if isinstance(record, Document):
            self.words["text"].append(_words(record.text))
        elif isinstance(record, Prompt):
            self.words["prompt"].append(sum(_words(turn.content) for turn in record.turns))
            self.slices[record.slice] += 1
            self.splits[record.split] += 1
            self.openings.add(unit_hash(record.opening))
        elif isinstance(record, Comparison | Judgement) and kind != "battle":
            self.criteria[record.criterion or "(as asked)"] += 1
            if isinstance(record, Comparison):
                self.notes["both bad" if record.all_bad else "tie"] += record.all_bad or len(set(record.ranks)) == 1


def inspect_source(source: str, how: Reader | None = None, kind: Kind | None = None) -> Summary:
    """Read a source once and count what each kind of record would get from it; none left is not an error."""
    tally = _Tally()
    shapes: dict[str, None] = {}
    names: dict[str, None] = {}
    rows = 0
    for row, shape, parts in (how or Reader()).rows(source, kind):
        rows += 1
        shapes[shape] = None
        names.update(dict.fromkeys(row.value))
        _inspect_row(tally, row, shape, parts)
    telling = next((kind for kind in _MOST_TELLING if kind in tally.examples), None)
    return Summary(
        source=source,
        shape=", ".join(shapes),
        columns=list(names),
        rows=rows,
        counts=dict(tally.counts),
        drops={kind: dict(reasons) for kind, reasons in tally.drops.items()},
        criteria=dict(tally.criteria),
        prompt_words=quantiles(tally.words["prompt"]),
        reply_words=quantiles(tally.words["reply"]),
        text_words=quantiles(tally.words["text"]),
        slices=dict(sorted(tally.slices.items())),
        splits={name: tally.splits[name] for name in SPLITS if tally.splits},
        openings=len(tally.openings),
        notes={note: count for note, count in tally.notes.items() if count},
        duplicates={kind: count for kind, count in tally.duplicates.items() if count},
        kind=telling,
        example=tally.examples[telling] if telling else None,
    )


# reasons that say what a row is, and not what is wrong with it
OTHER_KIND = ("other kind of record", "no snapshot named")
_MOST_TELLING: tuple[Kind, ...] = ("comparison", "judgement", "demonstration", "prompt", "document")


def _inspect_row(tally: _Tally, row: Row, shape: str, parts: Parts | str) -> None:
    kinds = SHAPES[shape].gives
    if isinstance(parts, str):
        for kind in kinds:
            tally.drops.setdefault(kind, Counter())[parts] += 1
        return
    tally.notes.update(parts.notes)
    tally.words["reply"] += [_words(reply) for reply in parts.replies]
    for kind in kinds:
        try:
            made = make_records(kind, parts)
        except Dropped as reason:
            if str(reason) not in OTHER_KIND:
                tally.drops.setdefault(kind, Counter())[str(reason)] += 1
            continue
        for record in made:
            check_id(parts, kind, record.id, row)
            tally.add(kind, record)


def _words(text: str) -> int:
    return len(text.split())


def quantiles(values: list[int]) -> tuple[int, ...]:
    """The 0, 25, 50, 75 and 100 % quantiles, each a value that occurs; empty for no values."""
    ordered = sorted(values)
    return tuple(ordered[round(share * (len(ordered) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)) if ordered else ()
