"""Knobs of preference and cost models."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from accord.config import Adapters, Idle, ReadingPairs, Rendering, Sources, Supervised, rare


class Preference(Supervised, Adapters, Rendering, ReadingPairs):
    """Train a preference model or a cost model on comparisons, rankings, labels and ratings."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "weights ranking ties label_smoothing strength_margin reliability lm_weight centring_weight binarise flips "
            "folds",
            lambda c: c.data,
            "without --data SOURCE (comparisons)",
        ),
        Idle("weights", lambda c: len(c.criteria) == 1, "with several --criterion (see --criterion_weights)"),
        Idle("criterion_weights", lambda c: len(c.criteria) > 1, "with one --criterion"),
        Idle("severity_weight", lambda c: c.safety_data or c.unpaired_data, "without --safety_data or --unpaired_data"),
        Idle(
            "label_weight",
            lambda c: c.safety_data or c.unpaired_data or not c.binarise,
            "with --binarise, --safety_data and --unpaired_data left out (there are no labels)",
        ),
        Idle("label_smoothing", lambda c: c.ranking == "pairs", "with --ranking plackett-luce"),
        Idle("strength_margin", lambda c: c.ranking == "pairs", "with --ranking plackett-luce"),
        Idle("strength_margin", lambda c: c.ties != "davidson", "with --ties davidson"),
        Idle("suspects", lambda c: c.folds > 1, "without --folds 2 or more (models of other folds name them)"),
        Idle("label_flips", lambda c: c.role == "cost" and c.safety_data, "without --role cost and --safety_data"),
        Idle("suspect_below", lambda c: c.suspects != "keep", "with --suspects keep"),
        Idle("combine", lambda c: c.ensemble > 1 or c.by_group, "without --ensemble N or --by_group"),
        Idle("variance_weight", lambda c: c.combine == "variance", "with --combine {c.combine}"),
        Idle("group_weights", lambda c: c.by_group, "without --by_group"),
        Idle("group_weights", lambda c: c.combine in ("mean", "weights"), "with --combine {c.combine}"),
    )
    model: str = Field(description="snapshot to start from: the SFT model, or a preference model to go on from")
    data: Sources = Field({}, description="comparisons and rankings; --data.NAME SOURCE for several")
    weights: dict[str, float] = Field({}, description="--weights.NAME X: share of each source; default by size")
    safety_data: Sources = Field({}, description="replies labelled safe or unsafe: the sign terms of a cost model")
    unpaired_data: Sources = Field({}, description="single replies, good or bad or rated: of a preference model")
    demonstrations: str = rare("", description="demonstrations whose mean score becomes 0; never of a cost model")
    criterion: str = Field(
        "helpful",
        description="the quality that the data are about; several with commas: one trunk, a head for each. A source "
        "called CRITERION or CRITERION-… is read under it, any other under every one",
    )
    criterion_weights: dict[str, float] = rare({}, description="--criterion_weights.NAME X: in the loss; default 1")
    by_group: bool = Field(False, description="a head for each group of labelers (their names up to the last colon)")
    role: Literal["preference", "cost"] = Field(
        "preference", description="higher is better; or cost: above 0 is unsafe"
    )
    ranking: Literal["pairs", "plackett-luce"] = Field(
        "pairs", description="a ranking as all its pairs, together weighing 1 (InstructGPT), or as one draw in order"
    )
    ties: Literal["drop", "davidson"] = Field("drop", description="ties rank nothing; or are a third answer, ν learned")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="chance that a comparison is the wrong way round")
    strength_margin: float = rare(0.0, ge=0, description="margin in the loss per unit of the labeler's strength")
    reliability: bool = rare(False, description="learn how often each labeler says what they find (Crowd-BT)")
    label_weight: float = rare(1.0, gt=0, description="weight of labels and ratings beside comparisons")
    severity_weight: float = rare(0.0, ge=0, description="an unsafe label weighs 1 + this · its severity")
    lm_weight: float = rare(0.0, ge=0, description="weight of the better reply's −log p per token, by the trunk")
    centring_weight: float = rare(0.0, ge=0, description="weight of the mean squared sum of a pair's scores")
    score_weight: float = rare(1e-3, ge=0, description="weight of the mean squared score, which keeps scores finite")
    binarise: bool = rare(False, description="A > B becomes good:A > bad:A and bad:B > good:B: for pretraining (PMP)")
    flips: float = rare(0.0, ge=0, le=0.5, description="share of training comparisons turned round, as an experiment")
    label_flips: float = rare(
        0.0, ge=0, lt=0.5, description="known share of wrong --safety_data labels, taken out when σ(cost) is calibrated"
    )
    suspects: Literal["keep", "flip", "soften", "drop"] = rare(
        "keep", description="what becomes of training comparisons that models of other folds reject (needs --folds)"
    )
    suspect_below: float = rare(0.1, gt=0, lt=0.5, description="a suspect's probability under them is below this")
    half: Literal["", "train", "test"] = rare("", description="use one half of the prompts: for two-model alarms")
    ensemble: int = Field(1, gt=0, description="models, from seeds one apart, that --combine makes one scorer of")
    combine: Literal["mean", "worst", "variance", "weights"] = Field(
        "mean",
        description="of models or group heads: mean, least favourable, mean less --variance_weight · variance; or "
        "one model of the mean weights (WARM)",
    )
    variance_weight: float = rare(0.5, ge=0, description="λ of --combine variance, per logit")
    group_weights: dict[str, float] = rare({}, description="--group_weights.GROUP X: in the mean; default equal")
    normalizer: Literal["auto", "none", "standard", "sign-probability"] = rare(
        "auto",
        description="of the saved scores: standard (a preference model's; mean 0, deviation 1 on the training "
        "replies), sign-probability (a cost C as 2σ(C) - 1; keeps its zero), none; auto picks by role",
    )
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    eval_share: float = Field(0.1, gt=0, lt=1, description="share of prompts held out to measure accuracy")
    folds: int = Field(0, ge=0, description="cross-validate by prompt in so many folds first; 0 does not")
    epochs: float = Field(1.0, gt=0, description="passes over the data; a second one overfits (Ouyang et al. 2022)")
    batch_size: int = Field(64, gt=0, description="comparisons per optimizer step")

    @property
    def criteria(self) -> list[str]:
        """The criteria, in the order of the heads (unless heads are by group)."""
        return [name.strip() for name in self.criterion.split(",") if name.strip()]

    @model_validator(mode="after")
    def _role_fits(self) -> "Preference":
        if self.role == "cost" and self.normalizer == "standard":
            raise ValueError("--normalizer standard would shift a cost and move its zero; use sign-probability or none")
        if self.role == "preference" and self.normalizer == "sign-probability":
            raise ValueError("--normalizer sign-probability is for --role cost")
        if self.role == "cost" and self.demonstrations:
            raise ValueError("--demonstrations would shift a cost and move its zero; it is for a preference model")
        if self.role == "cost" and self.unpaired_data:
            raise ValueError("--unpaired_data is for a preference model; a cost model takes --safety_data")
        if self.role == "preference" and self.safety_data:
            raise ValueError(
                "--safety_data is for --role cost; a preference model has no boundary (see --unpaired_data)"
            )
        if self.role == "cost" and self.binarise:
            raise ValueError("--binarise is for pretraining a preference model, not for a cost model")
        if self.shard and self.lm_weight:
            raise ValueError("--lm_weight trains one trunk under two heads, which --shard cannot divide; leave one out")
        if not self.data and not self.unpaired_data:
            raise ValueError("nothing to learn from; give --data SOURCE")
        return self

    @model_validator(mode="after")
    def _likelihood_fits(self) -> "Preference":
        """Each of these makes the ranking term another likelihood; they are not defined together."""
        others = {
            "--ties davidson": self.ties == "davidson",
            "--reliability": self.reliability,
            "--ranking plackett-luce": self.ranking == "plackett-luce",
        }
        chosen = [flag for flag, given in others.items() if given]
        if len(chosen) > 1:
            raise ValueError(f"{chosen[0]} and {chosen[1]} are two models of the same answers; choose one")
        if self.reliability and self.strength_margin:
            raise ValueError("--strength_margin is for plain Bradley-Terry pairs, not for --reliability")
        return self

    @model_validator(mode="after")
    def _heads_fit(self) -> "Preference":
        if not self.criteria or len(set(self.criteria)) < len(self.criteria):
            raise ValueError("--criterion needs a name, or several different ones with commas")
        if self.by_group and len(self.criteria) > 1:
            raise ValueError("--by_group makes a head for each group under one criterion; name one --criterion")
        if len(self.criteria) > 1 and self.role == "cost":
            raise ValueError("--role cost takes one --criterion; train a cost model for each")
        if odd := sorted(set(self.criterion_weights) - set(self.criteria)):
            raise ValueError(f"--criterion_weights.{odd[0]}: --criterion does not name it")
        if self.combine == "weights" and self.lora_rank:
            raise ValueError("--combine weights: products of adapters do not average; use --lora_rank 0")
        if self.combine == "weights" and self.ensemble == 1:
            raise ValueError("--combine weights averages models; give --ensemble N")
        if self.lm_weight and self.lora_rank:
            raise ValueError("--lm_weight trains the trunk as a language model; use --lora_rank 0")
        return self
