"""A decoder's steps as CUDA graphs: launched as one, where a step of small kernels spends its time on launching them.

A graph computes fixed shapes at fixed addresses. Rows and the tokens that they read are therefore rounded up to a few
sizes, and ids are copied to one place. A shape is captured when it comes for the second time: the first time runs
plainly, which also readies the libraries that may not be readied during a capture.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from accord.engine.decode.decoder import Decoder, Reach, tried
from accord.engine.forward.adapters import bare

Work = Callable[[], Tensor]
SHORTEST = 64  # tokens; fewer are read as if they were so many


class CudaGraphs:
    """A decoder's step by replay: token ids (rows,) of the live rows, pool by pool, to logits (rows, V) of the next.

    The logits stand where the next step will write. `record` makes of work on fixed tensors something that repeats it
    and gives the same tensor anew.
    """

    def __init__(self, decoder: Decoder, record: Callable[[Work], Work] | None = None) -> None:
        self.decoder = decoder
        self.record = record or _Graphs().record
        self.ids = torch.zeros(
            sum(pool.slots for pool in decoder.pools), dtype=torch.long, device=decoder.embedding.device
        )
        self.known: dict[tuple[Reach, ...], Work | None] = {}

    def __call__(self, ids: Tensor) -> Tensor:
        reaches = tuple(rounded(pool.reach, pool.slots, pool.capacity) for pool in self.decoder.pools)
        where = torch.from_numpy(places([pool.live for pool in self.decoder.pools], reaches)).to(ids.device)
        self.ids[where] = ids
        again = self.known.get(reaches)
        if again is None:
            again = self._work(reaches)
            if reaches in self.known:
                again = self.known[reaches] = self.record(again)
            else:
                self.known[reaches] = None
        return again()[where]

    def _work(self, reaches: Sequence[Reach]) -> Work:
        ids = self.ids[: sum(rows for rows, _ in reaches)]
        return lambda: self.decoder.forward(ids, reaches)


def rounded(reach: Reach, slots: int, capacity: int) -> Reach:
    """Rows and tokens up to the next power of two, at most the pool's."""
    rows, read = reach
    if not rows:
        return reach
    return min(slots, _power(rows)), min(capacity, max(SHORTEST, _power(read)))


def places(live: Sequence[int], reaches: Sequence[Reach]) -> np.ndarray:
    """Where the live rows of every pool stand among all rows that are computed."""
    starts = np.cumsum([0, *(rows for rows, _ in reaches)])
    return np.concatenate([start + np.arange(count) for start, count in zip(starts, live, strict=False)])


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


class _Graphs:
    """CUDA graphs that share their memory: only one of them is replayed at a time."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            out = work()

        def again() -> Tensor:
            graph.replay()
            return out

        return again


def captures(model: nn.Module) -> bool:
    """Whether replayed steps of this model give the logits of plain ones: on a GPU, tried once."""
    inner = bare(model)
    device = next(inner.parameters()).device
    if device.type != "cuda":
        return False
    name = type(inner).__name__
    return tried(model, CudaGraphs, f"decoding steps of {name} are not captured; they run one kernel after another")
