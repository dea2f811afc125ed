"""Knobs of policy optimisation, by what they are about."""

import re
from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError, model_validator

from accord.config import (
    LIMIT_OF,
    Adapters,
    Asking,
    Idle,
    Labeling,
    LimitOf,
    Rendering,
    Rollouts,
    Schedule,
    Sources,
    Training,
    is_server,
    rare,
    refuse_other_limits,
    scheme_of,
)

PerLimit = float | dict[str, float]  # one number for every limit, or --knob.NAME X for single ones


class KlKnobs(BaseModel):
    """How the policy is held to its reference."""

    heading: ClassVar[str] = "distance to the reference"
    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("kl_target kl_anneal", lambda c: c.kl_coefficient, "with --kl_coefficient 0 (it stays 0)"),
        Idle("kl_horizon", lambda c: c.kl_target, "without --kl_target NATS"),
        Idle("refresh_mix", lambda c: c.refresh_every, "without --refresh_every N"),
    )
    kl_in: Literal["reward", "loss"] = rare(
        "reward", description="where KL is paid: in the reward of each token (k1 alone), or as a term of the loss"
    )
    kl_estimator: Literal["k1", "k2", "k3", "exact", "exact-forward"] = rare(
        "k1",
        description="of the sampled token (k1, k2, k3); exact KL(policy || reference); exact-forward: reversed",
    )
    kl_coefficient: float = Field(0.2, ge=0, description="β, the price of a nat of KL, in score")
    kl_anneal: float = rare(
        1.0, gt=0, description="β of the last iteration over β of the first, reached in equal ratios; 1 keeps β"
    )
    kl_target: float = Field(0.0, ge=0, description="nats per reply that β adapts to; 0 keeps β fixed")
    kl_horizon: float = rare(10000.0, gt=0, description="replies over which β adapts")
    kl_budget: float = rare(
        0.0, ge=0, description="nats per reply: a step that passes them is undone and the run ends there; 0: no budget"
    )
    refresh_every: int = rare(0, ge=0, description="iterations after which the reference follows the policy; 0 never")
    refresh_mix: float = rare(1.0, gt=0, le=1, description="how far: mix · policy + (1 - mix) · reference")

    @model_validator(mode="after")
    def _kl_fits(self) -> "KlKnobs":
        if self.kl_in == "reward" and self.kl_estimator != "k1":
            raise ValueError(
                f"--kl_estimator {self.kl_estimator} in the reward has no gradient for the token that it is paid for, "
                "or one of the wrong sign (docs/objectives.md); take k1, or --kl_in loss"
            )
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "--kl_estimator k1 as a loss has an expected gradient of 0; take k2, k3 or exact, or --kl_in reward"
            )
        if self.kl_target and self.kl_anneal != 1:
            raise ValueError("--kl_anneal and --kl_target both move β; give one of them")
        return self


class AdvantageKnobs(BaseModel):
    """From scores to advantages, and the critics that help."""

    heading: ClassVar[str] = "advantages and critics"
    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "critic value_clip value_weight critic_learning_rate critic_warmup",
            lambda c: c.advantages == "gae",
            "with --advantages {c.advantages} (there is no critic)",
        ),
        Idle("lam whiten", lambda c: c.advantages == "gae", "with --advantages {c.advantages} (gae alone reads it)"),
        Idle(
            "gamma",
            lambda c: c.advantages in ("gae", "reinforce++"),
            "with --advantages {c.advantages} (whole replies are compared)",
        ),
        Idle("value_weight", lambda c: c.critic == "shared", "with --critic separate (its loss stands alone)"),
        Idle("critic_learning_rate", lambda c: c.critic == "separate", "with --critic shared (one rate for all)"),
    )
    advantages: Literal["gae", "rloo", "grpo", "dr-grpo", "reinforce++"] = Field(
        "gae",
        description="gae: with critics; others without: of a prompt's replies, or of all (docs/objectives.md)",
    )
    loss_mean: Literal["auto", "tokens", "replies", "length"] = rare(
        "auto",
        description="mean over tokens; over replies of theirs; sums over longest length; auto: by --advantages",
    )
    gamma: float = rare(1.0, gt=0, le=1, description="discount per token (gae, reinforce++)")
    lam: float = rare(0.95, ge=0, le=1, description="λ of generalised advantage estimation")
    whiten: bool = rare(True, description="gae: whiten the combined advantage over the batch")
    scale_rewards: bool = rare(
        False,
        description="scale rewards to deviation 1 over the batch's tokens, mean kept; no limits then",
    )
    critic: Literal["separate", "shared"] = Field(
        "separate",
        description="gae: a critic per signal, from its scorer; or value heads on the policy's trunk",
    )
    value_clip: float = rare(0.0, ge=0, description="clip range of values; 0 does not clip")
    value_weight: float = rare(0.1, gt=0, description="weight of the value loss beside the policy loss, when shared")
    critic_learning_rate: float = rare(
        0.0, ge=0, description="peak learning rate of separate critics; 0: by size and adapters (docs/rates.md)"
    )
    critic_warmup: int = rare(
        0, ge=0, description="first iterations in which critics alone learn; policy, β and λ stand still"
    )

    @property
    def mean_over(self) -> str:
        """What the policy loss is a mean over."""
        of = {"gae": "tokens", "rloo": "length", "grpo": "replies", "dr-grpo": "length", "reinforce++": "tokens"}
        return of[self.advantages] if self.loss_mean == "auto" else self.loss_mean


