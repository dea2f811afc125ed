"""Why the Elo that a preference model promises is not the Elo that a judge gives (HH, section 4.5.3).

Four numbers for every snapshot, in Elo from the anchor: what the model's mean score promises on other prompts; what
its mean score is on the conversations that were judged; what its own choices between the judged replies come to; and
what the judge chose. From the first to the second the prompts change, from the second to the third mean scores become
choices, and what is left to the fourth is error of the model.
"""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accord.evaluation.ratings import ELO, Vote, elo_draws, players
from accord.evaluation.statistics import Interval, percentile_tail, resample_weights

Array = NDArray[np.float64]

STEPS = {"prompts": ("promised", "scored"), "choices": ("scored", "chosen"), "error": ("chosen", "judged")}


class ScoredReply(NamedTuple):
    """A preference model's score of one snapshot's reply, in logits, and the prompt that it answers."""

    snapshot: str
    score: float
    cluster: Hashable


def decompose(
    judged: Sequence[Vote],
    chosen: Sequence[Vote],
    scored: Sequence[ScoredReply],
    promised: Sequence[ScoredReply],
    anchor: str,
    *,
    ridge: float = 0.0,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Snapshot → its four numbers and the three steps between them (`STEPS`), each with its interval over prompts.

    `judged` and `chosen` are votes on the same questions, by the judge and by the model; `scored` are the replies to
    them, `promised` replies to other prompts. A snapshot without replies to other prompts has NaN there. ValueError
    where the votes are not on the same clusters, or do not connect all snapshots.
    """
    names = players(judged)
    clusters = sorted({vote.cluster for vote in judged}, key=repr)
    if {vote.cluster for vote in chosen} != set(clusters) or players(chosen) != names:
        raise ValueError("the judge and the model must have been asked the same questions")
    # under one seed prompts that are the same are drawn alike, and others have nothing in common
    elsewhere = sorted({one.cluster for one in promised}, key=repr)
    found = {
        "promised": _mean_scores(promised, names, elsewhere, anchor, resamples, seed),
        "scored": _mean_scores(scored, names, clusters, anchor, resamples, seed),
        "chosen": elo_draws(chosen, anchor, ridge=ridge, resamples=resamples, seed=seed),
        "judged": elo_draws(judged, anchor, ridge=ridge, resamples=resamples, seed=seed),
    }
    found |= {f"step/{step}": (found[b][0] - found[a][0], found[b][1] - found[a][1]) for step, (a, b) in STEPS.items()}
    few = min(len(clusters), len(elsewhere) or len(clusters))
    out: dict[str, dict[str, Any]] = {name: {} for name in names if name != anchor}
    for what, (values, draws) in found.items():
        for place, name in enumerate(names):
            if name != anchor:
                out[name][what] = _interval(float(values[place]), draws[:, place], few).json()
    return out


def _mean_scores(
    scored: Sequence[ScoredReply],
    names: Sequence[str],
    clusters: Sequence[Hashable],
    anchor: str,
    resamples: int,
    seed: int,
) -> tuple[Array, Array]:
    """Mean scores less the anchor's as Elo, `[players]`, and of every resample of clusters, `[resamples, players]`."""
    place, where = {name: i for i, name in enumerate(names)}, {cluster: i for i, cluster in enumerate(clusters)}
    sums, counts = np.zeros((len(clusters), len(names))), np.zeros((len(clusters), len(names)))
    for one in scored:
        sums[where[one.cluster], place[one.snapshot]] += one.score
        counts[where[one.cluster], place[one.snapshot]] += 1
    blocks = [np.ones((1, len(clusters)))]
    if len(clusters) > 1:
        blocks += resample_weights(len(clusters), resamples, seed, len(clusters))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.concatenate([(block @ sums) / (block @ counts) for block in blocks]) * ELO
    means = means - means[:, [place[anchor]]]
    draws = means[1:] if len(clusters) > 1 else np.full((resamples, len(names)), np.nan)
    return means[0], draws


def _interval(value: float, draws: Array, units: int) -> Interval:
    known = draws[np.isfinite(draws)]
    if units < 2 or not known.size:
        return Interval(value, np.nan, np.nan, units)
    tail = percentile_tail(units)
    low, high = np.quantile(known, (tail, 1 - tail))
    return Interval(value, float(low), float(high), units)
