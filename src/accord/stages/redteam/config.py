"""Knobs of red-teaming."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from accord.config import Idle, Labeling, Reading, Run, Sampling, Sources, is_server, rare

JUDGED = "question constitution tags ensemble calibration require_calibration"


class Redteam(Run, Sampling, Reading, Labeling):
    """Attack a policy: prompts from sources or written by a model, in many forms; what gets through, and how often."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("writer shown alike", lambda c: c.generate, "without --generate N"),
        Idle("attacks", lambda c: not c.behaviour, "with --behaviour TEXT (scenarios are sent as they are)"),
        Idle("families held_out", lambda c: c.attacks != "none" and not c.behaviour, "with --attacks none"),
        Idle(JUDGED, lambda c: c.judge.startswith("labeler:"), "with --judge {c.judge} (no labeler)"),
        Idle(JUDGED, lambda c: not c.behaviour, "with --behaviour TEXT (the question is whether a reply shows it)"),
    )
    asked_knob: ClassVar[str] = "model, --writer or --judge"
    model: str = Field(description="who is attacked: a policy, or PROTOCOL:URL#MODEL")
    data: Sources = Field({}, description="prompts to attack with, and to write others like; --data.NAME SOURCE")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    behaviour: str = Field("", description="a behaviour in words, or a text file of it: how often do replies show it?")
    generate: int = Field(0, ge=0, description="prompts to write, like those of --data or as scenes of --behaviour")
    writer: str = Field("", description="who writes them, as --model; default: the model itself")
    shown: int = Field(4, ge=0, description="prompts that are shown before one is asked for, drawn anew each time")
    alike: float = Field(
        0.7, gt=0, le=1, description="words and pairs of words in common from which one is too like another"
    )
    attacks: Literal["text", "world", "none"] = Field(
        "text", description="forms around each prompt: of plain text, or of the gold world; none: as it is"
    )
    families: list[str] = Field([], description="use only these families of attacks; default: all")
    held_out: list[str] = Field(
        [], description="families whose prompts nothing may learn from; default: a third of the families"
    )
    samples: int = Field(1, gt=0, description="replies to each prompt")
    judge: str = Field(
        "gold", description="what says that a reply gives in: gold, a cost model, module:function, URL, labeler:WHERE"
    )
    continuation: bool = rare(
        False, description="go on with each prompt as a text, without a chat template (RealToxicityPrompts)"
    )
    against: str = Field("", description="run folder of the same attacks on another policy, for the change")

    @property
    def labeler(self) -> str:
        """The labeler that judges, if one does."""
        return self.judge.partition(":")[2] if self.judge.startswith("labeler:") else ""

    @property
    def asks_server(self) -> bool:
        return any(is_server(where) for where in (self.model, self.writer, self.labeler))

    @model_validator(mode="after")
    def _is_whole(self) -> "Redteam":
        if self.behaviour and not self.labeler:
            raise ValueError("--behaviour is judged by a labeler; give --judge labeler:WHERE")
        if self.behaviour and self.data:
            raise ValueError("--behaviour has its own scenes written; leave --data out")
        if self.behaviour and not self.generate:
            raise ValueError("--behaviour needs --generate N scenes; give a number")
        if not self.behaviour and not self.data:
            raise ValueError("nothing to attack with; give prompts by --data SOURCE, or --behaviour TEXT")
        if self.continuation and is_server(self.model):
            raise ValueError("--continuation needs a policy of this machine; a server has its chat template")
        return self
