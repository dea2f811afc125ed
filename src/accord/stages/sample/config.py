"""Knobs of sampling."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from accord.config import Decoding, Idle, Passing, Rollouts, Run, Sources


class Sample(Run, Decoding, Rollouts, Passing):
    """Draw replies from a snapshot."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("rewards", lambda c: c.select != "all", "with --select all (it asks for no score)"),
        Idle("micro_tokens", lambda c: c.select != "all", "with --select all (nothing is scored; see --cache_tokens)"),
        Idle("beta", lambda c: c.select == "accepted", "with --select {c.select}"),
    )
    memory_knob: ClassVar[str] = "cache_tokens"  # what to turn where memory runs out
    model: str = Field(description="snapshot to sample from")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    samples: int = Field(1, gt=0, description="replies per prompt")
    select: Literal["all", "best", "accepted"] = Field(
        "all",
        description="replies that also go to demonstrations.jsonl: none; the best of each prompt's by --rewards; or "
        "those that rejection sampling from the optimum of score less β · KL accepts",
    )
    rewards: dict[str, str] = Field({}, description="--rewards.NAME DIR: scorers to select by; their sum counts")
    beta: float = Field(1.0, gt=0, description="β of --select accepted, in score per nat")

    @model_validator(mode="after")
    def _selection_has_scores(self) -> "Sample":
        if self.select != "all" and not self.rewards:
            raise ValueError(f"--select {self.select} goes by scores; give --rewards.NAME DIR")
        if self.select != "all" and self.samples < 2:
            raise ValueError(f"--select {self.select} chooses among a prompt's replies; give --samples 2 or more")
        if self.select != "all":
            self.refuse_unless_plain(f"--select {self.select}", "chooses among draws from the policy itself")
        if self.engine and not (self.is_plain and not self.stop):
            raise ValueError(
                "--engine: a server draws from the policy itself; leave --top_p, --top_k, --min_p, --stop and "
                "--temperature 0 out, or draw in this process"
            )
        return self
