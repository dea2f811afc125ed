"""How a stage is best run on a machine, and what gives way first as devices are added."""

from dataclasses import dataclass, replace

from accord.stages.plan.config import Forecast
from accord.stages.plan.cost import Memory, Time, Way, memory_of, time_of
from accord.stages.plan.machines import GIB, Machine
from accord.stages.plan.work import Lengths, Work, work_of
from accord.training.footprint import DecoderShape

MOST_DEVICES = 1024
LONG_DRAWING = 0.5  # share of an iteration from which another engine is worth its trouble
BEYOND = 64  # devices up to which replicas and shards of one level are a good answer


@dataclass(frozen=True)
class PlanInput:
    """What is planned: knobs, model, data and machine."""

    config: Forecast
    shape: DecoderShape
    lengths: Lengths
    machine: Machine


@dataclass(frozen=True)
class Planned:
    """A way to run a stage, what it needs and takes, and whether it fits."""

    work: Work
    way: Way
    memory: Memory
    time: Time
    fits: bool

    @property
    def drawing(self) -> float:
        """Share of a step in which replies are drawn."""
        return self.time.parts.get("draw replies", 0.0) / sum(self.time.parts.values())


def choose(stage: str, asked: PlanInput, ranks: int) -> Planned:
    """The fastest way that fits; where none does, the one that needs least."""
    found = [consider(stage, asked, way) for way in ways(asked.config, ranks)]
    fitting = [choice for choice in found if choice.fits]
    if fitting:
        return min(fitting, key=lambda choice: choice.time.total)
    return min(found, key=lambda choice: choice.memory.total)


def ways(config: Forecast, ranks: int) -> list[Way]:
    """Whole replicas and shards, activations kept and computed again."""
    bits = config.optimizer_bits
    plain = Way(
        ranks,
        lora_rank=config.lora_rank,
        precision=config.precision,
        optimizer_bits=bits,
        base_bits=config.base_bits,
    )
    divides = ranks > 1 and bits == 32 and not config.base_bits
    return [
        replace(plain, sharded=sharded, recompute=again)
        for sharded in ((False, True) if divides else (False,))
        for again in (False, True)
    ]


def consider(stage: str, asked: PlanInput, way: Way) -> Planned:
    work = work_of(stage, asked.config, asked.shape, asked.lengths)
    memory = memory_of(work, asked.shape, way, asked.machine, asked.lengths.longest)
    time = time_of(work, asked.shape, way, asked.machine, memory, checkpoint=asked.config.checkpoint_minutes)
    return Planned(work, way, memory, time, memory.fits)


def fewest_devices(stage: str, asked: PlanInput) -> int:
    """From how many devices on the stage fits, doubling; 0 where it does not on 1,024."""
    ranks = 1
    while ranks <= MOST_DEVICES:
        if choose(stage, asked, ranks).fits:
            return ranks
        ranks *= 2
    return 0


def breaks_first(stage: str, asked: PlanInput) -> tuple[int, str]:
    """The first trouble as devices are doubled from those that are used, and at how many it comes; 0 for none."""
    ranks = max(1, asked.machine.devices)
    while ranks <= MOST_DEVICES:
        at = replace(asked, machine=replace(asked.machine, devices=ranks))
        if said := trouble(choose(stage, at, ranks), at):
            return ranks, said
        ranks *= 2
    return 0, "nothing up to 1,024 devices"


def trouble(choice: Planned, asked: PlanInput) -> str:
    """What is wrong with this many devices; empty where nothing is."""
    ranks, parts = choice.way.ranks, choice.time.parts
    if not choice.fits:
        largest = max(choice.memory.parts, key=lambda name: choice.memory.parts[name])
        return f"memory: {largest} take {choice.memory.parts[largest] / GIB:.1f} GiB of a device"
    if ranks > choice.work.items:
        return f"the batch: {ranks} ranks share {choice.work.items}, and the rest idles (raise --batch_size)"
    if parts["messages"] > 0.5 * sum(parts.values()):
        return "messages: they take more than half of a step (larger batches, faster links, or adapters)"
    if choice.time.failures > 1.1:
        return "failures: they cost more than a tenth of the time (lower --checkpoint_minutes)"
    if choice.drawing > 0.8:
        return "drawing replies: more than four fifths of an iteration (a server of its own, --engine URL)"
    return ""


def remedy(stage: str, asked: PlanInput) -> str:
    """What to do where a stage does not fit."""
    adapted = replace(asked, config=asked.config.model_copy(update={"lora_rank": 8}))
    said = []
    if not asked.config.lora_rank and choose(stage, adapted, asked.machine.devices).fits:
        said.append("it fits with --lora_rank 8")
    if (fewest := fewest_devices(stage, asked)) > asked.machine.devices:
        said.append(f"{'or' if said else 'it fits'} with --shard on {fewest} such devices")
    return " ".join(said) or "take a smaller model or a larger device"


def engine_of(choice: Planned) -> str:
    """What draws replies, and what else runs a model of this size."""
    if choice.work.drawing is None:
        return ""
    if choice.way.ranks > BEYOND:
        return "beyond one level of shards: an engine of its own and a trainer with tensor parallelism (verl, NeMo-RL)"
    if choice.drawing > LONG_DRAWING:
        return "a vLLM server (--engine URL): drawing is most of an iteration"
    return "this process, on its own weights"
