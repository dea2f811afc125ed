"""Knobs of pretraining."""

from typing import ClassVar

from pydantic import Field

from accord.config import Idle, Reading, Sources, Supervised

NEW = ("pico", "nano", "tiny", "small", "base", "medium", "large")  # the sizes of `models.policy`, known without torch


class Pretrain(Supervised, Reading):
    """Train a language model on text, from nothing or on from a snapshot."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("vocab_size", lambda c: not c.tokenizer, "with --tokenizer SNAPSHOT (its vocabulary is taken)"),
        Idle("vocab_size", lambda c: c.model in NEW, "with --model {c.model} (the snapshot's vocabulary is taken)"),
        Idle(
            "learning_rate matrix_learning_rate warmup schedule weight_decay clip_norm batch_size eval_every",
            lambda c: c.steps,
            "with --steps 0 (nothing is trained)",
        ),
    )
    model: str = Field(
        "small",
        description="size of a new model (pico 0.05M, nano 0.2M, tiny 0.5M, small 1M, base 5M, medium 26M, large 100M "
        "parameters), or a snapshot to go on from",
    )
    data: Sources = Field(description="text to train on; --data.NAME SOURCE for several")
    weights: dict[str, float] = Field({}, description="--weights.NAME X: share of each source; default by size")
    eval_data: str = Field("", description="text to measure loss on; default holds out 2 % of the documents")
    vocab_size: int = Field(4096, gt=0, description="largest vocabulary of a new tokenizer")
    tokenizer: str = Field("", description="snapshot to take the tokenizer from; default trains one on the data")
    steps: int = Field(300, ge=0, description="optimizer steps; 0 writes the model as it is drawn, untrained")
    batch_size: int = Field(6144, gt=0, description="tokens per optimizer step")
    max_length: int = Field(512, gt=1, description="longest sequence in tokens; a longer document is cut in pieces")
