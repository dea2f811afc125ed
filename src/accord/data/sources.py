"""Sources of records: what `--data SOURCE` may name, read into records, with everything that was dropped counted.

A reader takes every shape that its record can be derived from: prompts from comparisons, demonstrations from the
chosen side. Bad lines are refused (`BadInput`); rows that are of no use are dropped and counted by reason.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar, cast

from accord.data.files import Row, read_rows
from accord.data.shapes import RECORD_KINDS, SHAPES, Dropped, Kind, Parts, Turns, parse_row, recognise
from accord.data.stored import Record
from accord.errors import BadInput
from accord.records import SPLITS, Comparison, Demonstration, Document, Judgement, Prompt, unit_hash

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Loaded(Generic[R]):
    """Records of one kind, in the order of their rows.

    `rows` were read; `drops` says how many of them gave no record, by reason; a row may give several records.
    `duplicates` are records whose id an earlier one has: they are kept, and counted. `shape` names the shape of
    the columns and `source` is the source as it was asked for.
    """

    records: list[R]
    drops: dict[str, int]
    rows: int
    shape: str
    source: str
    duplicates: int = 0


def read_documents(
    source: str, *, columns: Mapping[str, str] | None = None, max_rows: int = 0
) -> Loaded[Document]:
    """Plain text to pretrain on: text files (a document each, or pieces between <|endoftext|>), or a column `text`."""
    return cast(Loaded[Document], _load("document", source, columns, max_rows, "", ""))


def read_prompts(
    source: str, *, columns: Mapping[str, str] | None = None, max_rows: int = 0, slice: str = ""
) -> Loaded[Prompt]:
    """Prompts of any shape that has them; of a text file, each line that is not blank. `slice` names the slice of
    rows that carry none. Raises BadInput, as all readers do."""
    return cast(Loaded[Prompt], _load("prompt", source, columns, max_rows, slice, ""))


def read_demonstrations(
    source: str, *, columns: Mapping[str, str] | None = None, max_rows: int = 0, slice: str = ""
) -> Loaded[Demonstration]:
    """Prompts with an ideal reply: the completion, the last assistant turn, the chosen, safe or single best reply."""
    return cast(Loaded[Demonstration], _load("demonstration", source, columns, max_rows, slice, ""))


def read_comparisons(
    source: str,
    criterion: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int = 0,
    slice: str = "",
) -> Loaded[Comparison]:
    """Comparisons under `criterion`. Files that name no criterion are read as being about the one asked for;
    SafeRLHF columns hold `helpful` and `harmless`, Accord's own records whatever they name."""
    return cast(Loaded[Comparison], _load("comparison", source, columns, max_rows, slice, criterion))


def read_judgements(
    source: str,
    criterion: str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rows: int = 0,
    slice: str = "",
) -> Loaded[Judgement]:
    """Judgements of single replies under `criterion`: `label` gives kind good, `is_safe` and its like safe, `rating` rating."""
    return cast(Loaded[Judgement], _load("judgement", source, columns, max_rows, slice, criterion))


READERS: dict[Kind, Callable[..., Loaded]] = {
    "document": read_documents,
    "prompt": read_prompts,
    "demonstration": read_demonstrations,
    "comparison": read_comparisons,
    "judgement": read_judgements,
}


def _load(
    kind: Kind, source: str, columns: Mapping[str, str] | None, max_rows: int, slice: str, criterion: str
) -> Loaded[Record]:
    if kind in ("comparison", "judgement") and not criterion:
        raise BadInput(f"{source}: name the criterion of the {kind}s, for example helpful.")
    records: list[Record] = []
    drops: Counter[str] = Counter()
    seen: set[str] = set()
    shapes: dict[str, None] = {}
    criteria: set[str] = set()
    duplicates = rows = 0
    lines = kind == "prompt"
    for row, shape in _shaped(
        read_rows(source, criterion=criterion, max_rows=max_rows, lines=lines), columns, kind
    ):
        rows += 1
        shapes[shape] = None
        try:
            parts = _parts(row, shape, columns, slice)
            criteria |= {r.criterion for r in parts.rankings} | {v.criterion for v in parts.verdicts}
            made = make_records(kind, parts, criterion)
        except Dropped as reason:
            drops[str(reason)] += 1
            continue
        for record in made:
            name = record.id
            _check_id(parts, kind, name, row)
            duplicates += name in seen
            seen.add(name)
        records += made
    if not records:
        named = sorted(criteria - {""})
        hint = f"; criteria in it: {', '.join(named)}" if drops["other criterion"] and named else ""
        raise BadInput(f"{source}: no {kind}s are left of {rows} rows ({_counts(drops)}{hint}).")
    return Loaded(records, dict(drops), rows, ", ".join(shapes), str(source), duplicates)


def _counts(drops: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{count} × {reason}" for reason, count in sorted(drops.items()) if count) or "none dropped"
    )


