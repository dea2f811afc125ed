"""Knobs of the chat."""

from pydantic import Field

from accord.config import Config, Precision


class Chat(Config):
    """Talk to a snapshot in the terminal."""

    snapshot: str = Field(description="snapshot to talk to")
    system: str = Field("", description="system turn to begin with")
    temperature: float | None = Field(
        None,
        ge=0,
        description="divides the logits, 0 takes the likeliest token; default: as the generation config",
    )
    top_p: float | None = Field(None, gt=0, le=1, description="draw from the likeliest tokens of this probability")
    top_k: int | None = Field(None, ge=0, description="draw from so many of the likeliest tokens; 0: from all")
    min_p: float | None = Field(None, ge=0, lt=1, description="leave out tokens below this share of the likeliest")
    max_new_tokens: int | None = Field(
        None, gt=0, description="longest reply in tokens; default: the generation config's, or 512"
    )
    stop: list[str] = Field([], description='--stop \'["A", "B"]\': texts that end a reply, and are cut off it')
    precision: Precision = Field("f32", description="of the forward passes; auto: bf16 where it is twice as fast")
    seed: int = Field(0, ge=0, description="seed of the sampling")
