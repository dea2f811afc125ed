"""Knobs of supervised fine-tuning."""

from typing import Literal

from pydantic import Field

from accord.config import Adapters, ReadingPairs, Rendering, Sources, Supervised


class Sft(Supervised, Adapters, Rendering, ReadingPairs):
    """Supervised fine-tuning on demonstrations: loss on assistant tokens alone."""

    model: str = Field(description="snapshot to start from")
    data: Sources = Field(description="demonstrations; --data.NAME SOURCE for several")
    weights: dict[str, float] = Field({}, description="--weights.NAME X: share of each source; default by size")
    eval_data: str = Field("", description="demonstrations to measure loss on; default holds out 5 % by prompt")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    train_on: Literal["assistant", "reply"] = Field("assistant", description="every assistant turn, or the last alone")
    epochs: float = Field(2.0, gt=0, description="passes over the data")
    batch_size: int = Field(64, gt=0, description="conversations per optimizer step")