def _shaped(
    rows: Iterable[Row], columns: Mapping[str, str] | None, kind: Kind | None
) -> Iterator[tuple[Row, str]]:
    """Each row with its shape, which the first row of its file decides."""
    file, shape = "", ""
    for row in rows:
        if not shape or row.file != file:
            file, shape = row.file, recognise(row.value, columns or {}, kind, row.where)
        yield row, shape


def _parts(row: Row, shape: str, columns: Mapping[str, str] | None, slice: str) -> Parts:
    parts = parse_row(shape, row.value, columns or {}, row.where)
    return replace(parts, slice=parts.slice or slice, source=parts.source or row.file)


def _check_id(parts: Parts, kind: Kind, name: str, row: Row) -> None:
    stored_kind, stored_id = parts.stored
    if stored_kind == kind and stored_id and stored_id != name:
        raise BadInput(
            f"{row.where}: the id of this {kind} does not fit its content; if the change is meant, remove the key 'id'."
        )


# From the parts of a row to records


def make_records(kind: Kind, parts: Parts, criterion: str | None = None) -> list[Record]:
    """The records of a kind that a row gives. `criterion` None keeps every criterion. Raises Dropped."""
    if kind == "document":
        if not parts.prompts and parts.text.strip():
            return [Document(parts.text, parts.source)]
        raise Dropped("other kind of record" if parts.prompts else "empty text")
    if not parts.prompts:
        raise Dropped("other kind of record")
    if kind == "prompt":
        return [_prompt(parts)]
    if kind == "demonstration":
        return [_demonstration(parts)]
    return cast(
        list[Record],
        _comparisons(parts, criterion) if kind == "comparison" else _judgements(parts, criterion),
    )


def _prompt(parts: Parts) -> Prompt:
    turns = parts.prompts[0]
    if any(other != turns for other in parts.prompts):
        raise Dropped("prompts differ")
    if not any(turn.content.strip() for turn in turns):
        raise Dropped("empty prompt")
    if turns[-1].role == "assistant":
        raise Dropped("prompt ends with the assistant")
    return Prompt(turns, parts.slice, parts.source)


def _demonstration(parts: Parts) -> Demonstration:
    prompt = _prompt(parts)
    if parts.ideal < 0:
        raise Dropped(
            "other kind of record"
            if parts.verdicts or parts.stored[0] == "prompt"
            else "tie"
            if parts.rankings
            else "no reply"
        )
    reply = parts.replies[parts.ideal]
    if not reply.strip():
        raise Dropped("empty reply")
    return Demonstration(prompt, reply)


def _comparisons(parts: Parts, criterion: str | None) -> list[Comparison]:
    if not parts.rankings:
        raise Dropped("other kind of record")
    prompt = _prompt(parts)
    bare = [reply.strip() for reply in parts.replies]
    if not all(bare):
        raise Dropped("empty reply")
    if len(set(bare)) < len(bare):
        raise Dropped("equal replies")
    shown = tuple(range(len(bare)))
    made = [
        Comparison(
            prompt,
            parts.replies,
            ranking.ranks,
            ranking.criterion or criterion or "",
            parts.labeler,
            ranking.strength,
            ranking.order or shown,
        )
        for ranking in parts.rankings
        if criterion is None or ranking.criterion in ("", criterion)
    ]
    if not made:
        raise Dropped("other criterion")
    return made


def _judgements(parts: Parts, criterion: str | None) -> list[Judgement]:
    if not parts.verdicts:
        raise Dropped("other kind of record")
    prompt = _prompt(parts)
    verdicts = [v for v in parts.verdicts if criterion is None or v.criterion in ("", criterion)]
    if not verdicts:
        raise Dropped("other criterion")
    if any(not parts.replies[v.index].strip() for v in verdicts):
        raise Dropped("empty reply")
    return [
        Judgement(
            prompt,
            parts.replies[v.index],
            v.criterion or criterion or "",
            v.kind,
            v.value,
            parts.labeler,
            v.category,
            v.severity,
        )
        for v in verdicts
    ]


# Several sources, splits


def read_many(
    reader: Callable[..., Loaded[R]],
    sources: Mapping[str, str],
    *args: str,
    weights: Mapping[str, float] | None = None,
    columns: Mapping[str, str] | None = None,
    max_rows: int = 0,
) -> dict[str, Loaded[R]]:
    """Read named sources, each with its name as the slice of rows that carry none, optionally mixed by weight.

    `args` go to the reader (the criterion). `weights` are the shares of the mixture, which has as many records as
    all sources together: a source with more than its share gives those that come first by the hash of their id
    (the others are counted as "over its weight"), one with less repeats its records evenly (counted as
    duplicates). A weight of 0 is refused: leave the source out.
    """
    weights = weights or {}
    if weights and set(weights) != set(sources):
        odd = sorted(set(weights) ^ set(sources))
        raise BadInput(
            f"--weights must name the same sources as --data; only one of them names {', '.join(odd)}."
        )
    if any(not (math.isfinite(weight) and weight > 0) for weight in weights.values()):
        raise BadInput("--weights must be numbers above 0; to leave a source out, take it out of --data.")
    named: dict[str, object] = {"columns": columns, "max_rows": max_rows}
    loaded = {
        name: reader(source, *args, **named)
        if reader is read_documents
        else reader(source, *args, slice=name, **named)
        for name, source in sources.items()
    }
    total = sum(len(part.records) for part in loaded.values())
    return {
        name: _weigh(part, round(total * weights[name] / sum(weights.values()))) if weights else part
        for name, part in loaded.items()
    }