class MixKnobs(BaseModel):
    """Against forgetting: other text in the loss, and averages of weights."""

    heading: ClassVar[str] = "against forgetting"
    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("ptx_kind ptx_weight ptx_batch_size", lambda c: c.ptx_data, "without --ptx_data SOURCE"),
    )
    ptx_data: str | dict[str, str] = rare(
        {}, description="text whose likelihood is raised beside (PPO-ptx), as --ptx_kind says; none by default"
    )
    ptx_kind: Literal["text", "demonstrations"] = rare("text", description="what --ptx_data holds")
    ptx_weight: float = rare(1.0, gt=0, description="weight of its loss, in nats per token, beside the policy loss")
    ptx_batch_size: int = rare(32, gt=0, description="texts or demonstrations of it per optimizer step")
    weight_average: float = rare(
        0.0, ge=0, lt=1, description="decay per iteration of an average of the weights, which is saved; 0: no average"
    )


class LimitKnobs(BaseModel):
    """Limits on expected cost. Numbers are for every limit, or with --knob.NAME for single ones."""

    heading: ClassVar[str] = "limits"
    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "limit_of limit_window multiplier_rule multiplier_rate multiplier_gain multiplier_init multiplier_bound "
            "multipliers_from eval_data",
            lambda c: c.limits,
            "without --limits.NAME X",
        ),
        Idle(
            "multiplier_rate multiplier_bound",
            lambda c: c.multiplier_rule != "fixed",
            "with --multiplier_rule fixed (λ stands still)",
        ),
        Idle("multiplier_gain", lambda c: c.multiplier_rule == "pi", "with --multiplier_rule {c.multiplier_rule}"),
        Idle("multiplier_init", lambda c: not c.multipliers_from, "with --multipliers_from RUN (λ comes from there)"),
    )
    costs: dict[str, str] = Field({}, description="--costs.NAME DIR: cost models")
    limits: dict[str, float] = Field({}, description="--limits.NAME X: bound on what --limit_of says")
    limit_of: LimitOf | dict[str, LimitOf] = Field("cost", description=LIMIT_OF)
    limit_slices: dict[str, str] = Field(
        {}, description="--limit_slices.NAME A,B: slices that the limit holds on; default all"
    )
    limit_window: PerLimit = rare(
        1.0, description="iterations whose replies λ sees the mean of; 1: the replies of this policy alone"
    )
    multiplier_rule: Literal["pi", "safe-rlhf", "fixed"] = rare(
        "pi",
        description="how λ moves (docs/objectives.md); fixed makes a weighted sum",
    )
    multiplier_rate: PerLimit = rare(0.05, description="integral rate α of λ, per unit of error and iteration")
    multiplier_gain: PerLimit = rare(1.0, description="proportional gain k of λ, per unit of error")
    multiplier_init: PerLimit = rare(2.0, description="λ at the start; 0 stays 0")
    multiplier_bound: PerLimit = rare(10.0, description="largest λ")
    multipliers_from: str = rare("", description="run folder of ppo whose last λ of the same names are the first here")
    eval_data: str | dict[str, str] = Field(
        {},
        description="held-out prompts for the limits' check at the end; of the evaluation split if --split is given",
    )

    @model_validator(mode="after")
    def _limits_have_costs(self) -> "LimitKnobs":
        for name in self.limits:
            if name not in self.costs:
                raise ValueError(f"--limits.{name} has no cost model; add --costs.{name} DIR")
        for name in self.limit_slices:
            if name not in self.limits:
                raise ValueError(f"--limit_slices.{name} has no limit; add --limits.{name} NUMBER")
        for knob, least in PER_LIMIT.items():
            given = getattr(self, knob)
            for name, value in given.items() if isinstance(given, dict) else [("", given)]:
                dotted = f"--{knob}.{name}" if name else f"--{knob}"
                if name and name not in self.limits:
                    raise ValueError(f"{dotted} has no limit; add --limits.{name} NUMBER")
                if value < least:
                    raise ValueError(f"{dotted} {value:g} must be at least {least:g}")
                if knob == "limit_window" and value != int(value):
                    raise ValueError(f"{dotted} {value:g} must be a whole number of iterations")
        refuse_other_limits(self.limits, self.limit_of)
        return self

    def of_limit(self, knob: str, name: str) -> float:
        """The value of a `PerLimit` knob for one limit."""
        given = getattr(self, knob)
        if not isinstance(given, dict):
            return float(given)
        return float(given.get(name, type(self).model_fields[knob].default))


