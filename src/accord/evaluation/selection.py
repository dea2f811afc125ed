"""What to ask next: the question whose answer an ensemble of preference models disagrees about most."""

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike


def disagreement(scores: ArrayLike) -> float:
    """How far an ensemble disagrees about the order of replies, from 0 to ½; `scores` are logits `[models, replies]`.

    The deviation over the models of σ(s_i − s_j), their chance that reply i is preferred to j, averaged over the pairs.
    Chances and not scores: models that are all sure of the same order agree, however far apart their margins are.
    Raises ValueError for fewer than two models or replies, and for a score that is not finite.
    """
    table = np.asarray(scores, dtype=float)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"a disagreement needs finite scores [models, replies], two of each, not {table.shape}")
    pairs = list(combinations(range(table.shape[1]), 2))
    margins = np.stack([table[:, i] - table[:, j] for i, j in pairs])
    chances = 0.5 * (1 + np.tanh(margins / 2))
    return float(chances.std(axis=1).mean())
