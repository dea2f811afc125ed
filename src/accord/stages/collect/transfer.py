"""Collect: what goes into the store and out of it without anybody's browser: questions, labels, backups."""

import datetime
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accord.data.conversations import Dropped
from accord.data.rows import whole_file
from accord.data.sources import Loaded, read_comparisons, read_demonstrations, read_judgements, read_prompts
from accord.errors import BadInput
from accord.feedback.store.database import Database, resolve
from accord.stages.collect.aids import read_aids, with_aids
from accord.stages.collect.config import CollectBackup, CollectExport, CollectImport
from accord.stages.collect.ensemble import read_scores, with_score
from accord.stages.collect.shapes import SHAPES

NO_ANSWER = "no known answer: a tie, no label of safety, or labels that contradict each other"
WORK = {"answer": "answers", "skip": "skips", "decision": "decisions"}  # kinds of events that are somebody's work

if TYPE_CHECKING:
    from accord.feedback.store.questions import Item


def export(config: CollectExport) -> int:
    """Write the labels, say what was left out and why, and return how many rows there are."""
    out = new_file(config.out)
    database = Database(config.database, writes=False)
    drops: Counter[str] = Counter()
    rows = 0
    try:
        with whole_file(out) as write:
            for row in HISTORIES.get(config.shape, _labels)(database, config):
                if isinstance(row, str):
                    drops[row] += 1
                else:
                    write(row)
                    rows += 1
            if not rows:
                lost = ", ".join(f"{count} {reason}" for reason, count in drops.items()) or "nothing was said yet"
                raise BadInput(f"{config.database}: no row of shape {config.shape} ({lost})")
    finally:
        database.close()
    dropped = "".join(f"; {count} left out: {reason}" for reason, count in drops.items())
    print(f"{rows} rows of shape {config.shape} to {out}{dropped}")
    return rows


def _labels(database: Database, config: CollectExport) -> Iterator[dict[str, Any] | str]:
    """Rows of the shape, or the reasons why a label gives none."""
    from accord.feedback.store.events import last_event, read_records

    with database.read() as connection:
        until = config.until or last_event(connection)
        found = [record for _, record in read_records(connection, until, decisions=config.decisions)]
    under = sorted({criterion for record in found if (criterion := getattr(record, "criterion", ""))})
    if config.criterion and config.criterion not in under:
        raise BadInput(f"{config.database}: nothing was said under --criterion {config.criterion}; but {under}")
    if config.shape not in ("records", "messages") and not config.criterion and len(under) > 1:
        raise BadInput(f"--shape {config.shape} holds one criterion; choose one of {', '.join(under)} by --criterion")
    for record in found:
        if config.criterion and getattr(record, "criterion", config.criterion) != config.criterion:
            yield "other criterion"
            continue
        try:
            yield SHAPES[config.shape](record)
        except Dropped as reason:
            yield str(reason)


def _events(database: Database, config: CollectExport) -> Iterator[dict[str, Any]]:
    """The history as it was written, each answer with its question."""
    from sqlalchemy import select

    from accord.feedback.store.schema import EVENTS, ITEMS

    with database.read() as connection:
        history = (
            select(EVENTS, ITEMS.c.mode, ITEMS.c.body.label("question")).outerjoin(ITEMS).order_by(EVENTS.c.number)
        )
        for row in connection.execute(history.where(EVENTS.c.number <= config.until) if config.until else history):
            yield row._asdict()


def _time(database: Database, config: CollectExport) -> Iterator[dict[str, Any]]:
    """What each person did on each day (UTC), and the seconds that they were at it: what they are paid for."""
    spent: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for row in _events(database, config):
        if row["kind"] in WORK:
            day = datetime.datetime.fromtimestamp(row["at"], datetime.UTC).date().isoformat()
            spent[row["person"], day].update({row["kind"]: 1, "seconds": row["body"].get("seconds", 0.0)})
    for (person, day), did in sorted(spent.items()):
        counts = {name: did[kind] for kind, name in WORK.items()}
        yield {"person": person, "day": day, "seconds": did["seconds"], **counts}


HISTORIES: Mapping[str, Any] = {"events": _events, "time": _time}


