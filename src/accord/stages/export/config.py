"""Knobs of handing a snapshot to others."""

from typing import Literal

from pydantic import Field

from accord.config import Config


class Export(Config):
    """Write a snapshot as others load it: adapters merged, stops and template set, in the precision that is asked."""

    snapshot: str = Field(description="snapshot to hand on: a directory, OWNER/NAME[@REVISION], or a GGUF file")
    out: str = Field(description="folder to write; must be new or empty")
    dtype: Literal["bf16", "f32"] = Field("bf16", description="of the weights; bf16 halves the files and rounds them")
