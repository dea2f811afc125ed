"""The cells of a row: typed reading of columns, conversations and HH transcripts.

A cell of the wrong type raises BadInput with its place; a row that is well formed but of no use raises
`Dropped` with a reason that is counted.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from accord.errors import BadInput
from accord.records import ROLES, Turn

Turns = tuple[Turn, ...]

# Names that other formats use for our roles.
ROLE_NAMES = {**{role: role for role in ROLES}, "human": "user", "gpt": "assistant", "observation": "tool"}


class Dropped(Exception):
    """A row that gives no record; the argument is the reason it is counted under."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The cells of a row by field; `columns` says which column of the file a field was taken from."""

    values: Mapping[str, Any]
    where: str
    columns: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def get(self, name: str) -> Any:
        if not self.has(name):
            column = self.columns.get(name, name)
            raise BadInput(
                f"{self.where}: column '{column}' is missing or null; there are {list_columns(self.values)}."
            )
        return self.values[name]

    def wrong(self, name: str, due: str) -> BadInput:
        return BadInput(f"{self.where}: column '{self.columns.get(name, name)}' must hold {due}.")

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def number(self, name: str) -> float:
        """A number; as text too, which is all that a CSV table has."""
        value = self.get(name)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise self.wrong(name, "a finite number") from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "a finite number")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if isinstance(value, str):
            value = {"safe": True, "unsafe": False, "true": True, "false": False, "1": True, "0": False}.get(
                value.lower(), value
            )
        if value not in (0, 1):
            raise self.wrong(name, "true or false (0 or 1)")
        return bool(value)

    def index(self, name: str) -> int:
        value = self.get(name)
        if isinstance(value, bool) or value not in (0, 1):
            raise self.wrong(name, "0 or 1, the number of a response")
        return int(value)

    def items(self, name: str) -> list[Any]:
        value = self.get(name)
        if not isinstance(value, list | tuple):
            raise self.wrong(name, "a list")
        return list(value)

    def whole_numbers(self, name: str) -> tuple[int, ...]:
        values = self.items(name)
        if any(isinstance(v, bool) or not isinstance(v, int | float) or v % 1 != 0 for v in values):
            raise self.wrong(name, "a list of whole numbers")
        return tuple(int(v) for v in values)

    def turns(self, name: str) -> Turns:
        """A prompt or conversation: plain text (one user turn), an HH transcript, or a list of messages."""
        value = self.get(name)
        if isinstance(value, str):
            return parse_transcript(value) if is_transcript(value) else (Turn("user", value),)
        return self._messages(name, value)

    def side(self, name: str, value: Any, prompt: Turns, strip: bool = False) -> tuple[Turns, str]:
        """One reply with the prompt it answers: plain text, or messages that end with the assistant's.

        Messages before the last belong to the prompt; where they repeat the prompt they are not added twice.
        """
        if isinstance(value, str):
            return prompt, value.strip() if strip else value
        turns = self._messages(name, value)
        if not turns or turns[-1].role != "assistant":
            raise Dropped("no reply")
        head = turns[:-1]
        return (head if head[: len(prompt)] == prompt else prompt + head), turns[-1].content

    def _messages(self, name: str, value: Any) -> Turns:
        messages = [value] if isinstance(value, dict) else value
        if not isinstance(messages, list | tuple):
            raise self.wrong(name, "text or a list of messages")
        turns = []
        for message in messages:
            if not isinstance(message, dict):
                raise self.wrong(name, "messages that are objects with role and content")
            role = message["role"] if message.get("role") is not None else message.get("from")
            content = message["content"] if message.get("content") is not None else message.get("value")
            if not isinstance(role, str) or role not in ROLE_NAMES:
                raise self.wrong(name, f"messages whose role is one of {', '.join(ROLE_NAMES)}")
            if not isinstance(content, str):
                raise self.wrong(name, "messages whose content is text (images and tool calls are not supported)")
            turns.append(Turn(ROLE_NAMES[role], content))
        return tuple(turns)


# HH transcripts

SPEAKERS = {"Human": "user", "Assistant": "assistant"}
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_REPLY = "\n\nAssistant:"


def is_transcript(value: object) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def parse_transcript(text: str) -> Turns:
    """The turns of a prompt in HH form, without white space around; a last empty "Assistant:" is no turn."""
    bare = text.rstrip()
    if bare.endswith(_REPLY):
        text = bare.removesuffix(_REPLY)
    before, *rest = _SPEAKER.split(text)
    if before.strip() or not rest or rest[0] != "Human":
        raise Dropped("malformed transcript")
    return tuple(Turn(SPEAKERS[who], said.strip()) for who, said in zip(rest[::2], rest[1::2], strict=True))


def split_transcript(text: str) -> tuple[Turns, str]:
    """An HH transcript as its prompt and the last assistant turn.

    Whatever follows the last "Assistant:" is the reply, also where the model went on in the human's place.
    """
    head, mark, reply = text.rpartition(_REPLY)
    if not mark:
        raise Dropped("malformed transcript")
    return parse_transcript(head), reply.strip()


def list_columns(row: Mapping[str, Any]) -> str:
    names = [str(name) for name in row]
    return ", ".join(f"'{name}'" for name in names[:20]) + (" …" if len(names) > 20 else "") if names else "(none)"
