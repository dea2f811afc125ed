"""Win rates as they would be if both replies were equally long (AlpacaEval 2: Dubois et al. 2024, 2404.04475).

Of one snapshot against a baseline: P(win on prompt x) = σ(θ + φ · tanh(Δ / s) + ψ · γ_x), where Δ is how much longer
the snapshot's reply is, s the deviation of Δ, and γ_x how well other snapshots do on prompt x. The controlled win rate
is the mean of that probability over the prompts with Δ = 0. Outcomes are the judge's probabilities where it gives them.

Where theirs and ours part: γ_x is fitted to the votes at hand, less the snapshot's own, and not to those of a board;
the penalty is a fixed ridge (C = 100, their value where they do not search for one), not a lasso by cross-validation;
and there are no votes on a baseline that was asked to be verbose or concise, which they add with a weight of 0.2.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accord.evaluation.ratings import Vote
from accord.evaluation.statistics import Interval, finite, influence_interval, share_interval

Array = NDArray[np.float64]

LEAST_RIVALS = 5  # other snapshots that must have met the baseline before they say how hard a prompt is
_C = 100.0


class Controlled(NamedTuple):
    """Win rates against the baseline, raw and controlled; `effect`: φ, in logits for a reply that is much longer."""

    raw: Interval
    controlled: Interval
    effect: float

    def json(self) -> dict[str, Any]:
        return {"raw": self.raw.json(), "controlled": self.controlled.json(), "effect": finite(self.effect)}


def length_controlled(votes: Sequence[Vote], baseline: str) -> dict[str, Controlled]:
    """Win rates against `baseline` of everybody who met it, raw and under length control, with intervals over clusters.

    Replies that are all equally much longer leave nothing to control by: the controlled rate is NaN.
    """
    met: dict[str, list[Vote]] = {}
    for vote in votes:
        if baseline in vote[:2]:
            turned = vote if vote.second == baseline else vote.turned()
            met.setdefault(turned.first, []).append(turned)
    found = {}
    for name, said in sorted(met.items()):
        rivals = {rival: votes for rival, votes in met.items() if rival != name}
        found[name] = _controlled(said, _hardness(rivals) if len(rivals) >= LEAST_RIVALS else {})
    return found


def _controlled(votes: Sequence[Vote], hardness: dict[Hashable, float]) -> Controlled:
    outcomes, clusters = np.array([v.outcome for v in votes]), [v.cluster for v in votes]
    raw, longer = share_interval(outcomes, clusters), _longer(votes)
    if not np.ptp(longer):
        return Controlled(raw, Interval(math.nan, math.nan, math.nan, len(votes)), math.nan)
    columns = [np.ones(len(votes)), longer]
    if hardness:
        columns.append(np.array([hardness.get(v.cluster, 0.0) for v in votes]))
    design = np.stack(columns, axis=1)
    weights = _fit(design, outcomes, _C)
    level = design.copy()
    level[:, 1] = 0.0
    return Controlled(raw, _mean_probability(design, level, outcomes, weights, clusters), float(weights[1]))


def _mean_probability(
    design: Array, level: Array, outcomes: Array, weights: Array, clusters: list[Hashable]
) -> Interval:
    """Mean of σ(level · w), with what every vote adds to it itself and through the fit."""
    from scipy import special

    fitted, at = special.expit(design @ weights), special.expit(level @ weights)
    mean, n = float(at.mean()), len(outcomes)
    hessian = (design * (fitted * (1 - fitted))[:, None]).T @ design / n + np.eye(design.shape[1]) / (_C * n)
    slope = (level * (at * (1 - at))[:, None]).mean(axis=0)
    through = (design * (outcomes - fitted)[:, None]) @ np.linalg.solve(hessian, slope)
    return influence_interval(mean, at - mean + through, clusters)


def _hardness(met: dict[str, list[Vote]]) -> dict[Hashable, float]:
    """γ of every cluster: its intercept in one ridge regression of all votes, beside one of every snapshot and its φ.

    Higher where snapshots do better against the baseline.
    """
    from scipy import sparse

    names, votes = list(met), [vote for said in met.values() for vote in said]
    clusters = {cluster: i for i, cluster in enumerate(sorted({v.cluster for v in votes}, key=repr))}
    longer = np.concatenate([_longer(said) for said in met.values()])
    row = np.arange(len(votes))
    whose = np.array([names.index(v.first) for v in votes])
    where = 2 * len(names) + np.array([clusters[v.cluster] for v in votes])
    entries = np.concatenate([np.ones(len(votes)), longer, np.ones(len(votes))])
    places = np.concatenate([row, row, row]), np.concatenate([whose, len(names) + whose, where])
    design = sparse.csr_matrix((entries, places), shape=(len(votes), 2 * len(names) + len(clusters)))
    weights = _fit(design, np.array([v.outcome for v in votes]), 1.0)[2 * len(names) :]
    return {cluster: float(weights[i]) for cluster, i in clusters.items()}


def _fit(design: Any, outcomes: Array, ridge: float) -> Array:
    """Logistic regression on outcomes in [0, 1]: a vote is a win of that weight, and a loss of the rest."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    stack = sparse.vstack if sparse.issparse(design) else np.concatenate
    n = len(outcomes)
    model = LogisticRegression(C=ridge, fit_intercept=False, tol=1e-8, max_iter=5000)
    model.fit(stack([design, design]), np.repeat([1, 0], n), sample_weight=np.concatenate([outcomes, 1 - outcomes]))
    weights: Array = model.coef_[0]
    return weights


def _longer(votes: Sequence[Vote]) -> Array:
    """tanh of how much longer the first reply is, in deviations."""
    more = np.array([v.lengths[0] - v.lengths[1] for v in votes], dtype=float)
    spread = float(more.std())
    return np.tanh(more / spread) if spread else np.zeros(len(votes))
