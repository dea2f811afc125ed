"""Knobs of claims."""

from typing import Literal

from pydantic import Field

from accord.config import Config


class Claims(Config):
    """Run experiments on claims of the literature and write their verdicts."""

    names: list[str] = Field([], description="claims to run; none lists them")
    scale: Literal["small", "medium", "large"] = Field("small", description="size of every run")
    seeds: int = Field(3, gt=0, description="seeds to run, one after the other from --first_seed")
    first_seed: int = Field(0, ge=0, description="0-9 to develop; verdicts come from 1000 on")
    out: str = Field("claims", description="folder of the runs, shared between claims")
    minutes: float = Field(
        0, ge=0, description="begin no cell after so many minutes; the same command goes on later; 0 for no end"
    )
    results: str = Field("", description="folder for the results pages; default OUT/results")
    verify: bool = Field(False, description="run nothing: compute intervals and verdicts again from the saved values")
