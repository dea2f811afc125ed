"""How many tokens a micro-batch may hold, and whether activations are computed again: a model of memory.

    need(T) = fixed + per_token · T,   fixed = gradients and optimizer states, per_token = PEAK · what backward keeps

What backward keeps is counted, not guessed: a text runs forward, and every tensor that autograd saves is added up. So
the count holds for any architecture, head, adapter or precision. It grows with the tokens alone, because segments are
attended one by one. Of layers that run again in the backward pass the graph keeps the inputs, and one layer's
activations are there at a time.

Micro-batches shrink first, down to the longest text, which costs little; then activations are recomputed.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from accord.errors import BadInput
from accord.training.distributed import World
from accord.training.footprint import KEEPING, PEAK, SHARE, state_bytes, useful_tokens

Item = TypeVar("Item")
Loss = Callable[[Sequence[Item]], Tensor]  # of some items, with its graph

CACHE = 0.25  # share of the free memory that the sampler's keys and values may take
MEASURED = 512  # tokens of the text that is counted: attention to fewer keeps more of each token on some machines
# what allocators without an error of their own say: the CPU's, and Apple's GPUs
NO_MEMORY = ("not enough memory", "can't allocate memory", "MPS backend out of memory")
REHEARSED = 0.25  # share of the free memory from which the longest batch is rehearsed


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a step takes beyond the weights: `fixed`, and `per_token` of a micro-batch."""

    fixed: float
    per_token: float

    def of(self, tokens: int) -> float:
        return self.fixed + self.per_token * tokens

    def tokens_in(self, room: float) -> int:
        """Tokens that fit into so many bytes; 0 where not even the fixed part does."""
        return max(0, int((room - self.fixed) / self.per_token))


@dataclass(frozen=True, slots=True)
class Plan:
    """Tokens of a micro-batch, whether activations are computed again, and what a step then needs."""

    micro_tokens: int
    recompute: bool
    need: Need


def measure(
    loss: Loss[Item], item: Item, tokens: int, modules: Iterable[nn.Module], *, ranks: int = 1, bits: int = 32
) -> Need:
    """The need of training on items like this one, which has so many tokens: the longest, to be on the safe side.

    Kept of two less kept of one is what an item costs; the rest (weights cast to bf16) is kept once. What `ranks` will
    divide is still whole: of the weights more room comes free than the layers that are gathered at a time take.
    """
    parameters = [p for module in modules for p in module.parameters()]
    weights = {p.untyped_storage().data_ptr() for p in parameters}
    one, two = (kept_for_backward(loss, [item] * count, weights) for count in (1, 2))
    trained = [p for p in parameters if p.requires_grad]
    states = sum(state_bytes(p.numel(), ranks=ranks, each=p.element_size(), bits=bits) for p in trained)
    return Need(states + max(0, 2 * one - two), PEAK * max(1, two - one) / tokens)


def kept_for_backward(loss: Loss[Item], items: Sequence[Item], weights: set[int]) -> int:
    """Bytes of the storages that the graph of a loss holds, those at the addresses `weights` left out.

    Nothing is kept meanwhile, so counting takes no more memory than a forward pass without gradients.
    """
    seen: dict[int, StorageWeakRef] = {}
    total = 0

    def pack(tensor: Tensor) -> None:
        nonlocal total
        storage = tensor.untyped_storage()
        known = seen.get(storage.data_ptr())
        if storage.data_ptr() not in weights and (known is None or known.expired()):
            total += storage.nbytes()
        seen[storage.data_ptr()] = StorageWeakRef(storage)

    def unpack(nothing: None) -> Tensor:
        raise AssertionError("nothing was kept to go backward with")

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack), torch.enable_grad():
        graph = loss(items)
    del graph
    return total


def recomputed(plain: Need, kept: Need, layers: int) -> Need:
    """The need where `layers` run again: what the graph then keeps, and the activations of one layer."""
    return Need(kept.fixed, kept.per_token + max(0.0, plain.per_token - kept.per_token) / layers)


