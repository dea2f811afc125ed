"""Which items a step takes: pure functions of seed and step, so that nothing of the order needs saving."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from accord.engine.packing import cut_by_tokens


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches that cover every item once; the last may be smaller."""
    return -(-count // batch_size)


def batch_indices(step: int, count: int, batch_size: int, seed: int) -> list[int]:
    """The items of a step: a fresh order each epoch, a pure function of (seed, step).

    Nothing of the order needs saving, and a resume at any step, an epoch's first and last too, sees exactly the
    items that an uninterrupted run would.
    """
    epoch, within = divmod(step, steps_per_epoch(count, batch_size))
    order = epoch_order(count, seed, epoch)
    return order[within * batch_size : (within + 1) * batch_size].tolist()


@functools.lru_cache(maxsize=8)
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of range(count) that depends on (seed, epoch) alone."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def token_batches(lengths: Sequence[int], tokens: int, seed: int) -> Callable[[int], list[int]]:
    """`step → indices` whose lengths add up to about `tokens` per step (at least one), in epoch order.

    Used where a batch is counted in tokens. The first epochs' boundaries are computed as needed and kept.
    """
    boundaries: list[list[list[int]]] = []

    def at(step: int) -> list[int]:
        while step >= sum(len(epoch) for epoch in boundaries):
            order = epoch_order(len(lengths), seed, len(boundaries)).tolist()
            boundaries.append(cut_by_tokens(order, lambda i: lengths[i], tokens))
        for epoch in boundaries:
            if step < len(epoch):
                return epoch[step]
            step -= len(epoch)
        raise AssertionError("unreachable: the loop above made enough epochs")

    return at
