"""Memory and time of a stage on a machine: bytes of a device by what they are for, seconds by what they go into.

Compute is operations over the machine's attained rate, times how much of it each kind of pass is known to reach;
decoding is bound by bytes or by the overhead of a step; collectives are rings, bound by the slowest link.
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist

from accord.engine.decode.matrices import COPIED
from accord.stages.plan.machines import Machine
from accord.stages.plan.work import Drawing, Pass, Work
from accord.training.footprint import (
    BF16,
    F32,
    FOUR_BITS,
    KEEPING,
    PEAK,
    SHARE,
    DecoderShape,
    head_bytes,
    kept_bytes,
    state_bytes,
    useful_tokens,
)

# shares of the rate of large products that passes reach (prefill, forward, forward and backward of every weight and of
# adapters), and of the bandwidth. On a CPU, where a product keeps few cores busy, those of SmolLM2 (docs/scale.md)
REACHED = {
    "cpu": {"prefill": 0.6, "forward": 0.55, "train": 0.65, "adapters": 0.5, "decode": 0.7},
    "cuda": {"prefill": 0.6, "forward": 0.55, "train": 0.45, "adapters": 0.45, "decode": 0.7},
}
CACHED = 65536  # tokens of the sampler's cache at most
HEAD_TOKENS = 8192  # rows whose log-probs are computed at once, at most
LIBRARIES = {"cpu": 0.45 * 2**30, "cuda": 0.0}  # bytes of a process before it has a model, where they count


@dataclass(frozen=True)
class Way:
    """How a stage is run: over so many ranks, with whole replicas or sharded, adapters, recomputation, products' type.

    `micro_tokens` 0: as many as fit.
    """

    ranks: int
    sharded: bool = False
    lora_rank: int = 0
    recompute: bool = False
    precision: str = "bf16"
    micro_tokens: int = 0
    optimizer_bits: int = 32
    base_bits: int = 0

    @property
    def low(self) -> bool:
        return self.precision == "bf16"


@dataclass(frozen=True)
class Memory:
    """Bytes of a device by what they are for, beside those of a micro-batch's tokens."""

    parts: dict[str, float]
    per_token: float
    micro_tokens: int
    fits: bool

    @property
    def total(self) -> float:
        return sum(self.parts.values()) + self.per_token * self.micro_tokens


@dataclass(frozen=True)
class Time:
    """Seconds of a step by what they go into, and of the whole stage with what waiting and failures cost."""

    parts: dict[str, float]
    steps: int
    waiting: float = 1.0
    failures: float = 1.0
    details: dict[str, float] = field(default_factory=dict)

    @property
    def step(self) -> float:
        return sum(self.parts.values()) * self.waiting

    @property
    def total(self) -> float:
        return self.steps * self.step * self.failures


def memory_of(work: Work, shape: DecoderShape, way: Way, machine: Machine, longest: float) -> Memory:
    """What a device holds while the stage trains, and while it draws replies, whichever is more.

    A micro-batch has as many tokens as training would choose (`training.memory.plan_memory`), one item at least.
    """
    divided = way.ranks if way.sharded else 1
    numbers, adapters = shape.numbers, shape.adapter_numbers(way.lora_rank)
    per_model = adapters if way.lora_rank else numbers
    whole, still = (0, 1) if way.lora_rank else (work.trained, work.frozen)  # with adapters all roles stand on one base
    each = FOUR_BITS if way.base_bits else BF16 if way.low else F32  # `models.bases.lower_frozen`
    held = F32 * numbers - (F32 - each) * shape.trunk_numbers
    learned = (work.trained + work.frozen) * adapters
    cast = numbers - shape.trunk_numbers + adapters if way.lora_rank else numbers
    parts = {
        "weights": (whole * F32 * numbers + still * held + F32 * learned) / divided,
        "gradients and optimizer": state_bytes(work.trained * per_model, ranks=divided, bits=way.optimizer_bits),
        "weights cast": float(BF16 * cast) if way.low else 0.0,
        "gathered layers": 2.0 * F32 * shape.layer_numbers if way.sharded else 0.0,
        "head": head_bytes(shape, min(HEAD_TOKENS, work.item_tokens), low=way.low),
        "libraries": LIBRARIES[machine.device],
    }
    per_token = PEAK * kept_bytes(shape, low=way.low, recompute=way.recompute) * min(2, work.trained)
    if work.drawing is not None:
        drawn = drawing_bytes(work.drawing, shape, way)
        # nothing is kept for a backward pass meanwhile, and there is no gradient
        training = per_token * max(longest, way.micro_tokens) + parts["gradients and optimizer"] / 3
        parts["drawing replies"] = max(0.0, drawn - training)
    free = machine.bytes - parts["weights"] - parts["libraries"]
    share = SHARE if way.recompute else KEEPING[machine.device]
    room = share * free - sum(parts.values()) + parts["weights"] + parts["libraries"]
    batch = math.ceil(work.items / way.ranks) * work.item_tokens
    useful = useful_tokens(room / per_token, per_token, longest=longest, device=machine.device)
    tokens = way.micro_tokens or min(useful, math.ceil(max(longest, batch)))
    return Memory(parts, per_token, tokens, room >= per_token * tokens)


