"""Knobs of the chat."""

from pydantic import Field

from accord.config import Sampling


class Chat(Sampling):
    """Talk to a snapshot in the terminal."""

    snapshot: str = Field(description="snapshot to talk to")
    system: str = Field("", description="system turn to begin with")
    seed: int = Field(0, ge=0, description="seed of the sampling")
