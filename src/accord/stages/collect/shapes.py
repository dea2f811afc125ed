"""Shapes that labels leave in: rows that `data/` reads back as the record that they were made of."""

from collections.abc import Callable
from typing import Any

from accord.data.conversations import Dropped
from accord.data.rows import Record, stored_row
from accord.records import Comparison, Demonstration, Judgement, Prompt, Turn, as_messages

SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def _about(record: Comparison | Judgement) -> dict[str, str]:
    """What every shape carries in columns of their own."""
    return {"labeler": record.labeler, **_whence(record.prompt)}


def _whence(prompt: Prompt) -> dict[str, str]:
    return {"slice": prompt.slice, "source": prompt.source}


def _comparison(record: Record) -> Comparison:
    if not isinstance(record, Comparison):
        raise Dropped("other kind of record")
    return record


def _better_and_worse(record: Record) -> tuple[Comparison, str, str]:
    """Two replies, the better one first; those of a tie in their order."""
    said = _comparison(record)
    if len(said.replies) != 2:
        raise Dropped("more than two replies")
    first, second = said.replies if said.ranks[0] <= said.ranks[1] else said.replies[::-1]
    return said, first, second


def _verdict(said: Comparison) -> dict[str, Any]:
    tie = {"tie": True} if said.ranks[0] == said.ranks[1] else {}
    return {"margin": said.strength, **tie, **({"all_bad": True} if said.all_bad else {}), **_about(said)}


def preference(record: Record) -> dict[str, Any]:
    """TRL's conversational pairs, with how clear the choice was."""
    said, better, worse = _better_and_worse(record)
    sides = {
        name: [{"role": "assistant", "content": reply}] for name, reply in (("chosen", better), ("rejected", worse))
    }
    return {"prompt": as_messages(said.prompt.turns), **sides, **_verdict(said)}


def hh(record: Record) -> dict[str, Any]:
    """Transcripts with Human and Assistant, as HH-RLHF has them."""
    said, better, worse = _better_and_worse(record)
    if any(turn.role not in SPEAKERS for turn in said.prompt.turns):
        raise Dropped("a turn of the system or a tool, which a transcript has not")
    texts = [*(turn.content for turn in said.prompt.turns), better, worse]
    if any(f"\n\n{speaker}:" in f"\n\n{text}" for text in texts for speaker in SPEAKERS.values()):
        raise Dropped("a text that looks like a speaker of the transcript")
    if any(text != text.strip() for text in texts):
        raise Dropped("white space around a text, which a transcript does not keep")
    before = "".join(f"\n\n{SPEAKERS[turn.role]}: {turn.content}" for turn in said.prompt.turns)
    sides = {name: f"{before}\n\nAssistant: {reply}" for name, reply in (("chosen", better), ("rejected", worse))}
    return {**sides, **_verdict(said)}


def votes(record: Record) -> dict[str, Any]:
    """Votes of an arena: two conversations and the winner."""
    said = _comparison(record)
    if len(said.replies) != 2:
        raise Dropped("more than two replies")
    a, b = said.ranks
    winner = "tie (bothbad)" if said.all_bad and a == b else "tie" if a == b else "model_a" if a < b else "model_b"
    talks = [as_messages((*said.prompt.turns, Turn("assistant", reply))) for reply in said.replies]
    return {"conversation_a": talks[0], "conversation_b": talks[1], "winner": winner, **_about(said)}


def rankings(record: Record) -> dict[str, Any]:
    """All replies with their ranks."""
    said = _comparison(record)
    bad = {"all_bad": True} if said.all_bad else {}
    columns = {"prompt": as_messages(said.prompt.turns), "responses": list(said.replies), "ranks": list(said.ranks)}
    return {**columns, **bad, **_about(said)}


def _judged(record: Record, kind: str) -> tuple[Judgement, dict[str, Any]]:
    """A judgement of the kind, and the columns of every one."""
    if not isinstance(record, Judgement) or record.kind != kind:
        raise Dropped("other kind of record")
    return record, {"prompt": as_messages(record.prompt.turns), "completion": record.reply}


def ratings(record: Record) -> dict[str, Any]:
    """Conversations with how they went, as a number."""
    said, columns = _judged(record, "rating")
    return {**columns, "rating": said.value, **_about(said)}


def safety(record: Record) -> dict[str, Any]:
    """Single replies, safe or not."""
    said, columns = _judged(record, "safe")
    return {
        **columns,
        "is_safe": bool(said.value),
        **({"category": said.category} if said.category else {}),
        "severity": said.severity,
        **_about(said),
    }


def messages(record: Record) -> dict[str, Any]:
    """Demonstrations as conversations that end with the ideal reply."""
    if not isinstance(record, Demonstration):
        raise Dropped("other kind of record")
    return {"messages": as_messages((*record.prompt.turns, Turn("assistant", record.reply))), **_whence(record.prompt)}


SHAPES: dict[str, Callable[[Record], dict[str, Any]]] = {
    "records": stored_row,
    "preference": preference,
    "rankings": rankings,
    "hh": hh,
    "votes": votes,
    "safety": safety,
    "ratings": ratings,
    "messages": messages,
}
