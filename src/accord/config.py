"""What configs are made of: the run folder, training, sampling, adapters."""

import datetime
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from accord.records import Uneven

Precision = Literal["auto", "f32", "bf16"]
Compile = Literal["auto", "on", "off"]
Recompute = Literal["auto", "on", "off"]
Schedule = Literal["constant", "linear", "cosine"]
Track = Literal["none", "tensorboard", "trackio", "wandb"]
Sources = str | dict[str, str]
LimitOf = Literal["cost", "unsafe"]
PROTOCOLS = ("openai", "anthropic", "systemone")  # of servers that answer questions
SCHEMES = ("labeler", "rlcr")  # of rewards that are neither a model with a head nor a service, SCHEME:WHERE
COLDEST = 0.01  # vLLM draws at this temperature where it is asked for a lower one
LIMIT_OF = "what is bounded: the mean cost in its own units, or the calibrated share of unsafe replies"


def split_commas(value: Any) -> Any:
    """A list that may be given as texts with commas between; a command line gives its one text as a list."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return value
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


Listed = Annotated[list[str], BeforeValidator(split_commas)]  # names, one by one or with commas between


class Idle(NamedTuple):
    """Names of knobs, with spaces; where they are read; and why one is not anywhere else, {c} standing for the config.

    The reason says which other knob it is and follows "has no effect".
    """

    knobs: str
    unless: Callable[[Any], object]
    why: str


class Config(BaseModel):
    """Frozen; an unknown key is an error, and so is a knob off its default that nothing reads beside the others.

    A class says in `idle` which of its knobs these can be; what its bases say holds too.
    """

    # built when first used: `accord --help` needs none of the validators
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    idle: ClassVar[tuple[Idle, ...]] = ()
    counts_replies: ClassVar[bool] = False  # whether `max_length` holds a prompt with the reply that is drawn to it

    @property
    def most_tokens(self) -> tuple[int, str]:
        """How many tokens the knobs let a model read at once, and which knobs; 0 where none says."""
        longest, drawn = getattr(self, "max_length", 0), getattr(self, "max_new_tokens", 0)
        if self.counts_replies or not longest or not drawn:
            return longest, "--max_length" if longest else ""
        return longest + drawn, "--max_length with --max_new_tokens"

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        for knobs, is_read, why in idle_rows(type(self)):
            for knob in knobs.split():
                if getattr(self, knob) != type(self).model_fields[knob].default and not is_read(self):
                    raise ValueError(f"--{knob} has no effect {why.format(c=self)}; change that, or leave it out")
        return self


def idle_rows(cls: type[Config]) -> list[Idle]:
    """What a config and the classes that it is made of say of knobs without effect."""
    return [row for base in reversed(cls.__mro__) for row in vars(base).get("idle", ())]


def rare(default: Any, **options: Any) -> Any:
    """A field that only `--help all` shows."""
    return Field(default, json_schema_extra={"rare": True}, **options)


def is_everyday(field: FieldInfo) -> bool:
    """Whether `--help` shows it."""
    return field.json_schema_extra is None


class Run(Config):
    """What every command that writes a run folder shares."""

    heading: ClassVar[str] = "run folder"
    out: str = Field(description="run folder to write; must be new or empty unless --resume")
    resume: bool = Field(False, description="go on from the folder's last checkpoint")
    seed: int = Field(0, ge=0, description="seed of everything random")
    threads: int = Field(0, ge=0, description="CPU threads; 0 takes every core that this process may use")


def needs_bitsandbytes(asked: str) -> None:
    """ValueError where what was asked for needs a package that is not there."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"{asked} needs the package bitsandbytes: pip install 'accord[bits]', or leave it out")


