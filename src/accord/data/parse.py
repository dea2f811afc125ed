"""From the rows of a source to records: shape of each file, parts of each row, checks and their names."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypedDict, cast

from accord.data.conversations import Dropped, Turns
from accord.data.files import read_rows, split_columns
from accord.data.formats import Row
from accord.data.parts import Kind, Parts
from accord.data.rows import Record
from accord.data.shapes import parse_row, recognise
from accord.errors import BadInput
from accord.records import Comparison, Demonstration, Document, Judgement, Prompt, Turn, Uneven

HEAD = 100  # rows of a file that tell its shape


@dataclass(frozen=True)
class Reader:
    """How a source is read: the columns named for it, how many rows (0: all), the slice of rows that carry none, and
    what becomes of pairs whose sides part before the last turn: dropped, or cut where they part."""

    columns: Mapping[str, str] = field(default_factory=dict)
    max_rows: int = 0
    slice: str = ""
    uneven: Uneven = "drop"

    def rows(self, source: str, kind: Kind | None, criterion: str = "") -> Iterator[tuple[Row, str, Parts | str]]:
        """Each row with its shape and what it says, or the reason why it says nothing. Raises BadInput."""
        bare, own = split_columns(source)
        columns = {**self.columns, **own}
        table = read_rows(bare, criterion=criterion, max_rows=self.max_rows, lines=kind == "prompt")
        for row, shape in with_shapes(table, columns, kind):
            try:
                parts = parse_row(shape, row.value, columns, row.where)
            except Dropped as reason:
                yield row, shape, str(reason)
                continue
            if self.uneven == "cut":
                parts = cut_at_difference(parts)
            yield row, shape, replace(parts, slice=parts.slice or self.slice, source=parts.source or row.file)


class How(TypedDict, total=False):
    """A `Reader` as keywords of the functions that read a source."""

    columns: Mapping[str, str]
    max_rows: int
    slice: str
    uneven: Uneven


def with_shapes(rows: Iterable[Row], columns: Mapping[str, str], kind: Kind | None) -> Iterator[tuple[Row, str]]:
    """Each row with its shape, which the first rows of its file decide."""
    for _, file in itertools.groupby(rows, key=lambda row: row.file):
        head = list(itertools.islice(file, HEAD))
        shape = recognise([row.value for row in head], columns, kind, head[0].where)
        for row in itertools.chain(head, file):
            yield row, shape


def cut_at_difference(parts: Parts) -> Parts:
    """Sides that part before their last turn end where they part, if both answer there; other parts as they are."""
    if len(set(parts.prompts)) < 2:
        return parts
    sides = _sides(parts)
    shared = _shared(sides)
    if not _answered(sides, shared):
        return parts
    return replace(
        parts,
        prompts=tuple(side[:shared] for side in sides),
        replies=tuple(side[shared].content for side in sides),
        notes=(*parts.notes, "cut where the sides part"),
    )


def _sides(parts: Parts) -> list[Turns]:
    """Each reply with its prompt, as whole conversations."""
    return [(*turns, Turn("assistant", reply)) for turns, reply in zip(parts.prompts, parts.replies, strict=True)]


def _shared(sides: list[Turns]) -> int:
    """How many turns all sides begin with."""
    return sum(1 for _ in itertools.takewhile(lambda turns: len(set(turns)) == 1, zip(*sides, strict=False)))


def _answered(sides: list[Turns], place: int) -> bool:
    return all(len(side) > place and side[place].role == "assistant" for side in sides)


def check_id(parts: Parts, kind: Kind, name: str, row: Row) -> None:
    stored_kind, stored_id = parts.stored
    if stored_kind == kind and stored_id and stored_id != name:
        raise BadInput(
            f"{row.where}: the id of this {kind} does not fit its content; if the change is meant, remove the key 'id'."
        )


def make_records(kind: Kind, parts: Parts, criterion: str | None = None) -> list[Record]:
    """The records of a kind that a row gives. `criterion` None keeps every criterion. Raises Dropped."""
    if kind == "document":
        if not parts.prompts and parts.text.strip():
            return [Document(parts.text, parts.source)]
        raise Dropped("other kind of record" if parts.prompts else "empty text")
    if not parts.prompts:
        raise Dropped("other kind of record")
    parts = _said_once(parts)
    if kind == "prompt":
        return [_prompt(parts)]
    if kind == "demonstration":
        return [_demonstration(parts)]
    if kind == "battle":
        return list(_battles(parts, criterion))
    return cast(
        list[Record],
        _comparisons(parts, criterion) if kind == "comparison" else _judgements(parts, criterion),
    )


def _said_once(parts: Parts) -> Parts:
    """Without the replies that stand in the row a second time."""
    if not parts.first:
        return parts
    rankings = tuple(one._replace(ranks=tuple(one.ranks[place] for place in parts.first)) for one in parts.rankings)
    prompts, replies = tuple(parts.prompts[i] for i in parts.first), tuple(parts.replies[i] for i in parts.first)
    return replace(parts, prompts=prompts, replies=replies, rankings=rankings, first=())


def _prompt(parts: Parts) -> Prompt:
    turns = parts.prompts[0]
    if any(other != turns for other in parts.prompts):
        sides = _sides(parts)
        parted = _answered(sides, _shared(sides))
        raise Dropped("sides part before the last turn" if parted else "prompts differ")
    if not any(turn.content.strip() for turn in turns):
        raise Dropped("empty prompt")
    if turns[-1].role == "assistant":
        raise Dropped("two assistant turns at the end" if parts.replies else "prompt ends with the assistant")
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
    return _ranked(prompt, parts, criterion, tuple(range(len(parts.replies))))


def _ranked(prompt: Prompt, parts: Parts, criterion: str | None, shown: tuple[int, ...]) -> list[Comparison]:
    made = [
        Comparison(
            prompt,
            parts.replies,
            ranking.ranks,
            ranking.criterion or criterion or "",
            ranking.labeler or parts.labeler,
            ranking.strength,
            ranking.order or shown,
            ranking.probability,
            ranking.all_bad,
            parts.snapshots,
        )
        for ranking in parts.rankings
        if criterion is None or ranking.criterion in ("", criterion)
    ]
    if not made:
        raise Dropped("other criterion")
    return made


def _battles(parts: Parts, criterion: str | None) -> list[Comparison]:
    """Comparisons of named snapshots. Equal and empty replies count, as a tie or a loss does; conversations that part
    after their first turns are about the turns that they share; an order that is not known stays empty."""
    if not parts.rankings or not parts.snapshots:
        raise Dropped("no snapshot named" if parts.rankings else "other kind of record")
    if len(set(parts.snapshots)) < len(parts.snapshots):
        raise Dropped("a snapshot against itself")
    shared = parts.prompts[0][: _shared([(*turns, Turn("", "")) for turns in parts.prompts])]
    if not any(turn.content.strip() for turn in shared):
        raise Dropped("prompts differ")
    return _ranked(Prompt(shared, parts.slice, parts.source), parts, criterion, ())


def _judgements(parts: Parts, criterion: str | None) -> list[Judgement]:
    if not parts.verdicts:
        raise Dropped("other kind of record")
    prompt = _prompt(parts)
    verdicts = [v for v in parts.verdicts if criterion is None or v.criterion in ("", criterion)]
    if not verdicts:
        raise Dropped("other criterion")
    if any(not parts.replies[v.reply].strip() for v in verdicts):
        raise Dropped("empty reply")
    return [
        Judgement(
            prompt,
            parts.replies[v.reply],
            v.criterion or criterion or "",
            v.kind,
            v.value,
            v.labeler or parts.labeler,
            v.category,
            v.severity,
        )
        for v in verdicts
    ]
