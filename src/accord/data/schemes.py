"""Sources with a scheme: data sets of the hub, the gold world, and what people said."""

import difflib
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

from accord.data.formats import Row
from accord.data.rows import Record, to_row
from accord.data.tables import first_line
from accord.errors import BadInput

WORLD_NAMES = ("corpus", "demonstrations", "prompts", "comparisons", "judgements")
FEEDBACK = re.compile(r"feedback:(?P<address>.+?)(?:@(?P<until>\d+))?")
HUB = re.compile(r"hub:(?P<name>[^/:@]+/[^/:@]+)(?:/(?P<subset>[^:@]+))?(?::(?P<split>[^@]+))?(?:@(?P<revision>.+))?")


def read_hub(source: str, max_rows: int) -> Iterator[Row]:
    match = HUB.fullmatch(source)
    if match is None:
        raise BadInput(
            f"{source}: write hub:OWNER/NAME[/SUBSET][:SPLIT][@REVISION], for example hub:Anthropic/hh-rlhf:train."
        )
    try:
        from datasets import load_dataset
    except ImportError:
        raise BadInput(
            f"{source}: reading from the hub needs datasets; install it with: pip install 'accord[hf]'"
        ) from None
    try:
        # Streaming fetches no more than the rows asked for.
        table = load_dataset(
            match["name"],
            name=match["subset"],
            split=match["split"] or "train",
            revision=match["revision"],
            streaming=max_rows > 0,
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"{source}: cannot be had from the hub ({type(error).__name__}: {first_line(error)}).") from None
    number = 0
    try:
        for number, value in enumerate(table, start=1):
            yield Row(dict(value), f"{source} row {number}", source)
    except OSError as error:
        raise BadInput(f"{source}: cannot be read on after row {number} ({first_line(error)}).") from None
    if number == 0:
        raise BadInput(f"{source}: holds no rows.")


def read_world(source: str, criterion: str) -> Iterator[Row]:
    name, settings = parse_world(source)
    if name in ("comparisons", "judgements"):
        settings["criterion"] = criterion or ("helpful" if name == "comparisons" else "harmless")
    from accord import world

    try:
        records: list[Record] = getattr(world, name)(**settings)
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from None
    for number, record in enumerate(records, start=1):
        yield Row(to_row(record), f"{source} record {number}", source)


def read_feedback(source: str) -> Iterator[Row]:
    """What people had said in a store when its event `@N` was written; without one, up to the newest."""
    address, until = _store_of(source)
    from accord.feedback.store.database import Database
    from accord.feedback.store.events import last_event, read_records

    database = Database(address, writes=False)
    try:
        with database.read() as connection:
            newest = last_event(connection)
            if until is not None and until > newest:
                raise BadInput(f"{source}: the store has {newest} events")
            for number, record in read_records(connection, newest if until is None else until):
                yield Row(to_row(record), f"{source} event {number}", source)
    finally:
        database.close()


def pin_feedback(source: str) -> str:
    """The source with the event that is the newest now, `feedback:ADDRESS@N`: it stands for the same rows for ever."""
    address, until = _store_of(source)
    if until is not None:
        return source
    from accord.feedback.store.database import Database
    from accord.feedback.store.events import last_event

    database = Database(address, writes=False)
    try:
        with database.read() as connection:
            return f"feedback:{address}@{last_event(connection)}"
    finally:
        database.close()


def _store_of(source: str) -> tuple[str, int | None]:
    match = FEEDBACK.fullmatch(source)
    if match is None:
        raise BadInput(f"{source}: write feedback:FILE.db, feedback:sqlite:///PATH or feedback:postgresql://HOST/NAME")
    return match["address"], int(match["until"]) if match["until"] else None


def parse_world(source: str) -> tuple[str, dict[str, Any]]:
    """`world:NAME[/SLICE][?count=N&seed=S]` as the name of a function of `accord.world` and its arguments.

    Comparisons have `equal_ties=1` too: who compares calls equal what is worth the same.
    """
    body, _, query = source.removeprefix("world:").partition("?")
    name, _, part = body.partition("/")
    if name not in WORLD_NAMES:
        near = difflib.get_close_matches(name, WORLD_NAMES, n=1)
        raise BadInput(
            f"{source}: the gold world has no '{name}'{f'; did you mean {near[0]}' if near else ''}; "
            f"it has {', '.join(WORLD_NAMES)}."
        )
    # The corpus and the demonstrations have a size of their own; the rest has none.
    settings: dict[str, Any] = {} if name in ("corpus", "demonstrations") else {"count": 1000}
    if part:
        if name != "prompts":
            raise BadInput(f"{source}: only world:prompts has slices.")
        settings["slice"] = part
    for key, value in parse_qsl(query, keep_blank_values=True):
        known = ("count", "seed", "equal_ties") if name == "comparisons" else ("count", "seed")
        if key not in known:
            said = f"{', '.join(known[:-1])} and {known[-1]}"
            raise BadInput(f"{source}: unknown setting '{key}'; known are {said}.")
        if not value.isdecimal() or (key == "count" and int(value) == 0):
            raise BadInput(f"{source}: {key} must be a whole number{' above 0' if key == 'count' else ''}.")
        settings[key] = int(value)
    return name, settings