class Training(Run):
    """What every training stage shares."""

    heading: ClassVar[str] = "training"
    learning_rate: float = Field(
        0.0, ge=0, description="peak learning rate of AdamW; 0: by stage, size and adapters (docs/rates.md)"
    )
    warmup: float = rare(0.05, ge=0, lt=1, description="share of the steps over which the rate rises from 0")
    schedule: Schedule = rare("cosine", description="fall after warm-up, to 10 % of the peak; constant: none")
    weight_decay: float = rare(0.0, ge=0, description="decoupled decay of matrices; never of norms or biases")
    clip_norm: float = rare(1.0, gt=0, description="largest gradient norm; a longer gradient is scaled down")
    micro_tokens: int = Field(
        0, ge=0, description="tokens in memory at once; 0: as many as fit and are of use; changes no result"
    )
    recompute: Recompute = rare(
        "auto",
        description="compute activations twice and keep none; auto: where a text takes too much memory",
    )
    max_length: int = Field(512, gt=1, description="longest sequence in tokens; longer ones are dropped and counted")
    precision: Precision = Field(
        "auto", description="of the forward pass; log-softmax is always f32; auto: bf16 where it is twice as fast"
    )
    compile: Compile = rare(
        "auto", description="norms and MLPs as one kernel each; auto: where a run is so long that it pays"
    )
    checkpoint_every: int = rare(200, ge=0, description="steps between checkpoints; 0: by the clock alone")
    checkpoint_minutes: float = rare(10.0, ge=0, description="minutes between checkpoints too; 0: by steps alone")
    optimizer_bits: int = rare(32, description="of each of AdamW's moments; 8: by pip install 'accord[bits]'")
    shard: bool = rare(False, description="under torchrun: divide weights, gradients and states over the processes")
    track: Track = rare("none", description="write the metrics for this viewer too, offline")

    @model_validator(mode="after")
    def _bits_are_to_be_had(self) -> Self:
        if self.optimizer_bits not in (8, 32):
            raise ValueError(f"--optimizer_bits {self.optimizer_bits} is neither 32 nor 8; give one of them")
        if self.optimizer_bits == 8 and self.shard:
            raise ValueError("--optimizer_bits 8: moments of 8 bits are not divided by --shard; leave one of them out")
        if self.optimizer_bits == 8:
            needs_bitsandbytes("--optimizer_bits 8")
        return self


class Supervised(Training):
    """What the stages that `training.fit` runs share."""

    heading: ClassVar[str] = "training"
    matrix_learning_rate: float = rare(
        0.0, ge=0, description="peak learning rate of Muon on hidden matrices; 0 trains them by AdamW too"
    )
    eval_every: int = Field(0, ge=0, description="steps between evaluations; 0 evaluates only at the end")


class Adapters(Config):
    """Low-rank adapters (peft), for the stages that train a given model."""

    heading: ClassVar[str] = "training"
    idle: ClassVar[tuple[Idle, ...]] = (
        Idle("lora_alpha lora_targets base_bits", lambda c: c.lora_rank, "without --lora_rank N"),
    )
    lora_rank: int = Field(0, ge=0, description="rank of LoRA adapters; 0 trains every weight")
    lora_alpha: float = rare(16.0, gt=0, description="LoRA scale; the update is alpha / rank times the product")
    lora_targets: str = rare("all-linear", description="modules to adapt: all-linear, or names with commas")
    base_bits: int = rare(0, description="of each matrix under adapters; 4: by pip install 'accord[bits]'")

    @model_validator(mode="after")
    def _base_is_to_be_had(self) -> Self:
        if self.base_bits not in (0, 4):
            raise ValueError(f"--base_bits {self.base_bits} is not 4; give 4, or leave it out")
        if self.base_bits and getattr(self, "shard", False):
            raise ValueError("--base_bits 4: matrices of 4 bits are not divided by --shard; leave one of them out")
        if self.base_bits:
            needs_bitsandbytes("--base_bits 4")
        return self


class Sampling(Config):
    """How replies are drawn."""

    heading: ClassVar[str] = "drawing replies"
    temperature: float = Field(1.0, gt=0, description="divides the logits; log-probs are taken at it too")
    max_new_tokens: int = Field(64, gt=0, description="longest reply in tokens")
    cache_tokens: int = rare(
        0,
        ge=0,
        description="tokens in the sampler's cache, 0: as many as fit, 65536 at most; changes no result",
    )


