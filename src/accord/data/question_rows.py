"""Files of questions, row by row: what each gives, what was dropped and why, and a hash of all of them."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from accord.data.conversations import Dropped
from accord.data.files import read_rows
from accord.data.formats import Row
from accord.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True)
class QuestionRows(Generic[T]):
    """What the rows gave, in their order; `drops` counts rows that gave nothing, by reason. `hash` is of all rows."""

    questions: tuple[T, ...]
    drops: dict[str, int]
    rows: int
    hash: str


def gather(
    source: str,
    make: Callable[[Mapping[str, Any], Row], T | str],
    thing: str,
    *,
    columns: Mapping[str, str],
    max_rows: int = 0,
) -> QuestionRows[T]:
    """What `make` says of every row: a question, or why there is none (as Dropped too). BadInput where none is left."""
    questions: list[T] = []
    drops: Counter[str] = Counter()
    digest = hashlib.sha256()
    rows = 0
    for row in read_rows(source, max_rows=max_rows):
        rows += 1
        digest.update(json.dumps(row.value, sort_keys=True, default=str).encode())
        value = row.value | {field: row.value[name] for field, name in columns.items() if name in row.value}
        try:
            found = make(value, row)
        except Dropped as reason:
            found = str(reason)
        if isinstance(found, str):
            drops[found] += 1
        else:
            questions.append(found)
    if not questions:
        raise BadInput(f"{source}: no {thing} is left of {rows} rows ({dict(drops) or 'it is empty'})")
    return QuestionRows(tuple(questions), dict(drops), rows, digest.hexdigest())
