"""Knobs of online rounds, and of who compares in them."""

from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from accord.config import Asking, Idle, Reading, Run, Sampling, Sources, is_server
from accord.stages.dpo.config import Dpo

Labeler = Literal["simulated", "gold", "preference", "ai"]


LABELERS = (
    "who compares: the gold world's simulated people, its truth, a preference model (--scorer DIR), or a language "
    "model that is asked which reply is better (ai, --scorer DIR or PROTOCOL:URL#MODEL)"
)


SCORER = (
    "what labels: a preference model, or the language model of labeler ai, which may be behind a server: "
    "openai:URL#MODEL, anthropic:URL#MODEL, systemone:URL#MODEL"
)


class Annotate(Run, Asking):
    """Label sampled replies: by simulated people of the gold world, by its truth, or by a preference model."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "temperature flips length_bias position_bias group",
            lambda c: c.labeler == "simulated",
            "with --labeler {c.labeler} (no people are simulated)",
        ),
    )
    samples: str = Field(description="run folder of `accord sample`, two replies or more to each prompt")
    labeler: Labeler = Field("simulated", description=LABELERS)
    scorer: str = Field("", description=SCORER)
    criteria: list[str] = Field(["helpful", "harmless"], description="criteria to compare under")
    judged: list[str] = Field(["harmless"], description="criteria to judge single replies under (safe or not)")
    slices: dict[str, str] = Field({}, description="criterion → slices to compare on, with commas; default all")
    judged_slices: dict[str, str] = Field({}, description="criterion → slices to judge on, with commas; default all")
    temperature: float = Field(0.5, ge=0, description="of the Bradley–Terry choice, in gold points")
    flips: float = Field(0.05, ge=0, le=0.5, description="share of answers turned round")
    length_bias: float = Field(0.0, description="what ten more words are worth, in gold points")
    position_bias: float = Field(0.0, description="what being shown first is worth, in gold points")
    group: str = Field(
        "mixed",
        description="annotators: a group (mixed, cautious, eager, gentle, direct) or a crowd of two (caution, manner)",
    )

    @property
    def asks_server(self) -> bool:
        return self.labeler == "ai" and is_server(self.scorer)

    @model_validator(mode="after")
    def _labeler_can(self) -> "Annotate":
        _check_labeler(self.labeler, self.scorer)
        if self.labeler == "preference" and len(self.criteria) != 1:
            raise ValueError("--criteria: a preference model compares under its own criterion alone")
        if self.labeler != "simulated" and self.judged:
            raise ValueError(f"--judged: labeler {self.labeler} compares and does not judge; give an empty list")
        return self


def _check_labeler(labeler: str, scorer: str) -> None:
    if (labeler in ("preference", "ai")) != bool(scorer):
        raise ValueError("--scorer DIR goes with --labeler preference or ai and with no other; give both, or neither")


class Online(Run, Sampling, Reading, Asking):
    """Rounds on a policy's own replies: sample, have them compared, train by a direct loss."""

    model: str = Field(description="snapshot to start from; it stays the reference of every round")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    rounds: int = Field(3, gt=0, description="rounds; each trains on replies of the policy that the last one left")
    prompts: int = Field(512, gt=0, description="prompts per round, new ones in each")
    samples: int = Field(2, gt=1, description="replies per prompt")
    labeler: Labeler = Field("gold", description=LABELERS)
    scorer: str = Field("", description=SCORER)
    criterion: str = Field("helpful", description="the quality that the replies are compared under")
    train: dict[str, int | float | bool | str] = Field(
        {}, description="--train.KNOB VALUE: knobs of `accord dpo` for the training of every round"
    )

    @property
    def asks_server(self) -> bool:
        return self.labeler == "ai" and is_server(self.scorer)

    @model_validator(mode="after")
    def _rounds_fit(self) -> "Online":
        _check_labeler(self.labeler, self.scorer)
        taken = {*Run.model_fields, *Sampling.model_fields, "model", "reference", "criterion"}
        for knob in self.train:
            if knob not in Dpo.model_fields:
                raise ValueError(f"--train.{knob}: `accord dpo` has no such knob")
            if knob in taken or Dpo.model_fields[knob].annotation == Sources:
                raise ValueError(f"--train.{knob}: the rounds set it themselves; leave it out")
        self.training("model", "data", out="out", resume=False)
        return self

    def training(self, model: str, data: str, *, out: str, resume: bool) -> Dpo:
        """The training of a round. Raises ValueError that names the knob which `accord dpo` refuses."""
        ours: dict[str, Any] = {"seed": self.seed, "threads": self.threads}
        if self.train.get("kl_prompts") != 0:
            ours["max_new_tokens"] = self.max_new_tokens
        try:
            return Dpo(
                model=model,
                data=data,
                out=out,
                resume=resume,
                criterion=self.criterion,
                **{**ours, "reference": self.model, **self.train},
            )
        except ValidationError as error:
            where = ".".join(["--train", *map(str, error.errors()[0]["loc"])])
            raise ValueError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