PER_LIMIT = {  # knob: its least value
    "limit_window": 1.0,
    "multiplier_rate": 0.0,
    "multiplier_gain": 0.0,
    "multiplier_init": 0.0,
    "multiplier_bound": 1e-9,
}


class Alarm(NamedTuple):
    """A bound on a metric of the rollouts, and what to do when it is passed."""

    metric: str
    action: str
    side: str
    bound: float

    def rings(self, value: float) -> bool:
        """Whether the value is past the bound; one that is no number is."""
        return not (value <= self.bound if self.side == "above" else value >= self.bound)


class WatchKnobs(BaseModel):
    """What to look out for while the reward rises."""

    heading: ClassVar[str] = "watching"
    watch: dict[str, str] = rare(
        {},
        description="--watch.NAME DIR: preference models never trained on, such as one of the other half of the data",
    )
    alarms: dict[str, str] = Field(
        {},
        description="--alarms.METRIC 'warn|stop|roll-back above|below X', several with semicolons (docs/policy.md)",
    )

    @property
    def rules(self) -> list[Alarm]:
        """The alarms one by one; the KL budget is one of them."""
        budget = getattr(self, "kl_budget", 0.0)
        parsed = [parse_alarm(metric, part) for metric, text in self.alarms.items() for part in text.split(";")]
        return parsed + ([Alarm("objective/kl", "roll-back", "above", budget)] if budget else [])

    @model_validator(mode="after")
    def _alarms_parse(self) -> "WatchKnobs":
        for rule in self.rules:
            if rule.metric.startswith(("loss/", "policy/", "grad_norm/", "values/")) or rule.metric == "learning_rate":
                raise ValueError(f"--alarms.{rule.metric}: alarms look at rollouts, not at what is learned from them")
        return self


def parse_alarm(metric: str, text: str) -> Alarm:
    """`ACTION above|below X` as an alarm; ValueError says what is wrong."""
    match = re.fullmatch(r"\s*(warn|stop|roll-back)\s+(above|below)\s+(\S+)\s*", text)
    try:
        if match:
            return Alarm(metric, match[1], match[2], float(match[3]))
    except ValueError:
        pass
    raise ValueError(f"--alarms.{metric} {text!r}: write warn, stop or roll-back, above or below, and a number")


