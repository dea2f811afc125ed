"""Every command's knobs, once: they are the flags, the help, the YAML file and the saved `config.yaml`.

This module imports neither torch nor transformers, so that `accord COMMAND --help` answers at once.
Sources are written as docs/data.md says; directories and hub ids name snapshots.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from accord.ppo_knobs import AdvantageKnobs, KlKnobs, LimitKnobs, MixKnobs, WatchKnobs

Precision = Literal["f32", "bf16"]
Schedule = Literal["constant", "linear", "cosine"]
Sources = str | dict[str, str]
Labeler = Literal["simulated", "gold", "preference"]
LABELERS = "who compares: the gold world's simulated people, its truth, or a preference model (--scorer DIR)"


class Config(BaseModel):
    """Frozen; an unknown key is an error."""

    # built when first used: `accord --help` needs none of the validators
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Run(Config):
    """What every command that writes a run folder shares."""

    out: str = Field(description="run folder to write; must be new or empty unless --resume")
    resume: bool = Field(False, description="go on from the folder's last checkpoint")
    seed: int = Field(0, ge=0, description="seed of everything random")
    threads: int = Field(0, ge=0, description="CPU threads; 0 takes every core that this process may use")


class Training(Run):
    """What every training stage shares."""

    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the rate rises from 0")
    schedule: Schedule = Field("cosine", description="fall after warm-up, to 10 % of the peak; constant: none")
    weight_decay: float = Field(0.0, ge=0, description="decoupled decay of matrices; never of norms or biases")
    clip_norm: float = Field(1.0, gt=0, description="largest gradient norm; a longer gradient is scaled down")
    micro_tokens: int = Field(8192, gt=0, description="tokens in memory at once; changes no result")
    max_length: int = Field(512, gt=1, description="longest sequence in tokens; longer ones are dropped and counted")
    precision: Precision = Field("f32", description="compute type of the forward pass; log-softmax is always f32")
    checkpoint_every: int = Field(200, ge=0, description="steps between checkpoints; 0 writes one only when stopped")


class Supervised(Training):
    """What the stages that `training.fit` runs share."""

    matrix_learning_rate: float = Field(
        0.0, ge=0, description="peak learning rate of Muon on hidden matrices; 0 trains them by AdamW too"
    )
    eval_every: int = Field(0, ge=0, description="steps between evaluations; 0 evaluates only at the end")


class Adapters(Config):
    """Low-rank adapters (peft), for the stages that train a given model."""

    lora_rank: int = Field(0, ge=0, description="rank of LoRA adapters; 0 trains every weight")
    lora_alpha: float = Field(16.0, gt=0, description="LoRA scale; the update is alpha / rank times the product")
    lora_targets: str = Field("all-linear", description="modules to adapt: all-linear, or names with commas")


class Pretrain(Supervised):
    """Train a language model on text, from nothing or on from a snapshot."""

    model: str = Field(
        "small",
        description="size of a new model (nano 0.2M, tiny 0.5M, small 1M, base 5M, medium 26M, large 100M parameters), "
        "or a snapshot to go on from",
    )
    data: Sources = Field(description="text to train on; --data.NAME SOURCE for several")
    weights: dict[str, float] = Field({}, description="--weights.NAME X: share of each source; default by size")
    eval_data: str = Field("", description="text to measure loss on; default holds out 2 % of the documents")
    vocab_size: int = Field(4096, gt=0, description="largest vocabulary of a new tokenizer")
    tokenizer: str = Field("", description="snapshot to take the tokenizer from; default trains one on the data")
    max_rows: int = Field(0, ge=0, description="read at most so many documents; 0 reads all")
    steps: int = Field(300, gt=0, description="optimizer steps")
    batch_size: int = Field(6144, gt=0, description="tokens per optimizer step")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")
    learning_rate: float = Field(6e-3, gt=0, description="peak learning rate of AdamW")
    max_length: int = Field(512, gt=1, description="longest sequence in tokens; a longer document is cut in pieces")


class Sft(Supervised, Adapters):
    """Supervised fine-tuning on demonstrations: loss on assistant tokens alone."""

    model: str = Field(description="snapshot to start from")
    data: Sources = Field(description="demonstrations; --data.NAME SOURCE for several")
    weights: dict[str, float] = Field({}, description="--weights.NAME X: share of each source; default by size")
    eval_data: str = Field("", description="demonstrations to measure loss on; default holds out 5 % by prompt")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    train_on: Literal["assistant", "reply"] = Field("assistant", description="every assistant turn, or the last alone")
    max_rows: int = Field(0, ge=0, description="read at most so many rows per source; 0 reads all")
    epochs: float = Field(2.0, gt=0, description="passes over the data")
    batch_size: int = Field(64, gt=0, description="conversations per optimizer step")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")


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


class Dpo(Supervised, Adapters):
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
        {}, description="--limits.NAME X: bound on the mean cost, checked on replies sampled at the end"
    )
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
    max_rows: int = Field(0, ge=0, description="read at most so many rows per source; 0 reads all")
    epochs: float = Field(1.0, gt=0, description="passes over the data")
    batch_size: int = Field(64, gt=0, description="comparisons, or labelled replies, per optimizer step")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")
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


class Sampling(Config):
    """How replies are drawn."""

    temperature: float = Field(1.0, gt=0, description="divides the logits; log-probs are taken at it too")
    max_new_tokens: int = Field(64, gt=0, description="longest reply in tokens")


class Ppo(Training, Adapters, Sampling, KlKnobs, AdvantageKnobs, LimitKnobs, MixKnobs, WatchKnobs):
    """Proximal policy optimisation with KL to a reference; with --limits, under limits on expected cost."""

    model: str = Field(description="snapshot to start from")
    reference: str = Field("", description="snapshot that KL is measured to; default the model itself")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    rewards: dict[str, str] = Field(
        description="--rewards.NAME DIR: preference models, or module:function, or a URL; their sum is maximised"
    )
    reward_weights: dict[str, float] = Field(
        {}, description="--reward_weights.NAME X: its weight in the sum; default 1"
    )
    steps: int = Field(40, gt=0, description="iterations of sampling and improving")
    batch_size: int = Field(256, gt=0, description="prompts per iteration")
    samples: int = Field(1, gt=0, description="replies per prompt")
    ppo_epochs: int = Field(2, gt=0, description="passes over each iteration's rollouts")
    mini_batch_size: int = Field(128, gt=0, description="rollouts per optimizer step; a prompt's stay together")
    clip: float = Field(0.2, gt=0, description="clip range of the policy ratio")
    update_kl: float = Field(
        0.0,
        ge=0,
        description="nats per token from the sampling policy, beyond which no step is made; 0: no bound",
    )
    score_clip: float = Field(0.0, ge=0, description="bound on raw scores (not on KL); 0 does not clip")
    unfinished_penalty: float = Field(
        0.0, ge=0, description="subtracted from the reward of a reply without a stop token"
    )
    max_rows: int = Field(0, ge=0, description="read at most so many prompts per source; 0 reads all")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")
    learning_rate: float = Field(2e-4, gt=0, description="peak learning rate of AdamW")
    schedule: Schedule = Field("linear", description="constant over the first half, then down to 10 % by this shape")

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
        if self.advantages in ("rloo", "grpo", "dr-grpo") and self.samples < 2:
            raise ValueError(f"--advantages {self.advantages} compares a prompt's replies; give --samples 2 or more")
        if self.critic_warmup and self.advantages != "gae":
            raise ValueError(f"--critic_warmup: --advantages {self.advantages} has no critic")
        if self.scale_rewards and self.limits:
            raise ValueError("--scale_rewards would change what a multiplier weighs; leave it out under limits")
        if self.refresh_every and self.reference:
            raise ValueError("--refresh_every mixes the policy into a copy of itself; leave --reference out")
        return self


class Sample(Run, Sampling):
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
    micro_tokens: int = Field(16384, gt=0, description="tokens in memory at once; changes no result")
    max_length: int = Field(512, gt=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_rows: int = Field(0, ge=0, description="read at most so many prompts per source; 0 reads all")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")

    @model_validator(mode="after")
    def _selection_has_scores(self) -> "Sample":
        if (self.select == "all") == bool(self.rewards):
            raise ValueError("--select best and accepted need --rewards.NAME DIR, and --rewards are for nothing else")
        if self.select != "all" and self.samples < 2:
            raise ValueError(f"--select {self.select} chooses among a prompt's replies; give --samples 2 or more")
        return self


class Evaluate(Run, Sampling):
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
    micro_tokens: int = Field(16384, gt=0, description="tokens in memory at once; changes no result")
    max_length: int = Field(512, gt=1, description="longest prompt in tokens; longer ones are dropped and counted")
    max_rows: int = Field(0, ge=0, description="read at most so many prompts per source; 0 reads all")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")


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


class Data(Config):
    """Show what a source holds: shape, rows, drops, lengths, an example with its mask."""

    source: str = Field(description="the source to look at")
    model: str = Field("", description="snapshot whose tokenizer renders the example; default a word tokenizer")
    max_rows: int = Field(0, ge=0, description="read at most so many rows; 0 reads all")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")


class Annotate(Run):
    """Label sampled replies: by simulated people of the gold world, by its truth, or by a preference model."""

    samples: str = Field(description="run folder of `accord sample`, two replies or more to each prompt")
    labeler: Labeler = Field("simulated", description=LABELERS)
    scorer: str = Field("", description="preference model that labels")
    criteria: list[str] = Field(["helpful", "harmless"], description="criteria to compare under")
    judged: list[str] = Field(["harmless"], description="criteria to judge single replies under (safe or not)")
    slices: dict[str, str] = Field({}, description="criterion → slices to compare on, with commas; default all")
    temperature: float = Field(0.5, ge=0, description="of the Bradley–Terry choice, in gold points")
    flips: float = Field(0.05, ge=0, le=0.5, description="share of answers turned round")
    length_bias: float = Field(0.0, description="what ten more words are worth, in gold points")
    position_bias: float = Field(0.0, description="what being shown first is worth, in gold points")
    group: str = Field("mixed", description="group of annotators: mixed, cautious or eager")

    @model_validator(mode="after")
    def _labeler_can(self) -> "Annotate":
        _check_labeler(self.labeler, self.scorer)
        if self.labeler == "preference" and len(self.criteria) != 1:
            raise ValueError("--criteria: a preference model compares under its own criterion alone")
        if self.labeler != "simulated" and self.judged:
            raise ValueError(f"--judged: labeler {self.labeler} compares and does not judge; give an empty list")
        return self


def _check_labeler(labeler: str, scorer: str) -> None:
    if (labeler == "preference") != bool(scorer):
        raise ValueError("--labeler preference and --scorer DIR go together; give both, or neither")


class Online(Run, Sampling):
    """Rounds on a policy's own replies: sample, have them compared, train by a direct loss."""

    model: str = Field(description="snapshot to start from; it stays the reference of every round")
    data: Sources = Field(description="prompts; --data.NAME SOURCE names a slice")
    split: str = Field("", description="use only prompts of this split (preference, policy, evaluation)")
    rounds: int = Field(3, gt=0, description="rounds; each trains on replies of the policy that the last one left")
    prompts: int = Field(512, gt=0, description="prompts per round, new ones in each")
    samples: int = Field(2, gt=1, description="replies per prompt")
    labeler: Labeler = Field("gold", description=LABELERS)
    scorer: str = Field("", description="preference model that labels")
    criterion: str = Field("helpful", description="the quality that the replies are compared under")
    train: dict[str, int | float | bool | str] = Field(
        {}, description="--train.KNOB VALUE: knobs of `accord dpo` for the training of every round"
    )
    max_rows: int = Field(0, ge=0, description="read at most so many prompts per source; 0 reads all")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")

    @model_validator(mode="after")
    def _rounds_fit(self) -> "Online":
        _check_labeler(self.labeler, self.scorer)
        taken = {*Run.model_fields, *Sampling.model_fields, "model", "reference", "criterion"}
        for knob in self.train:
            if knob not in Dpo.model_fields:
                raise ValueError(f"--train.{knob}: `accord dpo` has no such knob")
            if knob in taken or Dpo.model_fields[knob].annotation == Sources:
                raise ValueError(f"--train.{knob}: the rounds set it themselves; leave it out")
        self.training("model", "data", out="out", resume=False)
        return self

    def training(self, model: str, data: str, *, out: str, resume: bool) -> Dpo:
        """The training of a round. Raises ValueError that names the knob which `accord dpo` refuses."""
        ours: dict[str, Any] = {name: getattr(self, name) for name in ("seed", "threads", "max_new_tokens")}
        try:
            return Dpo(
                model=model,
                data=data,
                out=out,
                resume=resume,
                criterion=self.criterion,
                **{**ours, "reference": self.model, **self.train},
            )
        except ValidationError as error:
            where = ".".join(["--train", *map(str, error.errors()[0]["loc"])])
            raise ValueError(f"{where}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


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


def to_plain(config: Config) -> dict[str, Any]:
    """The config as plain YAML-able values."""
    return config.model_dump(mode="json")
