"""Knobs of constitutions."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from accord.config import Asking, Idle, Listed, Reading, Run, Sampling, Sources, is_server, rare

REVISED = "critic revisions critique helpful"
COMPARED = "replies samples labels calibration require_calibration checks"
JUDGED = "judge criterion ensemble clamp think"
DRAWN = "model data split samples temperature max_new_tokens max_rows columns"
TALKED = "model data split constitution tags shots temperature max_new_tokens max_rows columns cache_tokens"
COMPUTED = "seed threads"
WRITTEN = "temperature max_new_tokens"
MEASURING = ("calibration", "steering")  # of a judge, on labelled comparisons
VOTED = "from_votes statements keep"


class Constitution(Run, Sampling, Reading, Asking):
    """Principles at work: replies criticised and revised, or compared; judges measured; principles made of votes."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(REVISED, lambda c: c.make == "demonstrations", "with --make {c.make}"),
        Idle(COMPARED, lambda c: c.make == "comparisons", "with --make {c.make}"),
        Idle(JUDGED, lambda c: c.make in ("comparisons", *MEASURING), "with --make {c.make}"),
        Idle(WRITTEN, lambda c: c.make not in MEASURING, "with --make {c.make} (nothing is drawn)"),
        Idle("model", lambda c: c.make not in MEASURING or not c.judge, "with --judge (nothing is drawn)"),
        Idle("think clamp ensemble", lambda c: c.make != "steering", "with --make steering (asked plainly)"),
        Idle("tries", lambda c: c.make == "steering", "with --make {c.make}"),
        Idle("mapping", lambda c: c.calibration, "without --calibration RUN"),
        Idle(f"{TALKED} {COMPUTED}", lambda c: c.make != "principles", "with --make principles"),
        Idle(VOTED, lambda c: c.make == "principles", "with --make {c.make}"),
        Idle(DRAWN, lambda c: not c.replies, "with --replies (they are there)"),
        Idle("question", lambda c: c.make in MEASURING, "with --make {c.make} (two replies are compared)"),
        Idle("shots think clamp", lambda c: c.question == "choice", "with --question {c.question} (asked plainly)"),
        Idle("clamp", lambda c: c.think, "without --think N (no chain of thought is sure of itself)"),
    )
    asked_knob: ClassVar[str] = "critic or --judge"
    make: Literal["demonstrations", "comparisons", "calibration", "steering", "principles"] = Field(
        "demonstrations",
        description="replies criticised and revised, for sft; two replies compared, for preference and dpo; the judge "
        "measured on comparisons that are labelled, or steered by texts inside replies; or a constitution of votes",
    )
    constitution: str = Field("default", description="default, world, a YAML file, or a folder of the paper's prompts")
    tags: Listed = Field([], description="use only principles of these names or tags, with commas; default: all")
    model: str = Field("", description="whose replies they are: a policy, or PROTOCOL:URL#MODEL")
    data: Sources = Field("", description="prompts, or labelled comparisons to measure the judge on")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    critic: str = Field("", description="who criticises and revises, as --model; default: the model itself")
    revisions: int = Field(4, gt=0, description="revisions of each reply, by a principle drawn anew for each")
    critique: bool = Field(True, description="a critique before each revision; false: the revision alone")
    helpful: Sources = Field("", description="prompts whose replies are demonstrations as they are")
    shots: int = Field(3, ge=0, description="worked examples of the constitution before each request, at most")
    judge: str = Field("", description="who compares, as --model; default: the model itself")
    replies: str = Field("", description="run folder of `accord sample`, two replies or more to each prompt")
    samples: int = Field(2, gt=1, description="replies drawn to each prompt")
    criterion: str = Field("harmless", description="criterion of the comparisons")
    question: Literal["choice", "yes-no", "score"] = Field(
        "choice", description="what is measured: which of two replies is better, or single ones as ppo's labeler: asks"
    )
    ensemble: int = Field(1, ge=0, description="principles drawn for each comparison; 0: all of them")
    think: int = Field(0, ge=0, description="tokens of a chain of thought before each answer; 0: none")
    clamp: float = Field(
        0.4, ge=0, lt=0.5, description="probabilities after a chain of thought are held between this and 1 − this"
    )
    labels: Literal["soft", "hard"] = rare(
        "soft", description="of the comparisons: how likely the judge finds each reply the better, or its choice alone"
    )
    calibration: str = Field(
        "", description="run folder of --make calibration: its temperature is applied to the labels"
    )
    mapping: Literal["temperature", "isotonic"] = rare(
        "temperature", description="what of the calibration is applied: its temperature, or its isotonic regression"
    )
    checks: Sources = Field(
        "", description="labelled comparisons, asked about among the others: a judge that fails them is refused"
    )
    tries: int = rare(12, gt=0, description="pairs that every text which would steer the judge is tried on")
    require_calibration: bool = Field(False, description="refuse to label without --calibration of this very judge")
    from_votes: str = Field("", description="votes: CSV, a row a participant with group-id and a column a statement")
    statements: str = Field("", description="what was voted on: CSV with comment-id and comment-body")
    keep: int = rare(20, gt=0, description="principles: so many statements of the highest group-aware consensus")

    @property
    def asks_server(self) -> bool:
        return any(is_server(where) for where in (self.model, self.critic, self.judge))

    @model_validator(mode="after")
    def _is_whole(self) -> "Constitution":
        if self.make == "principles":
            if not self.from_votes or not self.statements:
                raise ValueError("--make principles needs --from_votes and --statements; give both")
            return self
        if self.require_calibration and not self.calibration:
            raise ValueError(
                "--require_calibration needs --calibration RUN of --make calibration; measure the judge first"
            )
        if self.make in MEASURING and not ((self.judge or self.model) and self.data):
            raise ValueError(f"--make {self.make} needs --judge and --data, comparisons that are labelled; give both")
        if self.make not in MEASURING and not self.replies and not (self.model and self.data):
            raise ValueError(f"--make {self.make} needs --model and --data" + self._or_replies())
        if self.replies and not self.judge:
            raise ValueError("--replies are compared by --judge; name one")
        return self

    def _or_replies(self) -> str:
        return " (or --replies and --judge)" if self.make == "comparisons" else ""