class Ppo(Training, Adapters, Rendering, Rollouts, KlKnobs, AdvantageKnobs, LimitKnobs, MixKnobs, WatchKnobs):
    """Proximal policy optimisation with KL to a reference; with --limits, under limits on expected cost."""

    counts_replies: ClassVar[bool] = True
    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "update_kl",
            lambda c: c.ppo_epochs > 1 or max(1, c.mini_batch_size // c.samples) < c.batch_size,
            "with --ppo_epochs 1 and all replies in one --mini_batch_size (there is one update an iteration)",
        ),
        Idle("labeling", lambda c: c.labelers, "without --rewards.NAME labeler:WHERE"),
        Idle("off_policy_steps", lambda c: c.engine, "without --engine URL (nothing draws while this process learns)"),
        Idle("sampler_gap", lambda c: not c.off_policy_steps, "with --off_policy_steps 1 (the ratios bridge any gap)"),
    )
    model: str = Field(description="snapshot to start from")
    reference: str = Field("", description="snapshot that KL is measured to; default the model itself")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    rewards: dict[str, str] = Field(
        description="--rewards.NAME WHERE: preference models, functions, URLs, labeler: or rlcr:; summed"
    )
    reward_weights: dict[str, float] = rare({}, description="--reward_weights.NAME X: its weight in the sum; default 1")
    labeling: dict[str, int | float | bool | str] = rare(
        {}, description="--labeling.KNOB VALUE: how labelers among the rewards are asked (docs/labelers.md)"
    )
    steps: int = Field(40, gt=0, description="iterations of sampling and improving")
    batch_size: int = Field(256, gt=0, description="prompts per iteration")
    samples: int = Field(1, gt=0, description="replies per prompt")
    ppo_epochs: int = Field(2, gt=0, description="passes over each iteration's rollouts")
    mini_batch_size: int = Field(128, gt=0, description="rollouts per optimizer step; a prompt's stay together")
    clip: float = Field(0.2, gt=0, description="clip range of the policy ratio")
    update_kl: float = rare(
        0.0,
        ge=0,
        description="nats per token from the sampling policy, beyond which no step is made; 0: no bound",
    )
    sampler_gap: float = rare(
        0.0,
        ge=0,
        description="nats per token up to which the sampler's log-probs stand for the trainer's; 0: by precision",
    )
    off_policy_steps: int = rare(
        0, ge=0, le=1, description="1: servers draw the next iteration's replies, by weights one step old, meanwhile"
    )
    score_clip: float = rare(0.0, ge=0, description="bound on raw scores (not on KL); 0 does not clip")
    unfinished_penalty: float = rare(
        0.0, ge=0, description="subtracted from the reward of a reply without a stop token"
    )
    schedule: Schedule = rare("linear", description="constant over the first half, then down to 10 % by this shape")

    @property
    def labelers(self) -> list[str]:
        """The places of the labelers that give rewards."""
        named = [*self.rewards.values(), *self.watch.values()]
        return [where.partition(":")[2] for where in named if scheme_of(where) == "labeler"]

    @property
    def labels(self) -> Labeling:
        """How these are asked. Raises ValueError that names the knob which does not fit."""
        try:
            return Labeling.model_validate(self.labeling)
        except ValidationError as error:
            where = ".".join(["--labeling", *map(str, error.errors()[0]["loc"])])
            raise ValueError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None

    @property
    def summed(self) -> dict[str, float]:
        """What every reward's score counts in the sum."""
        return {name: self.reward_weights.get(name, 1.0) for name in self.rewards}

    @model_validator(mode="after")
    def _rewards_fit(self) -> "Ppo":
        for name in self.reward_weights:
            if name not in self.rewards:
                raise ValueError(f"--reward_weights.{name} has no reward; add --rewards.{name} DIR")
        if not self.rewards:
            raise ValueError("nothing to optimise; add --rewards.NAME DIR")
        if clash := set(self.rewards) & set(self.costs):
            raise ValueError(f"{min(clash)} is both a reward and a cost; give them different names")
        if clash := set(self.watch) & {*self.rewards, *self.costs}:
            raise ValueError(f"{min(clash)} is trained on and watched; give them different names")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> "Ppo":
        served = set(self.labels.model_fields_set) & set(Asking.model_fields)
        if served and not any(map(is_server, self.labelers)):
            raise ValueError(f"--labeling.{min(served)} has no effect: no labeler among the rewards is a server")
        if self.advantages in ("rloo", "grpo", "dr-grpo") and self.samples < 2:
            raise ValueError(f"--advantages {self.advantages} compares a prompt's replies; give --samples 2 or more")
        if self.off_policy_steps and any(rule.action == "roll-back" for rule in self.rules):
            raise ValueError(
                "--off_policy_steps 1: replies are of the weights before the last step, so a roll-back (--alarms, "
                "--kl_budget) would go back to weights that nobody looked at; take the action stop, or leave it out"
            )
        if self.scale_rewards and self.limits:
            raise ValueError("--scale_rewards would change what a multiplier weighs; leave it out under limits")
        if self.refresh_every and self.reference:
            raise ValueError("--refresh_every mixes the policy into a copy of itself; leave --reference out")
        return self
