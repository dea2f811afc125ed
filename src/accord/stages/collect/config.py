"""Knobs of the store that people answer into."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from accord.config import Config, Idle, Reading

ExportShape = Literal["records", "preference", "rankings", "hh", "votes", "safety", "messages", "events"]
DATABASE = "the store: a SQLite file, sqlite:///PATH or postgresql://HOST/NAME"


class CollectExport(Config):
    """Write what people said to a file, in a shape that other tools and Accord itself read."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("criterion", lambda c: c.shape not in ("messages", "events"), "with --shape {c.shape}, which has none"),
    )
    database: str = Field("feedback.db", description=DATABASE)
    out: str = Field(description="FILE.jsonl[.gz] to write; must be new")
    shape: ExportShape = Field("records", description="columns of the rows (docs/feedback.md); records lose nothing")
    criterion: str = Field("", description="what was said under this one alone; most shapes hold one")
    until: int = Field(0, ge=0, description="number of the last event to count; 0: the newest")


class CollectImport(Reading):
    """Put questions on the desk: prompts and replies of a source, for people to answer."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("criterion", lambda c: c.mode != "demonstrate", "with --mode demonstrate, which asks under none"),
    )
    data: str = Field(description="source of prompts, of comparisons (whose replies are shown) or of single replies")
    database: str = Field("feedback.db", description=DATABASE)
    mode: Literal["compare", "demonstrate", "safety", "edit"] = Field("compare", description="what is asked")
    criterion: list[str] = Field([], description="--criterion A --criterion B: asked about separately")
    overlap: int = Field(1, ge=1, description="how many different people answer each question")
    tag: str = Field("", description="expertise that the questions ask for: only people with this tag get them")

    @model_validator(mode="after")
    def _asks_under_something(self) -> "CollectImport":
        if self.mode != "demonstrate" and not self.criterion:
            raise ValueError(f"--mode {self.mode} asks under a criterion; give --criterion helpful")
        return self


class CollectBackup(Config):
    """Copy a SQLite store while it is in use; the copy is whole and one state of it."""

    database: str = Field("feedback.db", description="the store: a SQLite file, or sqlite:///PATH")
    out: str = Field(description="file to write; must be new")
