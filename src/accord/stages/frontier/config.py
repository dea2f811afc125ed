"""Knobs of the frontier."""

from pydantic import Field, field_validator

from accord.config import Run


class Frontier(Run):
    """Help against harm over values of one knob of policy optimisation: a run of PPO and an evaluation for each."""

    ppo: str = Field(description="YAML file of knobs of `accord ppo`, such as the config.yaml of a run")
    evaluate: str = Field(description="the same of `accord evaluate`, which measures the start and every policy")
    over: str = Field(description="the knob of `accord ppo` that changes: kl_coefficient, limits.NAME, ...")
    values: list[float] = Field(description="its values, one policy each: '[0.05, 0.1, 0.2]'")
    seeds: int = Field(1, gt=0, description="policies of every value, from --seed on")
    help_metric: str = Field(
        "", description="metric to have more of; default gold/helpful, or the first preference model's score"
    )
    harm_metric: str = Field(
        "", description="metric to have less of; default gold/harm_share, or the first cost model's share of unsafe"
    )
    harm_slices: str = Field("", description="slices that harm is taken on, with commas; default all prompts")
    at_most: float = Field(0.1, description="the chosen point has the whole interval of its harm below this")

    @field_validator("values")
    @classmethod
    def _values_differ(cls, values: list[float]) -> list[float]:
        if not values or len(set(values)) < len(values):
            raise ValueError("give one value or more, each once")
        return values
