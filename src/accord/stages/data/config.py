"""Knobs of looking at data."""

from pydantic import Field

from accord.config import Reading


class Data(Reading):
    """Show what a source holds: shape, rows, drops, lengths, an example with its mask."""

    source: str = Field(description="the source to look at")
    model: str = Field("", description="snapshot whose tokenizer renders the example; default a word tokenizer")
