"""Sources of records: what `--data SOURCE` may name, read into records, with all that was dropped counted.

A reader takes every shape that its record can be derived from: prompts from comparisons, demonstrations from
the chosen side. Bad lines are refused (`BadInput`); rows of no use are dropped and counted by reason.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, Unpack, cast

from accord.data.conversations import Dropped
from accord.data.parse import How, Reader, check_id, make_records
from accord.data.parts import Kind
from accord.data.rows import Record, write_records
from accord.data.summary import Summary, inspect_source
from accord.errors import BadInput
from accord.records import SPLITS, Comparison, Demonstration, Document, Judgement, Prompt, unit_hash

__all__ = [
    "Loaded",
    "Summary",
    "few_openings",
    "inspect_source",
    "nothing_left",
    "prompt_of",
    "read_battles",
    "read_comparisons",
    "read_demonstrations",
    "read_documents",
    "read_judgements",
    "read_many",
    "read_prompts",
    "refuse_overlap",
    "select_split",
    "write_records",
]

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Loaded(Generic[R]):
    """Records of one kind, in the order of their rows.

    `rows` were read; `drops` says how many of them gave no record, by reason; a row may give several records.
    `duplicates` are records whose id an earlier one has: they are kept, and counted. `shape` names the shape
    of the columns and `source` is the source as it was asked for. `hash` is SHA-256 over the rows as they were read, in
    their order. `notes` count the records' rows in which something was seen that does no harm, such as a tool turn.
    """

    records: list[R]
    drops: dict[str, int]
    rows: int
    shape: str
    source: str
    duplicates: int = 0
    hash: str = ""
    notes: dict[str, int] = field(default_factory=dict)


def read_documents(source: str, **how: Unpack[How]) -> Loaded[Document]:
    """Plain text to pretrain on: text files (each a document, or cut at <|endoftext|>) or a `text` column."""
    return cast(Loaded[Document], _load("document", source, Reader(**how)))


def read_prompts(source: str, **how: Unpack[How]) -> Loaded[Prompt]:
    """Prompts of any shape that has them; of a text file, each line that is not blank. Raises BadInput, as all readers
    do."""
    return cast(Loaded[Prompt], _load("prompt", source, Reader(**how)))


def read_demonstrations(source: str, **how: Unpack[How]) -> Loaded[Demonstration]:
    """Prompts with an ideal reply: completion, last assistant turn, chosen, safe or single best reply."""
    return cast(Loaded[Demonstration], _load("demonstration", source, Reader(**how)))


def read_comparisons(source: str, criterion: str, **how: Unpack[How]) -> Loaded[Comparison]:
    """Comparisons under `criterion`. Files that name no criterion are read as being about the one asked for;
    SafeRLHF columns hold `helpful` and `harmless`, Accord's own records whatever they name."""
    return cast(Loaded[Comparison], _load("comparison", source, Reader(**how), criterion))


def read_battles(source: str, criterion: str, **how: Unpack[How]) -> Loaded[Comparison]:
    """Comparisons whose replies name the snapshots that wrote them, to rate these by. Unlike comparisons to learn from
    they keep equal and empty replies, and conversations that part after a shared beginning."""
    return cast(Loaded[Comparison], _load("battle", source, Reader(**how), criterion))


def read_judgements(source: str, criterion: str, **how: Unpack[How]) -> Loaded[Judgement]:
    """Judgements of single replies under `criterion`: `label` gives kind good, `is_safe` and the like safe,
    `rating` rating."""
    return cast(Loaded[Judgement], _load("judgement", source, Reader(**how), criterion))


def _load(kind: Kind, source: str, how: Reader, criterion: str = "") -> Loaded[Record]:
    if kind in ("comparison", "battle", "judgement") and not criterion:
        raise BadInput(f"{source}: name the criterion of the {kind}s, for example helpful.")
    records: list[Record] = []
    drops: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    seen: set[str] = set()
    shapes: dict[str, None] = {}
    criteria: set[str] = set()
    duplicates = rows = 0
    digest = hashlib.sha256()
    for row, shape, parts in how.rows(source, kind, criterion):
        rows += 1
        digest.update(_bytes_of(row.value))
        shapes[shape] = None
        if isinstance(parts, str):
            drops[parts] += 1
            continue
        criteria |= {r.criterion for r in parts.rankings} | {v.criterion for v in parts.verdicts}
        try:
            made = make_records(kind, parts, criterion)
        except Dropped as reason:
            drops[str(reason)] += 1
            continue
        notes.update(parts.notes)
        for record in made:
            name = record.id
            check_id(parts, kind, name, row)
            duplicates += name in seen
            seen.add(name)
        records += made
    if not records:
        named = sorted(criteria - {""})
        hint = f"; criteria in it: {', '.join(named)}" if drops["other criterion"] and named else ""
        raise nothing_left(source, kind, rows, drops, f"{hint}); `accord data {source}` shows what it holds.")
    return Loaded(records, dict(drops), rows, ", ".join(shapes), source, duplicates, digest.hexdigest(), dict(notes))