def _weigh(loaded: Loaded[R], count: int) -> Loaded[R]:
    if count == 0:
        raise BadInput(f"{loaded.source}: its weight leaves it no record; raise it or leave the source out.")
    times, rest = divmod(count, len(loaded.records))
    by_hash = sorted(range(len(loaded.records)), key=lambda i: (unit_hash(loaded.records[i].id), i))
    kept = set(by_hash[:rest])
    extra = [record for i, record in enumerate(loaded.records) if i in kept]
    drops = dict(loaded.drops)
    if times == 0:
        drops["over its weight"] = len(loaded.records) - rest
    repeats = max(0, count - len(loaded.records))
    return replace(
        loaded, records=loaded.records * times + extra, drops=drops, duplicates=loaded.duplicates + repeats
    )


def prompt_of(record: Prompt | Demonstration | Comparison | Judgement) -> Prompt:
    return record if isinstance(record, Prompt) else record.prompt


P = TypeVar("P", Prompt, Demonstration, Comparison, Judgement)


def select_split(records: Iterable[P], split: str) -> list[P]:
    """The records whose prompt belongs to a split of `SPLITS`, in their order."""
    if split not in SPLITS:
        raise BadInput(f"there is no split '{split}'; there are {', '.join(SPLITS)}.")
    return [record for record in records if prompt_of(record).split == split]


def refuse_overlap(a_ids: Iterable[str], b_ids: Iterable[str], what_a: str, what_b: str) -> None:
    """Raise BadInput when two sets of prompts that must be disjoint share any."""
    common = set(a_ids) & set(b_ids)
    if common:
        raise BadInput(
            f"{len(common)} prompt{'s' if len(common) > 1 else ''} of {what_a} stand{'' if len(common) > 1 else 's'} in {what_b} too; "
            f"what is learned on must not be measured on: remove them from one of the two."
        )


# What a source holds


@dataclass(frozen=True)
class Summary:
    """What a source holds. `counts` and `drops` go by kind of record; word lengths are (0, 25, 50, 75, 100 %)
    quantiles; `splits` and `slices` count prompts (one a row); `example` is the first record of the kind that says most."""

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
    duplicates: dict[str, int]
    example: Record | None


@dataclass
class _Tally:
    counts: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    criteria: Counter[str] = field(default_factory=Counter)
    slices: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
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
        elif isinstance(record, Comparison | Judgement):
            self.criteria[record.criterion or "(as asked)"] += 1


def inspect_source(
    source: str, columns: Mapping[str, str] | None = None, *, max_rows: int = 0, slice: str = ""
) -> Summary:
    """Read a source once and count what each kind of record would get from it; nothing is refused for being empty."""
    tally = _Tally()
    shapes: dict[str, None] = {}
    names: dict[str, None] = {}
    rows = 0
    for row, shape in _shaped(read_rows(source, max_rows=max_rows), columns, None):
        rows += 1
        shapes[shape] = None
        names.update(dict.fromkeys(row.value))
        _inspect_row(tally, row, shape, columns, slice)
    example = next((tally.examples[kind] for kind in _MOST_TELLING if kind in tally.examples), None)
    return Summary(
        source=str(source),
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
        duplicates={kind: count for kind, count in tally.duplicates.items() if count},
        example=example,
    )


_MOST_TELLING: tuple[Kind, ...] = ("comparison", "judgement", "demonstration", "prompt", "document")


def _inspect_row(tally: _Tally, row: Row, shape: str, columns: Mapping[str, str] | None, slice: str) -> None:
    kinds = SHAPES[shape].gives
    try:
        parts = _parts(row, shape, columns, slice)
    except Dropped as reason:
        for kind in kinds:
            tally.drops.setdefault(kind, Counter())[str(reason)] += 1
        return
    tally.words["reply"] += [_words(reply) for reply in parts.replies]
    for kind in kinds:
        try:
            made = make_records(kind, parts)
        except Dropped as reason:
            if str(reason) != "other kind of record":
                tally.drops.setdefault(kind, Counter())[str(reason)] += 1
            continue
        for record in made:
            _check_id(parts, kind, record.id, row)
            tally.add(kind, record)


def _words(text: str) -> int:
    return len(text.split())


def quantiles(values: list[int]) -> tuple[int, ...]:
    """The 0, 25, 50, 75 and 100 % quantiles, each a value that occurs; empty for no values."""
    ordered = sorted(values)
    return (
        tuple(ordered[round(share * (len(ordered) - 1))] for share in (0, 0.25, 0.5, 0.75, 1))
        if ordered
        else ()
    )