def drawing_bytes(drawing: Drawing, shape: DecoderShape, way: Way) -> float:
    """The sampler's cache, its copy of weights that are few or in 4 bits, and of sharded weights the gathered ones."""
    each = BF16 if way.low else F32
    gathered = F32 * shape.numbers if way.sharded else 0.0
    copied = each * shape.numbers if each * shape.numbers <= COPIED or way.base_bits else 0.0
    return gathered + copied + cached_tokens(drawing, way.ranks) * shape.cache_bytes(each)


def cached_tokens(drawing: Drawing, ranks: int) -> float:
    replies = math.ceil(drawing.replies / ranks)
    return min(CACHED, replies * (drawing.prompt + drawing.reply))


def time_of(work: Work, shape: DecoderShape, way: Way, machine: Machine, memory: Memory, *, checkpoint: float) -> Time:
    """Seconds of a step and of the stage; `checkpoint` are the minutes between two."""
    share = math.ceil(work.items / way.ranks) / work.items  # of the rank that has most
    parts = {each.what: _pass_seconds(each, way, machine) * share for each in work.passes}
    tokens = sum(each.times * each.tokens for each in work.passes if each.trained)
    passes = max(1.0, tokens * share / memory.micro_tokens)
    parts["messages"] = message_seconds(work, shape, way, machine, passes)
    if work.drawing is not None:
        parts["draw replies"] = drawing_seconds(work.drawing, shape, way, machine)
    waiting = math.exp(machine.straggle * slowest_of(way.ranks))
    return Time(parts, work.steps, waiting, failure_factor(machine, way.ranks, checkpoint))


def _pass_seconds(each: Pass, way: Way, machine: Machine) -> float:
    """One device's seconds for all of a pass. Backward is twice forward; once where nothing but adapters has a
    gradient; layers that run again once more."""
    rate, reached = machine.rate(way.precision), REACHED[machine.device]
    if not each.trained:
        return each.times * each.operations / (reached["forward"] * rate)
    factor = (2 if way.lora_rank else 3) + (1 if way.recompute else 0)
    return each.times * factor * each.operations / (reached["adapters" if way.lora_rank else "train"] * rate)


def message_seconds(work: Work, shape: DecoderShape, way: Way, machine: Machine, passes: float) -> float:
    """Replicas add their gradients up once a step. Sharded, every pass gathers each layer forward and backward, and
    divides its gradient again: three rings a pass, of which compute hides nothing here."""
    if way.ranks == 1:
        return 0.0
    around = (way.ranks - 1) / way.ranks
    trained = work.trained * (shape.adapter_numbers(way.lora_rank) if way.lora_rank else shape.numbers)
    if not way.sharded:
        return 2 * F32 * trained * around / machine.link + 2 * (way.ranks - 1) * machine.latency
    gathered = 2 * F32 * work.trained * shape.numbers + F32 * trained
    messages = 3 * shape.layers * work.trained * (way.ranks - 1) * machine.latency
    return passes * (gathered * around / machine.link + messages)


def drawing_seconds(drawing: Drawing, shape: DecoderShape, way: Way, machine: Machine) -> float:
    """Prompts at once, then a step a token: the weights and every live reply's keys and values are read."""
    each, reached = BF16 if way.low else F32, REACHED[machine.device]
    replies = math.ceil(drawing.replies / way.ranks)
    context = drawing.prompt + drawing.reply / 2
    slots = min(replies, max(1.0, CACHED / (drawing.prompt + drawing.reply)))
    waves = replies / slots
    read = each * shape.numbers + slots * context * shape.cache_bytes(each)
    computed = 2 * slots * shape.numbers / (reached["forward"] * machine.rate(way.precision))
    step = max(read / (reached["decode"] * machine.bandwidth), computed) + machine.step
    prompts = math.ceil(drawing.prompts / way.ranks) * drawing.prompt
    first = 2 * shape.numbers * prompts / (reached["prefill"] * machine.rate(way.precision))
    gathered = F32 * shape.numbers * (way.ranks - 1) / way.ranks / machine.link if way.sharded else 0.0
    return first + waves * drawing.reply * step + gathered


def slowest_of(ranks: int) -> float:
    """Deviations by which the slowest of so many ranks is behind, on average (Blom 1958)."""
    return NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))


def failure_factor(machine: Machine, ranks: int, checkpoint: float) -> float:
    """Time with failures over time without: each costs half an interval between checkpoints, and a restart."""
    hours = machine.hours / ranks
    lost = (checkpoint / 2 + machine.restart) / 60
    return 1 + lost / hours
