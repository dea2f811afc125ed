"""Ranks: one small object that loops receive. One process is a world of size 1.

Every rank walks the same batches in the same order and takes every size-th micro-batch; gradients and counts are
summed, so the result is the one-process result. Started by `torchrun` or `accelerate launch` unchanged.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from accord.engine.packing import cut_by_tokens
from accord.run import available_cores

Item = TypeVar("Item")
BUCKET = 8_000_000  # numbers that are added up over the ranks in one message


@dataclass(frozen=True, slots=True)
class World:
    """Who this process is among how many, and on which device it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This rank's part of a list that is the same on every rank."""
        return list(items[self.rank :: self.size])

    def micro_batches(self, items: Sequence[Item], size: Callable[[Item], int], budget: int) -> list[list[Item]]:
        """This rank's part of a batch, cut into micro-batches of at most `budget` tokens; every rank has work."""
        if self.size > 1 and items:
            sizes = [size(item) for item in items]
            # a cut may fall short of its bound by an item, so one is added: no rank gets a crumb on top
            budget = min(budget, -(-sum(sizes) // self.size) + max(sizes))
        return self.share(cut_by_tokens(items, size, budget))

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add the tensors up over the ranks, in place; many small ones travel as one."""
        if self.size == 1:
            return
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
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def interleave(self, parts: Sequence[Item]) -> list[Item]:
        """Undo `share`: every rank's parts in their first order, on every rank."""
        gathered = self.gather(list(parts))
        longest = max(len(part) for part in gathered)
        return [part[i] for i in range(longest) for part in gathered if i < len(part)]


def _sum_together(bucket: Sequence[Tensor]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
    dist.all_reduce(flat)
    for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
        tensor.copy_(summed.view_as(tensor))


def start(threads: int = 0) -> World:
    """The world of this process; sets the CPU threads (0: every core it may use, shared between local ranks)."""
    import os

    from accelerate import PartialState

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available():
        # without an accelerator PartialState would take every rank for the only one
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        world = World(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    else:
        state = PartialState()
        world = World(state.process_index, state.num_processes, state.device)
    torch.set_num_threads(threads or max(1, available_cores() // world.size))
    return world


def stop() -> None:
    """Leave the world, so that this process may be part of another."""
    if dist.is_initialized():
        dist.destroy_process_group()