def plan_memory(
    plain: Callable[[], Need] | None,
    again: Callable[[], Need] | None,
    free: float,
    *,
    longest: int,
    device: str,
    micro_tokens: int = 0,
) -> Plan:
    """What fits into `free` bytes: with activations kept (`plain`), else with activations computed again (`again`).

    Either is None where it is not to be had; the second is found only where the first does not fit. `micro_tokens` is
    what was asked for, 0 if nothing was; tokens are then a multiple of 256 if they can be. BadInput where the longest
    item alone does not fit.
    """
    ways = [way for way in (plain, again) if way is not None]
    for way in ways:
        need, last = way(), way is ways[-1]
        share = SHARE if last or micro_tokens else KEEPING.get(device, KEEPING["cpu"])
        fits = need.tokens_in(share * free)
        if micro_tokens and (last or fits >= max(micro_tokens, longest)):
            return Plan(micro_tokens, way is again, need)
        if not micro_tokens and fits >= longest:
            tokens = useful_tokens(fits, need.per_token, longest=longest, device=device)
            return Plan(tokens, way is again, need)
    raise BadInput(
        f"training on {longest} tokens at once needs {_gib(need.of(longest))} GiB of memory and "
        f"{_gib(free)} are free; give --max_length {max(2, fits)} or less, a smaller model, or --lora_rank 8"
    )


def plan_cache(bytes_each: int, free: float, most: int) -> int:
    """Tokens of a sampler's cache that take no more than a share of `free` bytes; a thousand in any case."""
    return max(1024, min(most, int(CACHE * free / bytes_each)))


def rehearse(
    loss: Loss[Item], parts: Sequence[Item], tokens: int, plan: Plan, modules: Sequence[nn.Module], world: World
) -> None:
    """One forward and backward of the longest micro-batch, `parts` of so many tokens, where memory may run short.

    Gradients are dropped, and no random number is used up. Raises BadInput that names the number to change.
    """
    free = min(world.gather(free_bytes(world.device)))
    if plan.need.of(tokens) < REHEARSED * free:
        return
    if world.device.type == "cpu" and plan.need.of(tokens) > free:
        # more than there is would not raise an error: the system would end the process
        raise too_much(plan.micro_tokens, fits=plan.need.tokens_in(SHARE * free))
    with explained(plan.micro_tokens), undisturbed(modules, world.device):
        loss(parts).backward()


def longest_first(items: Sequence[Item], size: Callable[[Item], int], micro_tokens: int) -> list[Item]:
    """The largest micro-batch of so many tokens: the longest item, whatever its size, and what fits beside it."""
    parts: list[Item] = []
    tokens = 0
    for item in sorted(items, key=size, reverse=True):
        if parts and tokens + size(item) > micro_tokens:
            break
        parts.append(item)
        tokens += size(item)
    return parts


@contextmanager
def undisturbed(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Forward and backward passes inside leave no gradient behind and use up no random number."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            for module in modules:
                module.zero_grad(set_to_none=True)


@contextmanager
def explained(micro_tokens: int) -> Iterator[None]:
    """Out of memory inside becomes BadInput with the knob and the number to change."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise too_much(micro_tokens) from None


def too_much(tokens: int, fits: int = 0, *, knob: str = "micro_tokens") -> BadInput:
    """What to say where so many tokens at once do not fit."""
    number = max(1, fits if 0 < fits < tokens else tokens // 2)
    return BadInput(
        f"out of memory with {tokens} tokens at once; give --{knob} {number}, which changes no result, "
        "or a smaller --max_length, which drops longer texts"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator, of a GPU or of the CPU, found no memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(words in text for words in NO_MEMORY)


def free_bytes(device: torch.device) -> int:
    """Memory that this process may still take on a device; on a CPU, its share among the ranks of the machine."""
    if device.type == "cuda":
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + reserved
    return min(_available(), _left_in_container()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _available() -> int:
    """What the system says programs can take without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def _left_in_container(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What the limit of a container leaves; no limit is a large number. What is only cached is given back on demand."""
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            bound = (root / limit).read_text(encoding="utf-8").strip()
            if bound == "max":
                return 2**62
            cached = [
                line.split()[1]
                for line in (root / stat).read_text(encoding="utf-8").splitlines()
                if "inactive_file" in line
            ]
            return int(bound) - int((root / used).read_text(encoding="utf-8")) + int(cached[0] if cached else 0)
        except (OSError, ValueError):
            continue
    return 2**62


def _gib(count: float) -> str:
    return f"{count / 2**30:.2g}"
