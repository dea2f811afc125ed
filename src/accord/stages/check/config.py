"""Knobs of looking at a model before anything is trained."""

from pydantic import Field

from accord.config import Rendering, Rollouts, Sources


class Check(Rollouts, Rendering):
    """Will this model, its template, data and server work together? A page of findings, each with its remedy."""

    model: str = Field(description="model to look at: a directory, OWNER/NAME[@REVISION], or a GGUF file")
    reference: str = Field("", description="reference that is to stand beside it")
    rewards: dict[str, str] = Field({}, description="--rewards.NAME DIR: preference models that are to score it")
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models that are to score it")
    data: Sources = Field("", description="data that it is to learn from; its first prompts are answered")
    max_length: int = Field(512, gt=1, description="longest text in tokens that a run will be given")
    seed: int = Field(0, ge=0, description="seed of the three replies")
