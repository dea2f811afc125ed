"""Knobs of the direct family."""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from accord.config import (
    LIMIT_OF,
    Adapters,
    Idle,
    LimitOf,
    ReadingPairs,
    Rendering,
    Sources,
    Supervised,
    rare,
    refuse_other_limits,
)

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


class Dpo(Supervised, Adapters, Rendering, ReadingPairs):
    """A policy from comparisons without a preference model: DPO and its relatives."""

    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("weights", lambda c: c.data, "without --data SOURCE"),
        Idle(
            "strength_margin margin_weights safety_margin",
            lambda c: TAKE_MARGIN & set(c.losses),
            "with --loss {c.loss_names} (it takes no margin)",
        ),
        Idle("safety_margin", lambda c: c.safety_data, "without --safety_data SOURCE"),
        Idle(
            "reference refresh_every cache_reference reference_cache",
            lambda c: c.needs_reference,
            "with --loss {c.loss_names} (it has no reference)",
        ),
        Idle("refresh_mix", lambda c: c.refresh_every, "without --refresh_every N"),
        Idle(
            "cache_reference reference_cache",
            lambda c: not c.refresh_every,
            "with --refresh_every N (a reference that moves is computed at every step)",
        ),
        Idle("limit_of", lambda c: c.limits, "without --limits.NAME X"),
        Idle("reference_cache", lambda c: c.cache_reference, "with --cache_reference false"),
        Idle("eval_share", lambda c: not c.eval_data, "with --eval_data SOURCE (which is measured on instead)"),
        Idle(
            "limits max_new_tokens eval_every",
            lambda c: c.data or c.eval_data,
            "without --data or --eval_data (there are no comparisons to measure on)",
        ),
        Idle("kl_prompts", lambda c: c.data or c.eval_data or not c.kl_prompts, "without --data or --eval_data"),
        Idle("limits max_new_tokens", lambda c: c.kl_prompts, "with --kl_prompts 0 (no reply is sampled)"),
    )
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
    reduction: Literal["auto", "sum", "mean"] = rare(
        "auto", description="log-probs of a reply summed or averaged over its tokens; auto as the loss's paper"
    )
    loss_options: dict[str, float] = Field(
        {}, description=f"--loss_options.NAME X: what else the loss reads: {', '.join(DIRECT_OPTIONS)}"
    )
    strength_margin: float = rare(0.0, ge=0, description="margin in the loss per unit of the labeler's strength")
    rewards: dict[str, str] = rare({}, description="--rewards.NAME DIR: preference models of other criteria (MODPO)")
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models, for margins or limits")
    margin_weights: dict[str, float] = rare(
        {}, description="--margin_weights.NAME W: W times the score difference (of a cost, its negative) is margin"
    )
    safety_data: Sources = rare({}, description="replies labelled safe or unsafe: an unsafe one never wins (SafeDPO)")
    safety_margin: float = rare(0.0, ge=0, description="margin between a safe and an unsafe reply (SafeDPO's Δ)")
    limits: dict[str, float] = Field(
        {}, description="--limits.NAME X: bound on what --limit_of says, checked on replies sampled at the end"
    )
    limit_of: LimitOf | dict[str, LimitOf] = rare("cost", description=LIMIT_OF)
    limit_slices: dict[str, str] = rare(
        {}, description="--limit_slices.NAME A,B: slices that the limit holds on; default all"
    )
    reference: str = Field("", description="snapshot that log-ratios are taken to; default the model itself")
    cache_reference: bool = rare(
        True, description="compute the reference's log-probs once, before training; false: at every step"
    )
    reference_cache: str = rare("", description="folder of those log-probs, shared between runs; default in --out")
    refresh_every: int = rare(0, ge=0, description="steps after which the reference follows the policy; 0 never")
    refresh_mix: float = rare(1.0, gt=0, le=1, description="how far: mix · policy + (1 - mix) · reference")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    eval_share: float = Field(0.1, gt=0, lt=1, description="share of prompts held out to measure on")
    kl_prompts: int = Field(64, ge=0, description="held-out prompts to sample a reply to for the KL at the end")
    max_new_tokens: int = Field(64, gt=0, description="longest of those replies in tokens")
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    batch_size: int = Field(64, gt=0, description="comparisons, or labelled replies, per optimizer step")
    eval_every: int = Field(25, ge=0, description="steps between evaluations; 0 evaluates only at the end")

    @property
    def losses(self) -> dict[str, float]:
        """Loss to weight."""
        return {self.loss: 1.0} if isinstance(self.loss, str) else dict(self.loss)

    @property
    def loss_names(self) -> str:
        """The losses, for a message."""
        return ", ".join(self.losses)

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

    @field_validator("loss")
    @classmethod
    def _losses_are_known(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        losses = {value: 1.0} if isinstance(value, str) else value
        if not losses:
            raise ValueError("nothing to minimise; give --loss NAME")
        for name, weight in losses.items():
            if name not in DIRECT_LOSSES:
                raise ValueError(f"there is no loss {name}; there are {', '.join(DIRECT_LOSSES)}")
            if not 0 < weight < float("inf"):
                raise ValueError(f"{name} {weight:g}: a weight must be above 0; leave the loss out instead")
            first = DIRECT_LOSSES[next(iter(losses))][0]
            if DIRECT_LOSSES[name][0] != first:
                raise ValueError(f"{name} compares {DIRECT_LOSSES[name][0]}, the first loss {first}")
        return value

    @model_validator(mode="after")
    def _options_fit(self) -> "Dpo":
        read = {option for name in self.losses for option in DIRECT_LOSSES[name][2]}
        for option, value in self.loss_options.items():
            if option not in read:
                raise ValueError(f"--loss_options.{option}: {self.loss_names} does not read it")
            low, high, closed = DIRECT_OPTIONS[option]
            inside = low <= value <= high if closed else low < value < high
            if not inside and not (option == "label_smoothing" and value == 0 and "exo" not in self.losses):
                raise ValueError(f"--loss_options.{option} {value:g} must be between {low:g} and {high:g}")
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
        if self.safety_data and self.family != PAIRED:
            raise ValueError(f"--safety_data orders pairs; {self.loss_names} compares {self.family}")
        return self

    @model_validator(mode="after")
    def _data_fits(self) -> "Dpo":
        if not self.data and not (self.unpaired_data and self.family == UNPAIRED):
            raise ValueError("no comparisons; give --data SOURCE")
        if self.unpaired_data and self.family != UNPAIRED:
            raise ValueError(f"--unpaired_data is for kto and bco; {self.loss_names} compares {self.family}")
        if self.refresh_every and self.reference:
            raise ValueError("--refresh_every mixes the policy into a copy of itself; leave --reference out")
        return self
