"""A source sorted into two files: records of a kind, and beside them the rows that give none, with their reasons."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from accord.data.conversations import Dropped
from accord.data.parse import Reader, check_id, make_records
from accord.data.parts import Kind
from accord.data.rows import stored_row, whole_file
from accord.errors import BadInput


class Sifted(NamedTuple):
    """How many records were written, and how many rows were not, by reason."""

    records: int
    drops: dict[str, int]
    dropped_file: Path


def dropped_beside(out: Path) -> Path:
    """`rows.jsonl` and `rows.dropped.jsonl`."""
    name, _, rest = out.name.partition(".jsonl")
    return out.with_name(f"{name}.dropped.jsonl{rest}")


def sift(source: str, out: Path, kind: Kind, how: Reader, shaped: Kind | None, stained: Mapping[int, str]) -> Sifted:
    """Write the records of a kind to `out`, and the rows that give none beside it with place and reason.

    The shape is one that gives `shaped` (None: any). `stained` rows, by their number, are dropped for the reason it
    names. Both files appear whole or not at all. Raises BadInput for a name that is taken or that has another ending,
    and where nothing is left.
    """
    beside = dropped_beside(out)
    if not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise BadInput(f"--out {out}: rows are written as JSON lines; give a name that ends in .jsonl or .jsonl.gz.")
    for path in (out, beside):
        if path.exists():
            raise BadInput(f"--out {out}: {path} is there already; take it away, or choose another name.")
    drops: Counter[str] = Counter()
    records = 0
    try:
        with ExitStack() as files:
            keep, drop = (files.enter_context(whole_file(path)) for path in (out, beside))
            for number, (row, _, parts) in enumerate(how.rows(source, shaped)):
                try:
                    if isinstance(parts, str):
                        raise Dropped(parts)
                    made = make_records(kind, parts)
                    if number in stained:
                        raise Dropped(stained[number])
                except Dropped as reason:
                    drops[str(reason)] += 1
                    drop({"where": row.where, "reason": str(reason), "row": row.value})
                    continue
                for record in made:
                    check_id(parts, kind, record.id, row)
                    keep(stored_row(record))
                    records += 1
            if not records:
                raise BadInput(f"{source}: no {kind}s are left; nothing is written to {out}.")
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written ({error.strerror or error}).") from None
    if not drops:
        beside.unlink()
    return Sifted(records, dict(drops), beside)
