"""Knobs of asking what a snapshot knows, and of a head that foretells it."""

import re
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from accord.config import Adapters, Decoding, Precision, Rendering, Run, Sources, Supervised, rare

BLANKS = ("answer", "sure")  # of a template
_BLANK = re.compile(r"\{(\w*)\}")


class ProbeKnowledge(Run, Decoding, Rendering):
    """Find what a snapshot knows by samples against known answers, and write what teaches it to say so."""

    counts_replies: ClassVar[bool] = True
    model: str = Field(description="snapshot to ask")
    questions: dict[str, str] = Field(
        description="--questions.NAME SOURCE: questions with answers, or that have none (docs/honesty.md); "
        "world:prompts/SLICE"
    )
    split: str = Field("", description="ask only prompts of this split (preference, policy, evaluation)")
    samples: int = Field(10, gt=1, description="replies to each question")
    known_from: float = Field(
        0.5, gt=0, le=1, description="share of right replies from which a question counts as known"
    )
    if_known: str = Field("{answer}", description="what to say where known: {answer} its commonest right reply, {sure}")
    if_unknown: str = Field(
        "", description="what to say elsewhere, with the same blanks; default: that it does not know"
    )
    max_new_tokens: int = Field(48, gt=0, description="longest reply in tokens")
    max_length: int = Field(512, gt=1, description="longest text in tokens; longer ones are dropped and counted")
    precision: Precision = Field("f32", description="of the forward passes; auto: bf16 where it is twice as fast")

    @field_validator("if_known", "if_unknown")
    @classmethod
    def _has_known_blanks(cls, value: str) -> str:
        for blank in _BLANK.findall(value):
            if blank not in BLANKS:
                raise ValueError(f"there is no blank {{{blank}}}; there are {{answer}} and {{sure}}")
        return value

    @model_validator(mode="after")
    def _samples_differ(self) -> "ProbeKnowledge":
        if not self.questions:
            raise ValueError("nothing to ask; give --questions.NAME SOURCE")
        if not self.temperature:
            raise ValueError("--temperature 0 draws the same reply --samples times; leave it out")
        return self


class ProbeHead(Supervised, Adapters, Rendering):
    """Train a P(IK) head on what a probe has found: whether the model knows, told from the prompt alone."""

    model: str = Field(description="snapshot that was probed")
    data: Sources = Field(description="judgements.jsonl of `accord probe`; --data.NAME SOURCE for several")
    epochs: float = Field(2.0, gt=0, description="passes over the questions")
    batch_size: int = Field(128, gt=0, description="questions per optimizer step")
    eval_share: float = rare(0.1, gt=0, lt=1, description="share of the questions held out to measure on")
