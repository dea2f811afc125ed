"""The cells of a row: typed reading of columns.

A cell of the wrong type raises BadInput with its place; a null one raises `Dropped`, and is counted.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from accord.data.conversations import (
    Dropped,
    Turns,
    is_null,
    is_transcript,
    join_prompt,
    list_columns,
    parse_text,
    parse_transcript,
    read_messages,
    unpack,
)
from accord.errors import BadInput
from accord.records import Turn

FLAGS = {"safe": 1, "unsafe": 0, "true": 1, "false": 0, "yes": 1, "no": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}


@dataclass(frozen=True, slots=True)
class Fields:
    """The cells of a row by field; `columns` says which column of the file a field was taken from.

    `notes` gathers what was seen in the cells and does no harm; the columns that are read in another way share it.
    """

    values: Mapping[str, Any]
    where: str
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def note(self, what: str) -> None:
        self.notes[what] = None

    def renamed(self, names: Mapping[str, str]) -> "Fields":
        """The same cells with those of the columns `names[field]` under their fields too."""
        taken = {name: self.values[column] for name, column in names.items() if column in self.values}
        return replace(self, values={**self.values, **taken}, columns={**self.columns, **names})

    def has(self, name: str) -> bool:
        """Whether something stands in the cell; a table has empty text for nothing."""
        value = self.values.get(name)
        return not is_null(value) and value != ""

    def get(self, name: str) -> Any:
        column = self.columns.get(name, name)
        if column not in self.values and name not in self.values:
            raise BadInput(f"{self.where}: column '{column}' is missing; there are {list_columns(self.values)}.")
        if is_null(self.values.get(name)):
            raise Dropped(f"no {column}")
        return self.values[name]

    def wrong(self, name: str, due: str) -> BadInput:
        return BadInput(f"{self.where}: column '{self.columns.get(name, name)}' must hold {due}.")

    def text(self, name: str) -> str:
        value = self._written(name, self.get(name))
        if not isinstance(value, str):
            raise self.wrong(name, "text")
        return value

    def _written(self, name: str, value: Any) -> Any:
        """A number as the text that it reads as, which is noted. Of a truth value how it was written is lost."""
        if isinstance(value, bool):
            raise Dropped(f"{self.columns.get(name, name)} is no text")
        if not isinstance(value, int | float):
            return value
        self.note(f"a number in column {self.columns.get(name, name)}, read as text")
        return str(value)

    def number(self, name: str) -> float:
        """A number; as text too, which is all that a CSV table has, where empty text is none."""
        value = self.get(name)
        if value == "":
            raise Dropped(f"no {self.columns.get(name, name)}")
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise self.wrong(name, "a finite number") from None
            if math.isnan(value):
                raise Dropped(f"no {self.columns.get(name, name)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "a finite number")
        return value

    def flag(self, name: str) -> bool:
        value = self.get(name)
        if value == "":
            raise Dropped(f"no {self.columns.get(name, name)}")
        if isinstance(value, str):
            value = FLAGS.get(value.lower(), value)
        if value not in (0, 1):
            raise self.wrong(name, "true or false (0 or 1)")
        return bool(value)

    def index(self, name: str) -> int:
        value = self.get(name)
        if isinstance(value, bool) or value not in (0, 1, "0", "1"):
            raise self.wrong(name, "0 or 1, the number of a response")
        return int(value)

    def items(self, name: str) -> list[Any]:
        """A list; as JSON text or as Python prints it too."""
        value = self.get(name)
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = parse_text(value)
        if not isinstance(value, list | tuple):
            raise self.wrong(name, "a list")
        return list(value)

    def whole_numbers(self, name: str) -> tuple[int, ...]:
        values = self.items(name)
        if any(isinstance(v, bool) or not isinstance(v, int | float) or v % 1 != 0 for v in values):
            raise self.wrong(name, "a list of whole numbers")
        return tuple(int(v) for v in values)

    def names(self, name: str, count: int) -> tuple[str, ...]:
        """A list of so many texts that are not empty."""
        found = self.items(name)
        if len(found) != count or not all(isinstance(one, str) and one for one in found):
            raise self.wrong(name, f"{count} names, one for each reply")
        return tuple(found)

    def turns(self, name: str) -> Turns:
        """A prompt or conversation: plain text (one user turn), an HH transcript, or a list of messages."""
        value = self._written(name, unpack(self.get(name)))
        if isinstance(value, str):
            return parse_transcript(value) if is_transcript(value) else (Turn("user", value),)
        return self.messages(name, value)

    def side(self, name: str, value: Any, prompt: Turns, strip: bool = False) -> tuple[Turns, str]:
        """One reply with the prompt it answers: plain text, or messages that end with the assistant's.

        Messages before the last belong to the prompt; where they repeat the prompt they are not added twice.
        """
        value = self._written(name, unpack(value))
        if isinstance(value, str):
            return prompt, value.strip() if strip else value
        turns = self.messages(name, value)
        if not turns or turns[-1].role != "assistant":
            raise Dropped("no reply")
        return join_prompt(prompt, turns[:-1]), turns[-1].content

    def messages(self, name: str, value: Any) -> Turns:
        return read_messages(value, lambda due: self.wrong(name, due), self.note)
