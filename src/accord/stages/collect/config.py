"""Knobs of the store that people answer into."""

import re
from typing import ClassVar, Literal, get_args

from pydantic import Field, model_validator

from accord.config import Config, Idle, Reading, Sampling, Sources, rare
from accord.feedback.store.questions import Picks
from accord.records import Prompt, is_in_slices

ExportShape = Literal[
    "records", "preference", "rankings", "hh", "votes", "safety", "ratings", "messages", "events", "time"
]
CHECKED = ("compare", "safety")  # modes in which an answer can be right
HISTORY = ("events", "time")  # shapes of what happened, not of records
Drawn = Literal["compare", "safety", "edit"]  # asked about replies that are drawn beforehand
Served = Literal[Drawn, "chat", "redteam"]
DATABASE = "the store: a SQLite file, sqlite:///PATH or postgresql://HOST/NAME"


class Weighing(Config):
    """What is known of questions when they are put on the desk."""

    harmful: str = Field("harmful,red-team", description="slices whose texts weigh on people, with commas; empty: none")

    def weighs(self, prompt: Prompt) -> bool:
        """Whether a prompt is of one of these slices."""
        return bool(self.harmful) and is_in_slices(prompt, self.harmful)


class Collect(Sampling, Reading, Weighing):
    """Serve the page on which people compare, write and judge replies; with --snapshots on fresh ones."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "criterion data mode samples picks overlap harmful temperature max_new_tokens cache_tokens seed max_rows "
            "columns",
            lambda c: c.snapshots,
            "without --snapshots (the questions are those of the store; see accord collect import)",
        ),
        Idle("samples", lambda c: "compare" in c.mode, "with --mode {c.modes}, which shows another number of replies"),
        Idle(
            "data overlap seed max_rows columns harmful",
            lambda c: c.drawn,
            "with --mode {c.modes}: people begin themselves",
        ),
        Idle("picks", lambda c: "redteam" in c.mode, "without --mode redteam"),
        Idle("pause_minutes", lambda c: c.harmful_in_a_row, "without --harmful_in_a_row"),
        Idle("check_least check_right", lambda c: c.check_share, "with --check_share 0: no check item is asked"),
    )
    rounds: str = Field("", description="--rounds RUN: ask the questions of a run of accord online, as they come")
    snapshots: list[str] = Field([], description="--snapshots A B: policies that draw the replies; none: what is there")
    criterion: list[str] = Field([], description="--criterion A --criterion B: asked about separately")
    data: Sources = Field("world:prompts?count=200&seed=0", description="prompts that the snapshots answer")
    mode: list[Served] = Field(
        ["compare"], min_length=1, description="--mode A B: what is asked about replies; chat, redteam: conversations"
    )
    picks: Picks = Field("worse", description="which reply people choose with --mode redteam")
    samples: int = Field(2, ge=2, le=8, description="replies beside each other; snapshots take turns")
    overlap: int = Field(1, ge=1, description="how many different people answer each question")
    seed: int = Field(0, ge=0, description="seed of the replies")
    database: str = Field("feedback.db", description=DATABASE)
    guidelines: str = Field("", description="text file that people see beside every question")
    harmful_a_day: int = Field(0, ge=0, description="harmful questions that one person gets in 24 hours; 0: no cap")
    harmful_in_a_row: int = Field(0, ge=0, description="harmful questions in a row before a break; 0: no break")
    pause_minutes: float = Field(15.0, gt=0, description="how long such a break is")
    check_share: float = Field(0.1, ge=0, le=0.5, description="share of questions that are check items, if there are")
    check_least: int = rare(10, ge=1, description="check items that somebody has answered before they can be excluded")
    check_right: float = rare(0.7, ge=0, le=1, description="who has less than this share of them right is excluded")
    random_share: float = Field(0.2, gt=0, le=1, description="share of questions with a score that is taken at random")
    categories: list[str] = Field([], description="--categories A B: what an unsafe reply may harm")
    help_line: str = Field("", description="whom to turn to when a text weighs on somebody")
    host: str = Field("127.0.0.1", description="address to listen on; any other than this machine's is open to all")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one and says it")
    hosts: list[str] = Field([], description="--hosts NAME: names that a proxy is reached by")
    prefix: str = Field("", description="path that the page stands under behind a proxy, as /accord")
    secure: bool = Field(False, description="the proxy speaks https: cookies are sent over nothing else")
    secret: str = rare("", description="file of the page's secret, made at the first start; default: beside the store")

    @property
    def modes(self) -> str:
        """As the flag has them."""
        return " ".join(self.mode)

    @property
    def drawn(self) -> list[Drawn]:
        """The modes that need prompts."""
        return [mode for mode in get_args(Drawn) if mode in self.mode]

    @model_validator(mode="after")
    def _asks_something(self) -> "Collect":
        if self.rounds and self.snapshots:
            raise ValueError("--rounds: the run draws the replies itself; leave --snapshots out")
        if self.snapshots and not self.criterion:
            raise ValueError("--snapshots: replies are asked about under a criterion; give --criterion helpful")
        if self.prefix and not re.fullmatch(r"(/[\w.-]+)+", self.prefix):
            raise ValueError(f"--prefix {self.prefix}: write a path, as /accord")
        if self.host in ("0.0.0.0", "::") and not self.hosts:
            raise ValueError(f"--host {self.host} is every address; name what the page is reached by: --hosts NAME")
        return self


class CollectExport(Config):
    """Write what people said to a file, in a shape that other tools and Accord itself read."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("criterion", lambda c: c.shape not in ("messages", *HISTORY), "with --shape {c.shape}, which has none"),
        Idle("decisions", lambda c: c.shape not in HISTORY, "with --shape {c.shape}, which holds both"),
    )
    database: str = Field("feedback.db", description=DATABASE)
    out: str = Field(description="FILE.jsonl[.gz] to write; must be new")
    shape: ExportShape = Field("records", description="columns of the rows (docs/feedback.md); records lose nothing")
    criterion: str = Field("", description="what was said under this one alone; most shapes hold one")
    until: int = Field(0, ge=0, description="number of the last event to count; 0: the newest")
    decisions: bool = Field(True, description="what a reviewer decided stands in place of the answers; False: answers")


