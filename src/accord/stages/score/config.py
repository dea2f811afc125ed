"""Knobs of scoring data with any model."""

from pydantic import Field, model_validator

from accord.config import Passing, Run, Sources


class Score(Run, Passing):
    """Score or label any data with any model: preference, cost, ensemble, or the log-probs of a policy."""

    models: dict[str, str] = Field(description="--models.NAME DIR: what to score with; NAME heads its columns")
    data: Sources = Field(description="comparisons, judgements or demonstrations; --data.NAME SOURCE for several")
    criterion: str = Field("helpful", description="criterion of comparisons and judgements that name none")
    label: str = Field(
        "", description="NAME of the scorer that ranks the replies anew: labels.jsonl, with probabilities"
    )
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    temperature: float = Field(1.0, gt=0, description="of policies: divides their logits")

    @model_validator(mode="after")
    def _label_fits(self) -> "Score":
        if not self.models:
            raise ValueError("nothing to score with; give --models.NAME DIR")
        if self.label and self.label not in self.models:
            raise ValueError(f"--label {self.label}: --models has no such NAME; there are {', '.join(self.models)}")
        return self