class Decoding(Sampling):
    """How replies are drawn where no log-prob has to be the policy's own: from a part of the distribution, or greedily.

    What is learned from must be drawn from the whole of it: no training stage has these.
    """

    heading: ClassVar[str] = "drawing replies"
    temperature: float = Field(1.0, ge=0, description="divides the logits; 0 takes the likeliest token")
    top_p: float = Field(1.0, gt=0, le=1, description="draw from the likeliest tokens that have this probability")
    top_k: int = Field(0, ge=0, description="draw from so many of the likeliest tokens; 0: from all")
    min_p: float = rare(0.0, ge=0, lt=1, description="leave out tokens below this share of the likeliest one's")
    stop: list[str] = rare([], description='--stop \'["A", "B"]\': texts that end a reply, and are cut off it')

    @property
    def is_plain(self) -> bool:
        """Whether the log-probs of what is drawn are those of the policy at the temperature."""
        return self.temperature > 0 and (self.top_p, self.top_k, self.min_p) == (1.0, 0, 0.0)

    def refuse_unless_plain(self, flag: str, why: str) -> None:
        """ValueError for a flag that needs the policy's own log-probs."""
        if not self.is_plain:
            raise ValueError(f"{flag} {why}; leave --top_p, --top_k, --min_p and --temperature 0 out, or {flag}")


class Rollouts(Sampling):
    """How replies are drawn where another engine may draw them."""

    heading: ClassVar[str] = "drawing replies"
    engine: str = Field(
        "",
        description="URL of a vLLM server that draws them, or several with commas (docs/engine.md); default: none",
    )

    @field_validator("engine")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        for url in value.split(",") if value else ():
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no address; write http://HOST:PORT, or leave it out for this process")
        return value

    @model_validator(mode="after")
    def _server_draws(self) -> Self:
        if self.engine and self.cache_tokens:
            raise ValueError("--cache_tokens: a server of --engine has a cache of its own; leave one of them out")
        if self.engine and 0 < self.temperature < COLDEST:
            raise ValueError(f"--temperature {self.temperature:g}: a vLLM server draws at {COLDEST}; give that or more")
        return self


class Asking(Config):
    """How a server is asked that answers questions, or writes; a run that asks none has no use for these."""

    heading: ClassVar[str] = "asking a server"
    idle: ClassVar[tuple[Idle, ...]] = (
        Idle(
            "allow_local key_variable max_calls max_cost price_sent price_answered timeout attempts at_once draws",
            lambda c: c.asks_server,
            "without --{c.asked_knob} PROTOCOL:URL#MODEL",
        ),
    )
    asked_knob: ClassVar[str] = "scorer"  # the knob that may name a server
    allow_local: bool = Field(False, description="a server of this machine or its network may be asked")
    max_calls: int = Field(0, ge=0, description="calls at most, failed ones too; 0: any number")
    max_cost: float = Field(0.0, ge=0, description="money at most, by the prices below; 0: any sum")
    price_sent: float = rare(0.0, ge=0, description="of a million tokens sent, in the currency of --max_cost")
    price_answered: float = rare(0.0, ge=0, description="of a million tokens answered")
    key_variable: str = rare("", description="environment variable that holds the key; default: the protocol's own")
    timeout: float = rare(60.0, gt=0, description="seconds for one attempt")
    attempts: int = rare(5, gt=0, description="attempts at a call that fails in passing (no connection, 429, 5xx)")
    at_once: int = rare(32, gt=0, description="calls in flight")
    draws: int = rare(8, gt=0, description="answers drawn for a label where a server gives no probabilities")

    @property
    def asks_server(self) -> bool:
        """Whether a knob names a server."""
        return False

    @property
    def asking(self) -> dict[str, Any]:
        """The same as knobs of a stage that is called; none where no server is asked."""
        return {knob: getattr(self, knob) for knob in Asking.model_fields} if self.asks_server else {}

    @model_validator(mode="after")
    def _money_has_prices(self) -> Self:
        if self.max_cost and not self.price_sent and not self.price_answered:
            raise ValueError("--max_cost goes by --price_sent and --price_answered; give them, or leave it out")
        return self


def is_server(where: str) -> bool:
    """Whether a labeler is a server: PROTOCOL:URL#MODEL."""
    return where.partition(":")[0] in PROTOCOLS


def scheme_of(where: str) -> str:
    """The scheme of a reward SCHEME:WHERE that `accord.stages.rewards` opens; empty for any other."""
    scheme = where.partition(":")[0]
    return scheme if scheme in SCHEMES else ""


