"""Knobs of planning."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from accord.config import Idle, Reading, rare

Stage = Literal["sft", "preference", "dpo", "ppo"]
STAGE_NAMES: tuple[Stage, ...] = ("sft", "preference", "dpo", "ppo")


class Forecast(Reading):
    """Memory and time of every stage on a machine: what fits, how to divide it, what breaks first, how to start it."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("prompt_tokens rows", lambda c: not c.data, "with --data SOURCE (where they are counted)"),
        Idle("columns max_rows", lambda c: c.data, "without --data SOURCE"),
        Idle("base_bits", lambda c: c.lora_rank, "without --lora_rank N"),
        Idle("samples ppo_epochs cost_models critic iterations", lambda c: "ppo" in c.stages, "without --stages ppo"),
    )
    model: str = Field(
        description="snapshot, OWNER/NAME[@REVISION], or a shape of docs/scale.md: 0.6b, 1.2b, 4b, 8b, 32b, 70b"
    )
    data: str = Field("", description="source that the stages will read; default: the three numbers below")
    prompt_tokens: int = Field(128, gt=0, description="tokens of a prompt")
    reply_tokens: int = Field(128, gt=0, description="tokens of a reply, where --data has none")
    rows: int = Field(100_000, gt=0, description="rows of data")
    machine: str = Field("this", description="a machine of docs/scale.md, a YAML file of your own, or this one")
    devices: int = Field(0, ge=0, description="devices to use; 0: all of the machine")
    stages: list[Stage] = Field(list(STAGE_NAMES), description='--stages \'["sft", "ppo"]\': what to plan')
    precision: Literal["f32", "bf16"] = Field("bf16", description="of the products; weights and states are f32")
    lora_rank: int = Field(0, ge=0, description="rank of LoRA adapters; 0 trains every weight")
    base_bits: int = rare(0, description="of each matrix under adapters: 4, or 0 for those of the products")
    optimizer_bits: int = rare(32, description="of each of AdamW's moments: 32, or 8")
    batch_size: int = Field(64, gt=0, description="conversations, pairs or prompts per optimizer step")
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    iterations: int = Field(100, gt=0, description="ppo: iterations")
    samples: int = Field(1, gt=0, description="ppo: replies per prompt")
    ppo_epochs: int = Field(1, gt=0, description="ppo: passes over each batch of replies")
    cost_models: int = Field(0, ge=0, description="ppo: limits, each with a cost model")
    critic: Literal["separate", "shared"] = rare("separate", description="ppo: a critic per signal, or value heads")
    checkpoint_minutes: float = rare(10.0, gt=0, description="minutes between checkpoints")
    out: str = Field("", description="folder for plan.json and the files that start it; default: printed alone")

    @model_validator(mode="after")
    def _has_stages(self) -> "Forecast":
        if self.optimizer_bits not in (8, 32):
            raise ValueError(f"--optimizer_bits {self.optimizer_bits} is neither 32 nor 8; give one of them")
        if self.base_bits not in (0, 4):
            raise ValueError(f"--base_bits {self.base_bits} is not 4; give 4, or leave it out")
        if not self.stages:
            raise ValueError("--stages names none; give at least one of " + ", ".join(STAGE_NAMES))
        return self