def _bytes_of(row: Mapping[str, Any]) -> bytes:
    """A row's columns as one line; what JSON has no form for (a date, bytes) as Python writes it."""
    line = json.dumps(row, ensure_ascii=False, sort_keys=True, default=repr) + "\n"
    return line.encode("utf-8", errors="surrogatepass")


REMEDIES = {
    "sides part before the last turn": "--uneven cut ends both sides with the first answers that differ",
    "tie": "no reply of a tie is the best; as comparisons ties are kept",
    "no snapshot named": "ratings need to know which snapshot wrote each reply (model_a and model_b, generator_1 and "
    "generator_2, or snapshots in Accord's own rows)",
    "tool call": "Accord learns from text; take the tool's turns out, or write the call into the content",
}


def nothing_left(source: str, kind: str, rows: int, drops: Mapping[str, int], end: str = ").") -> BadInput:
    """The refusal of a source whose rows were all dropped, with what can be done about the commonest reasons."""
    counts = ", ".join(f"{count} × {reason}" for reason, count in sorted(drops.items()) if count) or "none dropped"
    remedies = "".join(f" {reason}: {remedy}." for reason, remedy in REMEDIES.items() if drops.get(reason))
    return BadInput(f"{source}: no {kind}s are left of {rows} rows ({counts}{end}{remedies}")


# Several sources, splits


def read_many(
    reader: Callable[..., Loaded[R]],
    sources: Mapping[str, str],
    *args: str,
    weights: Mapping[str, float] | None = None,
    **how: Unpack[How],
) -> dict[str, Loaded[R]]:
    """Read named sources, each name the slice of the rows that carry none, optionally mixed by weight.

    `args` go to the reader (the criterion). `weights` are the shares of the mixture, which has as many
    records as all sources together: a source with more than its share gives those that come first by the
    hash of their id (the others are counted as "over its weight"), one with less repeats its records evenly
    (counted as duplicates). A weight of 0 is refused: leave the source out.
    """
    weights = weights or {}
    if weights and set(weights) != set(sources):
        odd = sorted(set(weights) ^ set(sources))
        raise BadInput(f"--weights must name the same sources as --data; only one of them names {', '.join(odd)}.")
    if any(not (math.isfinite(weight) and weight > 0) for weight in weights.values()):
        raise BadInput("--weights must be numbers above 0; to leave a source out, take it out of --data.")
    loaded = {name: reader(source, *args, **how, slice=name) for name, source in sources.items()}
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
    return replace(loaded, records=loaded.records * times + extra, drops=drops, duplicates=loaded.duplicates + repeats)


def prompt_of(record: Prompt | Demonstration | Comparison | Judgement) -> Prompt:
    return record if isinstance(record, Prompt) else record.prompt


P = TypeVar("P", Prompt, Demonstration, Comparison, Judgement)


def select_split(records: Iterable[P], split: str) -> list[P]:
    """The records whose prompt belongs to a split of `SPLITS`, in their order."""
    if split not in SPLITS:
        raise BadInput(f"there is no split '{split}'; there are {', '.join(SPLITS)}.")
    return [record for record in records if prompt_of(record).split == split]


def few_openings(records: Iterable[Prompt | Demonstration | Comparison | Judgement]) -> str:
    """What a refusal of too few prompts adds where they begin alike: that is why all of them fell on one side."""
    openings = [prompt_of(record).opening for record in records]
    different = len(set(openings))
    if different * 10 > len(openings):
        return ""
    turns = "the same first turn" if different == 1 else f"one of {different} first turns"
    return f": all {len(openings)} conversations begin with {turns} of the user, by which they are held out and split"


def refuse_overlap(
    a_ids: Iterable[str], b_ids: Iterable[str], what_a: str, what_b: str, things: str = "prompt"
) -> None:
    """Raise BadInput when two sets of prompts (or other `things`) that must be disjoint share any."""
    common = set(a_ids) & set(b_ids)
    if common:
        raise BadInput(
            f"{what_a} and {what_b} share {len(common)} {things}{'s' if len(common) > 1 else ''}; "
            "what is learned on must not be measured on: remove them from one of the two."
        )
