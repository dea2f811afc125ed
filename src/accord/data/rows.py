"""Accord's own rows: records as JSON lines that read back exactly, and the place where they are written."""

import gzip
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accord.records import Comparison, Demonstration, Document, Judgement, Prompt, Rollout, Turn, as_messages

Record = Document | Prompt | Demonstration | Comparison | Judgement


def to_row(record: Record) -> dict[str, Any]:
    """A record as an object for JSON; the key `record` says its kind. `stored_row` adds id and split."""
    if isinstance(record, Document):
        return {"record": "document", "text": record.text, "source": record.source}
    prompt = record if isinstance(record, Prompt) else record.prompt
    shared = {
        "prompt": as_messages(prompt.turns),
        "slice": prompt.slice,
        "source": prompt.source,
    }
    if isinstance(record, Prompt):
        return {"record": "prompt", **shared}
    if isinstance(record, Demonstration):
        return {"record": "demonstration", **shared, "reply": record.reply}
    if isinstance(record, Comparison):
        return {
            "record": "comparison",
            **shared,
            "replies": list(record.replies),
            "ranks": list(record.ranks),
            "criterion": record.criterion,
            "labeler": record.labeler,
            "strength": record.strength,
            "order": list(record.order),
            **({"probability": record.probability} if record.probability != 1 else {}),
            **({"all_bad": True} if record.all_bad else {}),
            **({"snapshots": list(record.snapshots)} if record.snapshots else {}),
        }
    return {
        "record": "judgement",
        **shared,
        "reply": record.reply,
        "criterion": record.criterion,
        "kind": record.kind,
        "value": record.value,
        "labeler": record.labeler,
        "category": record.category,
        "severity": record.severity,
    }


def reply_row(prompt: Prompt, reply: str, **more: Any) -> dict[str, Any]:
    """A row of `samples.jsonl` and its like: a prompt, one reply to it, and what `more` says about the reply."""
    return {
        "prompt_id": prompt.id,
        "slice": prompt.slice,
        "source": prompt.source,
        "prompt": as_messages(prompt.turns),
        "reply": reply,
        **more,
    }


def rollout_row(prompt: Prompt, reply: str, rollout: Rollout, **more: Any) -> dict[str, Any]:
    """The row of a reply that was sampled: `reply` is the rollout's text, and how it ended stands beside it."""
    return reply_row(prompt, reply, finish=rollout.finish, **more)


def answer_row(asked: str, slice: str, kind: str, reply: str | None = None, **more: Any) -> dict[str, Any]:
    """The row of a question of a set, which goes by its own id `asked`; `reply` is None where nothing was written."""
    written = {} if reply is None else {"reply": reply}
    return {"prompt_id": asked, "slice": slice, "kind": kind, **written, **more}


def prompt_of_row(row: Mapping[str, Any]) -> Prompt:
    """The prompt that `reply_row` wrote."""
    return Prompt(tuple(Turn(turn["role"], turn["content"]) for turn in row["prompt"]), row["slice"], row["source"])


def is_whole(row: Mapping[str, Any]) -> bool:
    """Whether the reply of a row that `rollout_row` wrote ended by itself."""
    return bool(row["finish"] == "stop")


def stored_row(record: Record) -> dict[str, Any]:
    """A record's row as files hold it: with its id, which is checked when it is read, and the split of its prompt.

    A record that names no criterion takes that of its reader, which is part of the id, and so has none here.
    """
    row = to_row(record)
    if not isinstance(record, Document):
        row["split"] = (record if isinstance(record, Prompt) else record.prompt).split
    return row if row.get("criterion") == "" else {**row, "id": record.id}


def write_records(path: Path | str, records: Iterable[Record]) -> int:
    """Write records as JSON lines (gzipped when the name ends in .gz) and return how many.

    The file appears whole or not at all.
    """
    count = 0
    with whole_file(Path(path)) as write:
        for record in records:
            write(stored_row(record))
            count += 1
    return count


@contextmanager
def whole_file(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What writes a row to a file of JSON lines, gzipped by its name, that appears when the block ends well."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            # No name and no time in the gzip header: the same records give the same bytes.
            stream = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.name.endswith(".gz") else file

            def write(row: Mapping[str, Any]) -> None:
                stream.write(
                    json.dumps(row, ensure_ascii=False, default=repr).encode("utf-8", "backslashreplace") + b"\n"
                )

            yield write
            if stream is not file:
                stream.close()
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