class CollectImport(Reading, Weighing):
    """Put questions on the desk: prompts and replies of a source, for people to answer."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("criterion", lambda c: c.mode != "demonstrate", "with --mode demonstrate, which asks under none"),
        Idle("known", lambda c: c.mode in CHECKED, "with --mode {c.mode}, whose answers are written"),
        Idle("overlap", lambda c: not c.known, "with --known: everybody is asked"),
        Idle("scores", lambda c: c.mode == "compare" and not c.known, "but with --mode compare"),
        Idle("random_share", lambda c: c.scores, "without --scores"),
    )
    data: str = Field(description="source of prompts, of comparisons (whose replies are shown) or of single replies")
    database: str = Field("feedback.db", description=DATABASE)
    mode: Literal["compare", "demonstrate", "safety", "edit"] = Field("compare", description="what is asked")
    criterion: list[str] = Field([], description="--criterion A --criterion B: asked about separately")
    overlap: int = Field(1, ge=1, description="how many different people answer each question")
    tag: str = Field("", description="expertise that the questions ask for: only people with this tag get them")
    known: bool = Field(False, description="the labels are right: questions become check items, asked of everybody")
    scores: str = Field("", description="scores.jsonl of accord score: what its models disagree about is asked first")
    random_share: float = Field(0.2, gt=0, le=1, description="share of questions with a score that is taken at random")
    aids: str = Field("", description="rows of what a model says of replies; half of the people see it beside them")

    @model_validator(mode="after")
    def _asks_under_something(self) -> "CollectImport":
        if self.mode != "demonstrate" and not self.criterion:
            raise ValueError(f"--mode {self.mode} asks under a criterion; give --criterion helpful")
        if self.known and len(self.criterion) > 1:
            raise ValueError("--known: labels are of one criterion; import each with its own --criterion")
        return self


class CollectQuality(Config):
    """Say how good the labels are: agreement, and of everybody bias, time, check items; with --out as JSON too."""

    database: str = Field("feedback.db", description=DATABASE)
    until: int = Field(0, ge=0, description="number of the last event to count; 0: the newest")
    fused: str = Field(
        "", description="criterion that asks for everything at once, to set its agreement beside the others"
    )
    out: str = Field("", description="FILE.json to write; must be new")


class CollectBackup(Config):
    """Copy a SQLite store while it is in use; the copy is whole and one state of it."""

    database: str = Field("feedback.db", description="the store: a SQLite file, or sqlite:///PATH")
    out: str = Field(description="file to write; must be new")
