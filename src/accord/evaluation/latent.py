"""What answers say of people where a model only approximates what they compare.

A model's margin m of a pair is not the log-odds θ that people compare by. Taken for it, what the model misses counts as
noise of people: they look less reliable, seem to call fewer ties, and to follow other values. Where several people
answer the same pair the two can be told apart: θ = s·m + τ·z with z ~ N(0, 1) for every pair (a logistic regression
with a random effect), and z is integrated out by Gauss–Hermite quadrature.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from torch import Tensor

Array = NDArray[np.float64]
Bounds = Sequence[tuple[float | None, float | None]]
NODES = 15  # of the quadrature over one deviation
NODES_EACH = 9  # over each of several
DEVIATION = (1e-3, 10.0)  # bounds of τ
SCALE = (0.0, 20.0)  # bounds of s
RARE = 1e-9


def reliabilities(margins: ArrayLike, firsts: ArrayLike, *, votes: int) -> Array:
    """How often each of K kinds of people says what they find: P(first) = r σ(θ) + (1 − r) σ(−θ) (Crowd-BT).

    `margins` (n,) of the first reply over the second, `firsts` (n, K) how many of `votes` people of a kind chose it.
    """
    m, chosen = _tensors(margins, firsts)
    z, log_weights = _nodes(1)

    def likelihood(p: Tensor) -> Tensor:
        agree = torch.sigmoid(p[0] * m[:, None] + p[1] * z[:, 0])
        first = (p[2:] * agree[..., None] + (1 - p[2:]) * (1 - agree[..., None])).clamp(RARE, 1 - RARE)
        each = chosen[:, None] * first.log() + (votes - chosen[:, None]) * (1 - first).log()
        return (each.sum(-1) + log_weights).logsumexp(1).sum()

    kinds = chosen.shape[1]
    return _likeliest(likelihood, [1.0, 0.5, *[0.8] * kinds], [SCALE, DEVIATION, *[(0.0, 1.0)] * kinds])[2:]


def tie_rate(margins: ArrayLike, answers: ArrayLike) -> float:
    """ν of Davidson's model, P(tie) = ν / (e^{θ/2} + e^{−θ/2} + ν).

    `margins` (n,) of the first reply over the second, `answers` (n, 3) how many chose it, the second, neither.
    """
    m, said = _tensors(margins, answers)
    z, log_weights = _nodes(1)

    def likelihood(p: Tensor) -> Tensor:
        half = (p[0] * m[:, None] + p[1] * z[:, 0]) / 2
        logits = torch.stack([half, -half, p[2].log().expand_as(half)], -1)
        each = (said[:, None] * logits.log_softmax(-1)).sum(-1)
        return (each + log_weights).logsumexp(1).sum()

    return float(_likeliest(likelihood, [1.0, 0.5, 0.5], [SCALE, DEVIATION, (1e-3, 1e3)])[2])


def shares(margins: ArrayLike, firsts: ArrayLike, mixed: ArrayLike, *, votes: int) -> Array:
    """Weights w (K,) by which mixed people share the values of K groups: P(first) = σ(Σ w_k θ_k).

    `margins` (n, K) of the first reply by each group's head; `firsts` (n, K) and `mixed` (n,) say how many of `votes`
    people of each group, and of the mixed, chose it. θ = A m + L z: a head may know something of the other group, and
    what heads miss is correlated. Answers that all agree say little: of θ beyond 4 only the prior tells the size.
    """
    m, chosen, by_mixed = _tensors(margins, firsts, mixed)
    heads = m.shape[1]
    z, log_weights = _nodes(heads)
    lower = torch.tril_indices(heads, heads)
    ends = np.cumsum([heads * heads, lower.shape[1]])

    def likelihood(p: Tensor) -> Tensor:
        known, spread, weights = p[: ends[0]].view(heads, heads), p[ends[0] : ends[1]], p[ends[1] :]
        factor = torch.zeros(heads, heads, dtype=p.dtype).index_put((lower[0], lower[1]), spread)
        theta = (m @ known.T)[:, None] + z @ factor.T
        each = _binomial(chosen[:, None], votes, theta).sum(-1)
        each = each + _binomial(by_mixed[:, None], votes, theta @ weights)
        return (each + log_weights).logsumexp(1).sum()

    start = [*np.eye(heads).ravel(), *(0.5 * (lower[0] == lower[1]).double()).tolist(), *[1 / heads] * heads]
    return _likeliest(likelihood, start, [(None, None)] * len(start))[ends[1] :]


def _binomial(chosen: Tensor, votes: int, log_odds: Tensor) -> Tensor:
    return chosen * F.logsigmoid(log_odds) + (votes - chosen) * F.logsigmoid(-log_odds)


def _tensors(*arrays: ArrayLike) -> list[Tensor]:
    return [torch.as_tensor(np.asarray(array, dtype=float)) for array in arrays]


def _nodes(dimensions: int) -> tuple[Tensor, Tensor]:
    """Standard normal nodes (Q, dimensions) and the logs of their weights (Q,)."""
    places, weights = np.polynomial.hermite_e.hermegauss(NODES if dimensions == 1 else NODES_EACH)
    grid = np.stack(np.meshgrid(*[places] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)
    logs = np.stack(np.meshgrid(*[np.log(weights / weights.sum())] * dimensions, indexing="ij"), -1)
    nodes, log_weights = _tensors(grid, logs.reshape(-1, dimensions).sum(1))
    return nodes, log_weights


def _likeliest(likelihood: Callable[[Tensor], Tensor], start: Sequence[float], bounds: Bounds) -> Array:
    def surprise(x: Array) -> tuple[float, Array]:
        p = torch.tensor(x, requires_grad=True)
        value = -likelihood(p)
        (slope,) = torch.autograd.grad(value, p)
        return float(value.detach()), slope.numpy()

    found: Array = optimize.minimize(surprise, np.array(start), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found
