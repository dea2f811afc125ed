"""Knobs of the direct family."""

from typing import Literal

from pydantic import Field, model_validator

from accord.config import LIMIT_OF, Adapters, LimitOf, Reading, Sources, Supervised, refuse_other_limits

# what each loss of `accord dpo` compares, whether it needs a reference, and its options beside beta and reduction
PAIRED, UNPAIRED, LISTWISE = "pairs", "single replies", "rankings"


DIRECT_LOSSES: dict[str, tuple[str, bool, tuple[str, ...]]] = {
    "dpo": (PAIRED, True, ()),
    "dpo_norm": (PAIRED, True, ()),
    "dpo_length": (PAIRED, True, ("length_penalty",)),
    "cdpo": (PAIRED, True, ("label_smoothing",)),
    "robust": (PAIRED, True, ("label_smoothing",)),
    "ipo": (PAIRED, True, ()),
    "hinge": (PAIRED, True, ()),
    "exo": (PAIRED, True, ("label_smoothing",)),
    "sppo": (PAIRED, True, ()),
    "nca": (PAIRED, True, ()),
    "bco_pair": (PAIRED, True, ()),
    "apo_zero": (PAIRED, True, ()),
    "apo_down": (PAIRED, True, ()),
    "aot": (PAIRED, True, ("label_smoothing",)),
    "orpo": (PAIRED, False, ()),
    "simpo": (PAIRED, False, ("target_margin",)),
    "dpo_forward_kl": (PAIRED, True, ()),
    "dpo_js": (PAIRED, True, ()),
    "dpo_alpha": (PAIRED, True, ("alpha",)),
    "nll": (PAIRED, False, ()),
    "kto": (UNPAIRED, True, ("good_weight", "bad_weight")),
    "bco": (UNPAIRED, True, ()),
    "plackett_luce": (LISTWISE, True, ()),
}


# range of each option: from, to, whether the ends belong to it
DIRECT_OPTIONS: dict[str, tuple[float, float, bool]] = {
    "length_penalty": (0.0, float("inf"), True),
    "label_smoothing": (0.0, 0.5, False),
    "target_margin": (0.0, float("inf"), True),
    "alpha": (0.0, 1.0, False),
    "good_weight": (0.0, float("inf"), False),
    "bad_weight": (0.0, float("inf"), False),
}


TAKE_MARGIN = frozenset({"dpo", "dpo_norm", "dpo_length", "simpo", "dpo_forward_kl", "dpo_js", "dpo_alpha"})


