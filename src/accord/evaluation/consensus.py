"""Statements that every group agrees with: group-aware consensus, as Polis has it, and what each goes without.

Small et al. 2021, "Polis: Scaling deliberation by mapping high dimensional opinion spaces" (Recerca 26): the chance
that a random member of each group agrees, multiplied over the groups. Used for a constitution by the Collective
Intelligence Project and Anthropic in 2023 ("Collective Constitutional AI", arXiv:2406.07814).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def agreement(agreed: ArrayLike, cast: ArrayLike) -> Array:
    """(S, G) chance that a member of a group agrees, of votes agreed and cast: (agreed + 1) / (cast + 2), Laplace's.

    A pass counts as cast. Of a group that has not voted it is ½.
    """
    return (np.asarray(agreed, dtype=float) + 1) / (np.asarray(cast, dtype=float) + 2)


def group_aware_consensus(chances: Array) -> Array:
    """(S,) product over the groups: one group that disagrees is enough to keep a statement low."""
    return np.asarray(chances.prod(axis=1), dtype=float)


@dataclass(frozen=True, slots=True)
class GroupLoss:
    """What a group gives up: its mean chance of agreement with what was `chosen`, that with as many statements of its
    `own` choice, and the statements that it would have chosen and does not get, dearest first."""

    chosen: float
    own: float
    lost: tuple[int, ...]


def losses(chances: Array, chosen: Sequence[int]) -> list[GroupLoss]:
    """For every group."""
    found = []
    for column in chances.T:
        own = [int(i) for i in np.argsort(-column, kind="stable")[: len(chosen)]]
        lost = tuple(i for i in own if i not in set(chosen))
        found.append(GroupLoss(float(column[list(chosen)].mean()), float(column[own].mean()), lost))
    return found
