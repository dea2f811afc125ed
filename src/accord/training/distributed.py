"""Ranks: one small object that loops receive. One process is a world of size 1.

Every rank walks the same batches in the same order and takes its share of the items, balanced by tokens; gradients and
counts are summed, so the result is the one-process result. Started by `torchrun` or `accelerate launch` unchanged.
"""

import datetime
import heapq
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Timer
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from accord.engine.packing import cut_by_tokens
from accord.lineage import available_cores
from accord.training import heap

Item = TypeVar("Item")
Out = TypeVar("Out")
BUCKET = 8_000_000  # numbers that are added up over the ranks in one message
PATIENCE = 60.0  # seconds after which a rank that waits says for whom
TIMEOUT = 1800.0  # seconds after which it gives up


class RanksApart(RuntimeError):
    """A rank waited for another that did not come."""


@dataclass(frozen=True, slots=True)
class World:
    """Who this process is among how many, on which device it computes, and whether weights are divided (`--shard`)."""

    rank: int
    size: int
    device: torch.device
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def at(self, place: str) -> None:
        """Tell the other ranks where this one is, for the message of one that waits."""
        if _watch is not None:
            _watch.at(place)

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This rank's part of a list that is the same on every rank."""
        return list(items[self.rank :: self.size])

    def deal(self, items: Sequence[Item], size: Callable[[Item], int]) -> list[list[Item]]:
        """Every rank's part of a batch that is the same on every rank: about as many tokens each, in their order.

        The longest goes first, and each to the rank that has the fewest tokens.
        """
        loads = [(0, rank) for rank in range(self.size)]
        taken: list[list[int]] = [[] for _ in loads]
        for place in sorted(range(len(items)), key=lambda i: -size(items[i])):
            load, rank = heapq.heappop(loads)
            taken[rank].append(place)
            heapq.heappush(loads, (load + size(items[place]), rank))
        return [[items[place] for place in sorted(places)] for places in taken]

    def micro_batches(self, items: Sequence[Item], size: Callable[[Item], int], budget: int) -> list[list[Item]]:
        """This rank's part of a batch, cut into micro-batches of at most `budget` tokens; as many on every rank.

        A rank that has fewer is given empty ones.
        """
        cuts = [cut_by_tokens(part, size, budget) for part in self.deal(items, size)]
        own = cuts[self.rank]
        return own + [[] for _ in range(max(map(len, cuts)) - len(own))]

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add the tensors up over the ranks, in place; many small ones travel as one."""
        if self.size == 1:
            return
        with _waiting("a sum"):
            bucket: list[Tensor] = []
            held = 0
            for tensor in tensors:
                alike = bucket and (tensor.dtype, tensor.device) == (bucket[0].dtype, bucket[0].device)
                if bucket and not (alike and held + tensor.numel() <= BUCKET):
                    _sum_together(bucket)
                    bucket, held = [], 0
                bucket.append(tensor)
                held += tensor.numel()
            if bucket:
                _sum_together(bucket)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, in the order of ranks, on every rank."""
        return [value] if self.size == 1 else _gather(value)

    def on_main(self, value: Item, do: Callable[[list[Item]], list[Out]]) -> Out:
        """This rank's part of what the first rank makes of every rank's values; what it raises there, all raise.

        Every rank calls it.
        """
        values = self.gather(value)
        made: list[Out] | Exception = []
        if self.is_main:
            try:
                made = do(values)
            except Exception as error:  # the others would wait for a rank that has gone
                made = error
        told = self.gather(made)[0]
        if isinstance(told, Exception):
            raise told
        out: Out = told[self.rank]
        return out

    def interleave(self, parts: Sequence[Item]) -> list[Item]:
        """Undo `share`: every rank's parts in their first order, on every rank."""
        gathered = self.gather(list(parts))
        longest = max(len(part) for part in gathered)
        return [part[i] for i in range(longest) for part in gathered if i < len(part)]


def most(count: int) -> int:
    """The largest of every rank's numbers."""
    return max(_gather(count)) if dist.is_initialized() else count


def _gather(value: Any) -> list[Any]:
    values: list[Any] = [None] * dist.get_world_size()
    with _waiting("what every rank has"):
        dist.all_gather_object(values, value)
    return values


def _sum_together(bucket: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
    dist.all_reduce(flat)
    for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
        tensor.copy_(summed.view_as(tensor))


class Watch:
    """Where every rank is, kept in the store that the ranks met at; a rank that waits long says who is behind."""

    def __init__(self, store: Any, rank: int, size: int) -> None:
        self._store, self._rank, self._size = store.clone(), rank, size  # a store of its own for the timer's thread
        self.at("the start")

    def at(self, place: str) -> None:
        self._place = place
        self._store.set(f"accord/at/{self._rank}", place)

    def behind(self, what: str) -> str:
        """A sentence: where this rank waits, and where each of the others was last."""
        keys = [(rank, f"accord/at/{rank}") for rank in range(self._size) if rank != self._rank]
        others = [
            f"rank {rank} was last at {self._store.get(key).decode() if self._store.check([key]) else 'no place'}"
            for rank, key in keys
        ]
        return f"rank {self._rank} waits at {self._place} for {what}; {', '.join(others)}"

    def say(self, what: str) -> None:
        print(f"note: {self.behind(what)}", flush=True)


_watch: Watch | None = None


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Around a collective: a note after `PATIENCE` seconds, and an error that names the ranks where one has left."""
    if _watch is None:
        yield
        return
    timer = Timer(PATIENCE, _watch.say, (what,))
    timer.daemon = True
    timer.start()
    try:
        yield
    except RuntimeError as error:
        try:
            said = _watch.behind(what)
        except RuntimeError:  # the rank that keeps the store has gone
            raise error from None
        raise RanksApart(f"{said} ({str(error).splitlines()[0]})") from error
    finally:
        timer.cancel()


def start(threads: int = 0, *, shard: bool = False) -> World:
    """The world of this process; sets the CPU threads (0: every core it may use, shared between local ranks)."""
    heap.give_back()
    from accelerate import PartialState

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available():
        # without an accelerator PartialState would take every rank for the only one
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=TIMEOUT))
        world = World(dist.get_rank(), dist.get_world_size(), torch.device("cpu"), shard)
    else:
        state = PartialState()
        world = World(state.process_index, state.num_processes, state.device, shard and state.num_processes > 1)
    if shard and world.size == 1:
        print("note: --shard divides weights over several processes, and this is one: nothing is divided", flush=True)
    _start_watch(world)
    torch.set_num_threads(threads or max(1, available_cores() // world.size))
    return world


def _start_watch(world: World) -> None:
    global _watch
    if world.size > 1 and _watch is None:
        _watch = Watch(dist.distributed_c10d._get_default_store(), world.rank, world.size)


def stop() -> None:
    """Leave the world, so that this process may be part of another."""
    global _watch
    _watch = None
    if dist.is_initialized():
        dist.destroy_process_group()
