"""Ranks: one small object that loops receive. One process is a world of size 1.

Every rank walks the same batches in the same order and takes every size-th micro-batch; gradients and counts are
summed, so the result is the one-process result. Started by `torchrun` or `accelerate launch` unchanged.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Item = TypeVar("Item")


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

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Add the tensors up over the ranks, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

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


def start(threads: int = 0) -> World:
    """The world of this process; sets the CPU threads (0: every core it may use, shared between local ranks)."""
    import os

    from accelerate import PartialState

    # without an accelerator PartialState has to be told, or every rank would take itself for the only one
    spread = int(os.environ.get("WORLD_SIZE", "1")) > 1
    state = PartialState(cpu=True) if spread and not torch.cuda.is_available() else PartialState()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    torch.set_num_threads(threads or max(1, cores // state.num_processes))
    return World(state.process_index, state.num_processes, state.device)
