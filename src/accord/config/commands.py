"""Knobs of the commands that train nothing, and of those that run others."""

from typing import Literal

from pydantic import Field, model_validator

from accord.config.base import Config, Passing, Reading, Rollouts, Run, Sampling, Sources


class Sample(Run, Rollouts, Passing):
    """Draw replies from a snapshot."""

    model: str = Field(description="snapshot to sample from")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    samples: int = Field(1, gt=0, description="replies per prompt")
    select: Literal["all", "best", "accepted"] = Field(
        "all",
        description="replies that also go to demonstrations.jsonl: none; the best of each prompt's by --rewards; or "
        "those that rejection sampling from the optimum of score less β · KL accepts",
    )
    rewards: dict[str, str] = Field({}, description="--rewards.NAME DIR: scorers to select by; their sum counts")
    beta: float = Field(1.0, gt=0, description="β of --select accepted, in score per nat")

    @model_validator(mode="after")
    def _selection_has_scores(self) -> "Sample":
        if (self.select == "all") == bool(self.rewards):
            raise ValueError("--select best and accepted need --rewards.NAME DIR, and --rewards are for nothing else")
        if self.select != "all" and self.samples < 2:
            raise ValueError(f"--select {self.select} chooses among a prompt's replies; give --samples 2 or more")
        return self


class Evaluate(Run, Sampling, Passing):
    """Measure a snapshot: gold judges where the truth is known, preference and cost models, KL, win rate."""

    model: str = Field(description="snapshot to measure")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    reference: str = Field("", description="snapshot that KL is measured to; none by default")
    rewards: dict[str, str] = Field({}, description="--rewards.NAME DIR: preference models to score with")
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models to score with")
    against: str = Field("", description="run folder of another evaluation on the same prompts, for the win rate")
    judge: str = Field("", description="score that decides a win; default gold/helpful or the first reward")
    eval_data: str = Field("", description="demonstrations to measure language-model loss on; none by default")
    samples: int = Field(1, gt=0, description="replies per prompt")
    bootstrap: int = Field(2000, gt=0, description="resamples behind each interval")


class Report(Config):
    """Put run folders into one HTML page."""

    runs: list[str] = Field(description="run folders, in the order of the flow")
    out: str = Field("report.html", description="page to write")
    title: str = Field("Accord report", description="heading of the page")


class Chat(Sampling):
    """Talk to a snapshot in the terminal."""

    snapshot: str = Field(description="snapshot to talk to")
    system: str = Field("", description="system turn to begin with")
    seed: int = Field(0, ge=0, description="seed of the sampling")


class Data(Reading):
    """Show what a source holds: shape, rows, drops, lengths, an example with its mask."""

    source: str = Field(description="the source to look at")
    model: str = Field("", description="snapshot whose tokenizer renders the example; default a word tokenizer")


class Soup(Run):
    """Mean weights of snapshots that share a start: a baseline of several objectives, a step of claims."""

    models: dict[str, str] = Field(description="--models.NAME DIR: policies of one shape, each of one objective")
    weights: dict[str, float] = Field(description="--weights.NAME X: what each counts; together 1")

    @model_validator(mode="after")
    def _weights_sum(self) -> "Soup":
        if set(self.weights) != set(self.models):
            raise ValueError("--weights and --models must name the same snapshots")
        if abs(sum(self.weights.values()) - 1) > 1e-6:
            raise ValueError(f"--weights sum to {sum(self.weights.values()):g}; they must sum to 1")
        return self


class Demo(Run):
    """The whole flow on the gold world: pretrain, SFT, preference and cost model, PPO without and with a limit."""

    out: str = Field("demo", description="folder to write; must be new or empty unless --resume")
    scale: Literal["small", "medium", "large"] = Field("small", description="small: minutes on two cores; large: a GPU")


class Claims(Config):
    """Run experiments on claims of the literature and write their verdicts."""

    names: list[str] = Field([], description="claims to run; none lists them")
    scale: Literal["small", "medium", "large"] = Field("small", description="size of every run")
    seeds: int = Field(3, gt=0, description="seeds to run, one after the other from --first_seed")
    first_seed: int = Field(0, ge=0, description="0-9 to develop; verdicts come from 1000 on")
    out: str = Field("claims", description="folder of the runs, shared between claims")
    results: str = Field("", description="folder for the results pages; default OUT/results")
    verify: bool = Field(False, description="run nothing: compute intervals and verdicts again from the saved values")
