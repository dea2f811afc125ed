"""From the rows of a source to records: shape of each file, parts of each row, checks and their names."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import cast

from accord.data.columns import Dropped
from accord.data.files import Row
from accord.data.rows import Record
from accord.data.shapes import Kind, Parts, parse_row, recognise
from accord.errors import BadInput
from accord.records import Comparison, Demonstration, Document, Judgement, Prompt


def with_shapes(rows: Iterable[Row], columns: Mapping[str, str] | None, kind: Kind | None) -> Iterator[tuple[Row, str]]:
    """Each row with its shape, which the first row of its file decides."""
    file, shape = "", ""
    for row in rows:
        if not shape or row.file != file:
            file, shape = row.file, recognise(row.value, columns or {}, kind, row.where)
        yield row, shape


def parts_of(row: Row, shape: str, columns: Mapping[str, str] | None, slice: str) -> Parts:
    parts = parse_row(shape, row.value, columns or {}, row.where)
    return replace(parts, slice=parts.slice or slice, source=parts.source or row.file)


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
            ranking.probability,
            ranking.all_bad,
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
    if any(not parts.replies[v.reply].strip() for v in verdicts):
        raise Dropped("empty reply")
    return [
        Judgement(
            prompt,
            parts.replies[v.reply],
            v.criterion or criterion or "",
            v.kind,
            v.value,
            parts.labeler,
            v.category,
            v.severity,
        )
        for v in verdicts
    ]