class Dpo(Supervised, Adapters, Reading):
    """A policy from comparisons without a preference model: DPO and its relatives."""

    model: str = Field(description="snapshot to start from (usually the SFT model)")
    data: Sources = Field({}, description="comparisons or rankings; --data.NAME SOURCE for several")
    weights: dict[str, float] = Field({}, description="--weights.NAME X: share of each source; default by size")
    unpaired_data: Sources = Field({}, description="single replies labelled good or bad, safe or unsafe (kto, bco)")
    eval_data: str = Field("", description="comparisons to measure on; default holds --eval_share of the prompts out")
    criterion: str = Field("helpful", description="the quality that the comparisons are about")
    loss: str | dict[str, float] = Field(
        "dpo", description=f"one of {', '.join(DIRECT_LOSSES)}; or --loss.NAME WEIGHT for a weighted sum"
    )
    beta: float = Field(0.0, ge=0, description="β of the loss (τ of ipo, λ of orpo); 0 takes the loss's own default")
    reduction: Literal["auto", "sum", "mean"] = Field(
        "auto", description="log-probs of a reply summed or averaged over its tokens; auto as the loss's paper"
    )
    loss_options: dict[str, float] = Field(
        {}, description=f"--loss_options.NAME X: what else the loss reads: {', '.join(DIRECT_OPTIONS)}"
    )
    strength_margin: float = Field(0.0, ge=0, description="margin in the loss per unit of the labeler's strength")
    rewards: dict[str, str] = Field({}, description="--rewards.NAME DIR: preference models of other criteria (MODPO)")
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models, for margins or limits")
    margin_weights: dict[str, float] = Field(
        {}, description="--margin_weights.NAME W: W times the score difference (of a cost, its negative) is margin"
    )
    safety_data: Sources = Field({}, description="replies labelled safe or unsafe: an unsafe one never wins (SafeDPO)")
    safety_margin: float = Field(0.0, ge=0, description="margin between a safe and an unsafe reply (SafeDPO's Δ)")
    limits: dict[str, float] = Field(
        {}, description="--limits.NAME X: bound on what --limit_of says, checked on replies sampled at the end"
    )
    limit_of: LimitOf | dict[str, LimitOf] = Field("cost", description=LIMIT_OF)
    limit_slices: dict[str, str] = Field(
        {}, description="--limit_slices.NAME A,B: slices that the limit holds on; default all"
    )
    reference: str = Field("", description="snapshot that log-ratios are taken to; default the model itself")
    cache_reference: bool = Field(
        True, description="compute the reference's log-probs once, before training; false: at every step"
    )
    reference_cache: str = Field("", description="folder of those log-probs, shared between runs; default in --out")
    refresh_every: int = Field(0, ge=0, description="steps after which the reference follows the policy; 0 never")
    refresh_mix: float = Field(1.0, gt=0, le=1, description="how far: mix · policy + (1 - mix) · reference")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    eval_share: float = Field(0.1, gt=0, lt=1, description="share of prompts held out to measure on")
    kl_prompts: int = Field(64, ge=0, description="held-out prompts to sample a reply to for the KL at the end")
    max_new_tokens: int = Field(64, gt=0, description="longest of those replies in tokens")
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    batch_size: int = Field(64, gt=0, description="comparisons, or labelled replies, per optimizer step")
    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of AdamW")
    eval_every: int = Field(25, ge=0, description="steps between evaluations; 0 evaluates only at the end")

    @property
    def losses(self) -> dict[str, float]:
        """Loss to weight."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else dict(self.loss)

    @property
    def family(self) -> str:
        """What the losses compare."""
        return DIRECT_LOSSES[next(iter(self.losses))][0]

    @property
    def takes_soft_labels(self) -> bool:
        """Whether a pair may count both ways round: AOT matches margins by rank, one for each pair."""
        return self.family == PAIRED and "aot" not in self.losses

    @property
    def needs_reference(self) -> bool:
        return any(DIRECT_LOSSES[name][1] for name in self.losses)

    @model_validator(mode="after")
    def _loss_fits(self) -> "Dpo":
        if not self.losses:
            raise ValueError("nothing to minimise; give --loss NAME")
        for name, weight in self.losses.items():
            if name not in DIRECT_LOSSES:
                raise ValueError(f"--loss {name}: there is no such loss; there are {', '.join(DIRECT_LOSSES)}")
            if not 0 < weight < float("inf"):
                raise ValueError(f"--loss.{name} {weight:g}: a weight must be above 0; leave the loss out instead")
            if DIRECT_LOSSES[name][0] != self.family:
                raise ValueError(f"--loss.{name} compares {DIRECT_LOSSES[name][0]}, the first loss {self.family}")
        read = {option for name in self.losses for option in DIRECT_LOSSES[name][2]}
        for option, value in self.loss_options.items():
            if option not in read:
                raise ValueError(f"--loss_options.{option}: {', '.join(self.losses)} does not read it")
            low, high, closed = DIRECT_OPTIONS[option]
            inside = low <= value <= high if closed else low < value < high
            if not inside and not (option == "label_smoothing" and value == 0 and "exo" not in self.losses):
                raise ValueError(f"--loss_options.{option} {value:g} must be between {low:g} and {high:g}")
        margins = ("strength_margin", "margin_weights", "safety_margin")
        given = [name for name in margins if getattr(self, name)]
        if given and not TAKE_MARGIN & set(self.losses):
            raise ValueError(f"--{given[0]}: {', '.join(self.losses)} does not read it")
        return self

    @model_validator(mode="after")
    def _other_objectives_fit(self) -> "Dpo":
        scorers = {**self.rewards, **self.costs}
        for knob, needed, flag in (
            ("margin_weights", scorers, "rewards"),
            ("limits", self.costs, "costs"),
            ("limit_slices", self.limits, "limits"),
        ):
            for name in getattr(self, knob):
                if name not in needed:
                    raise ValueError(f"--{knob}.{name} has nothing to read; add --{flag}.{name}")
        for name in scorers:
            if name not in {*self.margin_weights, *self.limits}:
                raise ValueError(f"{name} is not used; add --margin_weights.{name} W, or --limits.{name} X for a cost")
        if clash := set(self.rewards) & set(self.costs):
            raise ValueError(f"{min(clash)} is both a reward and a cost; give them different names")
        refuse_other_limits(self.limits, self.limit_of)
        if self.limits and not self.kl_prompts:
            raise ValueError("--limits are checked on sampled replies; --kl_prompts must be above 0")
        if self.safety_margin and not self.safety_data:
            raise ValueError("--safety_margin has no labels to read; add --safety_data SOURCE")
        if self.safety_data and self.family != PAIRED:
            raise ValueError(f"--safety_data orders pairs; {', '.join(self.losses)} compares {self.family}")
        return self

    @model_validator(mode="after")
    def _data_fits(self) -> "Dpo":
        if not self.data and not (self.unpaired_data and self.family == UNPAIRED):
            raise ValueError("no comparisons; give --data SOURCE")
        if self.unpaired_data and self.family != UNPAIRED:
            raise ValueError(f"--unpaired_data is for kto and bco; {', '.join(self.losses)} compares {self.family}")
        if not self.needs_reference and (self.reference or self.refresh_every or self.reference_cache):
            knob = "reference" if self.reference else "refresh_every" if self.refresh_every else "reference_cache"
            raise ValueError(f"--{knob}: {', '.join(self.losses)} has no reference")
        if self.refresh_every and self.reference:
            raise ValueError("--refresh_every mixes the policy into a copy of itself; leave --reference out")
        if self.reference_cache and (self.refresh_every or not self.cache_reference):
            raise ValueError("--reference_cache: nothing is cached of a reference that is computed at every step")
        return self
