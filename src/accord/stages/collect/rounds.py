"""The questions of online rounds: a run writes them into files, and the page puts them on the desk as they come.

The page alone writes to the store, so that a run and its page may work on the same SQLite file at the same time.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accord.data.rows import whole_file
from accord.disk import read_lines
from accord.errors import BadInput
from accord.feedback.store.desk import Desk
from accord.feedback.store.questions import Item, item_from_json, item_to_json

QUESTIONS = "questions.jsonl"
TRAINING, JUDGING = "training", "judging"  # tags: who answers the one is never asked the other
EVERY = 2.0  # seconds between two looks for new files


def write_questions(path: Path, items: Sequence[Item]) -> None:
    """Write questions for the page to take in; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as write:
        for item in items:
            beside = {"tag": item.tag, "overlap": item.overlap, "harmful": item.harmful}
            write({"mode": item.mode, **beside, **item_to_json(item.check())})


def read_questions(path: Path) -> list[Item]:
    """What `write_questions` wrote."""
    return [
        replace(item_from_json(row["mode"], row), tag=row["tag"], overlap=row["overlap"], harmful=row["harmful"])
        for row in read_lines(path)
    ]


def take_in(run: Path, desk: Desk, known: set[Path]) -> int:
    """Put the questions of files that are not yet known on the desk; returns how many were new to it."""
    added = 0
    for path in sorted(run.glob(f"round-*/**/{QUESTIONS}")):
        if path not in known:
            added += desk.add(read_questions(path))
            known.add(path)
    return added


def follow(run: Path, app: Any, stopped: threading.Event) -> None:
    """Take questions in until the page ends. A file that is broken is said, and does not end it."""
    known: set[Path] = set()
    while not stopped.is_set():
        try:
            if added := take_in(run, app.state.page.desk, known):
                print(f"{added} new questions of {run} are on the desk", flush=True)
        except BadInput as error:
            print(f"no questions of {run}: {error}", flush=True)
            return
        stopped.wait(EVERY)