def take_in(config: CollectImport) -> int:
    """Put the questions of a source on the desk, and return how many were not there yet."""
    from accord.feedback.store.desk import Desk
    from accord.feedback.store.selection import Selection

    loaded = READERS[config.mode](config)
    aids, unused = read_aids(config.aids) if config.aids else ({}, Counter())
    items, contradicted = _questions(config, loaded.records)
    items = [with_aids(item, aids) for item in items]
    if config.scores:
        scores = read_scores(config.scores)
        items = [with_score(item, scores) for item in items]
    database = Database(config.database, writes=True)
    try:
        added = Desk(database, selection=Selection(random=config.random_share)).add(items)
    finally:
        database.close()
    drops = {**loaded.drops, **({NO_ANSWER: contradicted} if contradicted else {})}
    dropped = "".join(f"; {count} dropped: {reason}" for reason, count in drops.items())
    what = "check items" if config.known else "questions"
    print(f"{loaded.source}: {loaded.rows} rows, {added} new {what}, {len(items) - added} there before{dropped}")
    if config.scores:
        print(f"{config.scores}: scores for {sum(item.score is not None for item in items)} questions")
    if config.aids:
        left = "".join(f"; {count} rows left out: {reason}" for reason, count in unused.items())
        print(f"{config.aids}: aids for {sum(bool(item.aids) for item in items)} questions{left}")
    return added


def _question(config: CollectImport, record: Any) -> "Item":
    from accord.feedback.store.questions import Item

    replies = {
        "compare": lambda: record.replies,
        "demonstrate": lambda: (),
        "safety": lambda: (record.reply,),
        "edit": lambda: (record.reply,),
    }[config.mode]()
    prompt = record if config.mode == "demonstrate" else record.prompt
    origins = (prompt.source,) * len(replies)
    asked = Item(config.mode, prompt, replies, tuple(config.criterion), origins, config.tag, config.overlap)
    known = {"compare": lambda: record.ranks, "safety": lambda: (int(record.value),)}
    return replace(asked, harmful=config.weighs(prompt), known=(known[config.mode](),) if config.known else ())


def _questions(config: CollectImport, records: Iterable[Any]) -> "tuple[list[Item], int]":
    """Each question once, and how many can be no check items, since their labels do not say what is right."""
    if not config.known:
        return list({item.id: item for item in (_question(config, record) for record in records)}.values()), 0
    found: dict[Any, tuple[Item, Any]] = {}
    unusable = set()
    for record in records:
        item = _question(config, record)
        right = frozenset(zip(item.replies, item.known[0], strict=True))
        key = (item.prompt.turns, frozenset(item.replies))  # the same replies in another order are the same question
        tied = item.mode == "compare" and len(set(item.known[0])) == 1
        if tied or getattr(record, "kind", "safe") != "safe" or found.setdefault(key, (item, right))[1] != right:
            unusable.add(key)
    return [item for key, (item, _) in found.items() if key not in unusable], len(unusable)


def _single_replies(config: CollectImport) -> Loaded[Any]:
    """Replies that somebody labelled before, or that stand alone."""
    if config.known:
        return read_judgements(config.data, config.criterion[0], **config.how)
    try:
        return read_demonstrations(config.data, **config.how)
    except BadInput:
        return read_judgements(config.data, config.criterion[0], **config.how)


READERS: Mapping[str, Any] = {
    "compare": lambda config: read_comparisons(config.data, config.criterion[0], **config.how),
    "demonstrate": lambda config: read_prompts(config.data, **config.how),
    "safety": _single_replies,
    "edit": _single_replies,
}


def backup(config: CollectBackup) -> Path:
    """Copy the store by SQLite's own backup, which waits for nobody and reads one state."""
    _, path = resolve(config.database)
    if path is None:
        raise BadInput(f"{config.database}: PostgreSQL has a backup of its own: pg_dump")
    Database(config.database, writes=False).close()  # it is there, and a store of this version
    out = new_file(config.out)
    partial = out.with_name(f".{out.name}.part")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL, 0o600))
    source, copy = sqlite3.connect(path), sqlite3.connect(partial)
    source.execute("PRAGMA wal_autocheckpoint=0")
    try:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    finally:
        copy.close()
        source.close()
    if verdict != "ok":
        partial.unlink()
        raise BadInput(f"{path}: SQLite finds it damaged ({verdict}); no backup was written, keep those of before")
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, out)
    print(f"{path} to {out}: {out.stat().st_size} bytes, integrity checked")
    return out


def new_file(name: str) -> Path:
    """A file that is not there yet in a folder that is. Raises BadInput."""
    path = Path(name)
    if path.exists() or not path.parent.is_dir():
        raise BadInput(f"--out {path} must be a new file in a folder that exists")
    return path
