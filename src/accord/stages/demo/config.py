"""Knobs of the demo."""

from typing import Literal

from pydantic import Field

from accord.config import Run


class Demo(Run):
    """The whole flow on the gold world: pretrain, SFT, preference and cost model, PPO without and with a limit."""

    out: str = Field("demo", description="folder to write; must be new or empty unless --resume")
    scale: Literal["small", "medium", "large"] = Field("small", description="small: minutes on two cores; large: a GPU")
