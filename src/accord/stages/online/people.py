"""Questions to people, and what they said: files that the page takes in, the store that it writes, a wait between.

Waiting is a state: the run reads the store and never writes to it, so that it can be ended and called again at any
time.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from accord.data.rows import write_records
from accord.data.schemes import pin_feedback
from accord.errors import WaitsForPeople
from accord.feedback.store.database import Database, resolve
from accord.feedback.store.events import read_records
from accord.feedback.store.questions import Item
from accord.records import Comparison, Judgement, Prompt, content_hash
from accord.stages.collect.config import Weighing
from accord.stages.collect.rounds import QUESTIONS, read_questions, write_questions
from accord.stages.online.place import Place
from accord.training.progress import Progress

EVERY = 5.0  # seconds between two looks at the store; a look reads one number while nobody has answered
WEIGHING = Weighing.model_validate({})  # which slices weigh on people; the page caps and pauses by it
Said = Comparison | Judgement


class FromPeople(NamedTuple):
    """What was said, each with the number of its event; the source that says the same for ever; answers missing."""

    records: list[tuple[int, Said]]
    source: str
    missing: int


def questions_of(
    sampled: Sequence[tuple[Prompt, tuple[str, ...]]], criteria: Sequence[str], tag: str, overlap: int
) -> list[Item]:
    """Comparisons of the replies to each prompt, equal ones once."""
    distinct = ((prompt, tuple(dict.fromkeys(replies))) for prompt, replies in sampled)
    return [
        Item("compare", prompt, replies, tuple(criteria), tag=tag, overlap=overlap, harmful=WEIGHING.weighs(prompt))
        for prompt, replies in distinct
        if len(replies) > 1
    ]


def safety_questions(
    sampled: Sequence[tuple[Prompt, tuple[str, ...]]], criteria: Sequence[str], tag: str, overlap: int
) -> list[Item]:
    """Whether single replies are safe, under every criterion that has a limit."""
    return [
        Item("safety", prompt, (reply,), tuple(criteria), tag=tag, overlap=overlap, harmful=WEIGHING.weighs(prompt))
        for prompt, replies in sampled
        for reply in dict.fromkeys(replies)
        if criteria
    ]


def ask(place: Place, folder: Path, items: Sequence[Item], step: str) -> FromPeople:
    """Ask people, and what they said once there is enough of it. Raises WaitsForPeople, or Interrupted after Ctrl-C.

    The questions are written once; a run that goes on asks the same.
    """
    path = folder / QUESTIONS
    if not path.is_file():
        write_questions(path, items)
    asked = read_questions(path)
    wanted = sum(item.overlap for item in asked)
    spared = math.floor((1 - place.config.enough) * wanted)
    found = read_answers(place.config.database, asked)
    progress = Progress(f"round {place.number}, {step}", wanted, unit="answer", first=wanted - found.missing)
    if found.missing > spared and place.config.wait:
        print(notice(place, step, found.missing, wanted), flush=True)
    while found.missing > spared:
        facts = {"answers": wanted - found.missing, "wanted": wanted, "store": place.config.database}
        place.ledger.set(place.number, step, "waiting", **facts)
        if not place.config.wait:
            said = notice(place, step, found.missing, wanted)
            raise WaitsForPeople(f"{said}. Then this command again with --resume")
        until = found.source
        while newest(place.config.database) == until:
            if place.run.stop_requested:
                raise place.run.interrupted(place.number - 1, "round")
            time.sleep(EVERY)
        found = read_answers(place.config.database, asked)
        progress.update(wanted - found.missing, {})
    return found


def notice(place: Place, step: str, missing: int, wanted: int) -> str:
    """What is waited for, how much of it is missing, and the command of the page that asks."""
    config = place.config
    return (
        f"round {place.number}, step {step}: waits for people; {missing} of {wanted} answers are missing in "
        f"{config.database}. The page that asks: accord collect --rounds {config.out} --database {config.database}"
    )


def newest(address: str) -> str:
    """The store as a source up to its newest event; empty where there is none yet."""
    if (file := resolve(address)[1]) is not None and not file.is_file():
        return ""
    return pin_feedback(f"feedback:{address}")


def read_answers(address: str, asked: Sequence[Item]) -> FromPeople:
    """What the store holds of the questions, and how many answers are missing; all are where there is no store yet."""
    wanted = {_key(item.prompt, item.replies): item for item in asked}
    found: list[tuple[int, Said]] = []
    source = newest(address)
    if source:
        database = Database(address, writes=False)
        try:
            with database.read() as connection:
                for number, record in read_records(connection, int(source.rpartition("@")[2])):
                    if not isinstance(record, Comparison | Judgement):
                        continue
                    replies = record.replies if isinstance(record, Comparison) else (record.reply,)
                    item = wanted.get(_key(record.prompt, replies))
                    if item is not None and record.criterion in item.criteria:
                        found.append((number, record))
        finally:
            database.close()
    answers: dict[str, set[int]] = {}
    for number, record in found:
        replies = record.replies if isinstance(record, Comparison) else (record.reply,)
        answers.setdefault(_key(record.prompt, replies), set()).add(number)
    missing = sum(max(0, item.overlap - len(answers.get(key, ()))) for key, item in wanted.items())
    return FromPeople(found, source, missing)


def keep(place: Place, folder: Path, found: FromPeople) -> dict[str, float]:
    """Write what was said, a file for each kind and criterion as simulated people leave them, and `events.json`:
    which event every record came from."""
    counts: Counter[str] = Counter()
    by_file: dict[str, list[Said]] = {}
    for _, record in found.records:
        kind = "comparisons" if isinstance(record, Comparison) else "judgements"
        by_file.setdefault(f"{kind}-{record.criterion}", []).append(record)
    for name, records in sorted(by_file.items()):
        counts[name] = write_records(folder / f"{name}.jsonl", records)
    events = [{"event": number, "record": record.id, "labeler": record.labeler} for number, record in found.records]
    where = place.shown(folder / "events.json")
    place.run.write_json(where, {"source": found.source, "events": events})
    return dict(counts)


def _key(prompt: Prompt, replies: Sequence[str]) -> str:
    return content_hash(prompt.turns, list(replies))