class UnderPrinciples(Asking):
    """How a labeler is asked about single replies under the principles of a constitution."""

    question: Literal["score", "yes-no"] = Field(
        "score", description="how well a reply keeps to a principle, or whether it does"
    )
    constitution: str = Field("default", description="default, world, a YAML file, or a folder of the paper's prompts")
    tags: Listed = Field([], description="use only principles of these names or tags, with commas; default: all")
    calibration: str = Field(
        "", description="run folder of `accord constitution --make calibration` with the same --question"
    )
    require_calibration: bool = Field(False, description="refuse to score without calibration of this very labeler")

    @model_validator(mode="after")
    def _is_measured(self) -> Self:
        if self.require_calibration and not self.calibration:
            raise ValueError(
                "require_calibration needs calibration RUN of `accord constitution --make calibration`; measure first"
            )
        return self


class Labeling(UnderPrinciples):
    """The same, under some principles alone: as a reward, or to say whether an attack got through."""

    ensemble: int = Field(1, ge=0, description="principles drawn for each prompt; 0: all of them")

    @property
    def asks_server(self) -> bool:
        return True  # which labelers there are, the rewards say


class Reading(Config):
    """What every command that reads data shares."""

    max_rows: int = Field(0, ge=0, description="read at most so many rows per source; 0 reads all")
    columns: dict[str, str] = Field({}, description="--columns.FIELD NAME: the column that holds FIELD")

    @property
    def how(self) -> dict[str, Any]:
        """The same as keywords of the functions that read a source."""
        return {"columns": self.columns, "max_rows": self.max_rows}


class ReadingPairs(Reading):
    """What commands share that learn or measure on replies, of which pairs have two."""

    uneven: Uneven = rare("drop", description="pairs whose sides part before the last turn; cut: where they part")

    @property
    def how(self) -> dict[str, Any]:
        return {**super().how, "uneven": self.uneven}


class Rendering(Reading):
    """What commands share that write conversations by a model's chat template."""

    clock: str = rare("", description="time told to a template that writes it, as 2024-07-26T12:00:00; default: now")

    @field_validator("clock")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value:
            try:
                datetime.datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{value!r} is no time; write it as 2024-07-26T12:00:00, or leave it out") from None
        return value


class Forward(Config):
    """How text passes through a model that is not trained."""

    micro_tokens: int = Field(16384, gt=0, description="tokens in memory at once; changes no result")
    precision: Precision = Field(
        "f32", description="of the forward passes; log-softmax is always f32; auto: bf16 where it is twice as fast"
    )
    max_length: int = Field(512, gt=1, description="longest text in tokens; longer ones are dropped and counted")


class Passing(Forward, Rendering, ReadingPairs):
    """What commands share that pass data through models and train none."""


def hub_id(where: str) -> tuple[str, str]:
    """The name and revision of a hub model, OWNER/NAME or OWNER/NAME@REVISION; two empty texts for anything else."""
    match = re.fullmatch(r"([\w-][\w.-]*/[\w.-]+)(?:@([^\s@]+))?", where)
    return (match[1], match[2] or "") if match and not Path(where).is_dir() else ("", "")


def to_plain(config: Config) -> dict[str, Any]:
    """The config as plain YAML-able values."""
    return config.model_dump(mode="json")


def of_limit(limit_of: LimitOf | Mapping[str, LimitOf], name: str) -> LimitOf:
    """What the limit NAME bounds; cost, where others are named and it is not."""
    return limit_of if isinstance(limit_of, str) else limit_of.get(name, "cost")


def refuse_other_limits(limits: Mapping[str, float], limit_of: LimitOf | Mapping[str, LimitOf]) -> None:
    """ValueError for `--limit_of` of a limit that is none, and for a bound that no share can pass."""
    for name in () if isinstance(limit_of, str) else limit_of:
        if name not in limits:
            raise ValueError(f"--limit_of.{name} has no limit; add --limits.{name} NUMBER")
    for name, bound in limits.items():
        if of_limit(limit_of, name) == "unsafe" and not 0 < bound < 1:
            raise ValueError(
                f"--limits.{name} {bound:g} is no share of unsafe replies, which lies between 0 and 1; give one, or "
                f"bound the raw cost: --limit_of.{name} cost"
            )
