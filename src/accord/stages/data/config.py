"""Knobs of looking at data."""

from typing import ClassVar, Literal

from pydantic import Field

from accord.config import Idle, ReadingPairs, rare


class Data(ReadingPairs):
    """Show what a source holds: shape, rows, drops, lengths, an example with its mask; keep what is of use."""

    idle: ClassVar[tuple[Idle, ...]] = (Idle("ngram overlap", lambda c: c.against, "without --against SOURCE"),)
    source: str = Field(description="the source to look at")
    model: str = Field("", description="snapshot whose tokenizer renders the example; default a word tokenizer")
    out: str = Field("", description="FILE.jsonl[.gz] for the rows kept, as records; those dropped are put beside it")
    kind: Literal["", "document", "prompt", "demonstration", "comparison", "judgement"] = Field(
        "", description="kind of record to look for and to keep; default what the columns say most of"
    )
    against: str = Field("", description="training data: which rows of the source stand in it; --out drops them")
    ngram: int = rare(13, gt=1, description="words in a row that both must have to share a passage")
    overlap: float = rare(
        0.5, gt=0, le=1, description="share of a row's words in such passages above which it is a copy"
    )
