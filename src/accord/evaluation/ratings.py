"""Ratings from votes: Bradley-Terry by maximum likelihood, on the Elo scale, with bootstrap intervals.

P(a beats b) = σ(r_a - r_b); Elo = r · 400 / ln 10, so that 400 points are odds of ten to one. The fit sees
counts, never the order of the votes (sequential Elo depends on it). A tie counts as half a win for each, or
is a third outcome of its own (Davidson 1970): P(tie) ∝ ν · exp((r_a + r_b) / 2).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accord.evaluation.statistics import Interval, percentile_tail, resample_weights

Array = NDArray[np.float64]
Ties = Literal["half", "davidson"]

ELO = 400 / math.log(10)
_LARGEST_NU = 1e6
UNCONNECTED = (
    "some players never lost, never won or never met the others, so their ratings are infinite; "
    "collect more votes, or give a ridge such as 0.1"
)


class Vote(NamedTuple):
    """What one judge said of the replies of two players: `outcome` is 1 if `first` won, 0 if `second` won, ½ for a tie.

    A judge that gives a probability has it as the outcome. `cluster`: what is drawn together (a prompt); `question`:
    what others answered too, in whichever order; `lengths` of both replies, in characters; `ordered`: it is known that
    `first` was shown first.
    """

    first: str
    second: str
    outcome: float
    cluster: Hashable = None
    judge: str = ""
    question: Hashable = None
    lengths: tuple[float, float] = (0, 0)
    ordered: bool = False

    def turned(self) -> "Vote":
        """The same vote with the players changed over; nothing says that the other was shown first."""
        first, second = self.lengths
        return Vote(self.second, self.first, 1 - self.outcome, self.cluster, self.judge, self.question, (second, first))


@dataclass(frozen=True, slots=True)
class Ratings:
    """Elo of every player, best first; `anchor` stands at `base`, or the mean of all does if it is empty.

    `n` counts votes (of a player: those it took part in). `nu` is Davidson's tie parameter, 0 with ties as
    halves.
    """

    elo: dict[str, Interval]
    tie_rate: float
    nu: float
    n: int
    anchor: str

    def win_probability(self, a: str, b: str) -> float:
        """P(a beats b) of the fit, a tie counting as half a win."""
        gap = (self.elo[a].mean - self.elo[b].mean) / ELO
        win = math.exp(gap / 2)
        return (win + self.nu / 2) / (win + 1 / win + self.nu)

    def json(self) -> dict[str, Any]:
        return {
            "elo": {name: interval.json() for name, interval in self.elo.items()},
            "tie_rate": self.tie_rate,
            "nu": self.nu,
            "n": self.n,
            "anchor": self.anchor,
        }


def fit_ratings(
    votes: Sequence[Vote],
    *,
    ties: Ties = "half",
    ridge: float = 0.0,
    anchor: str = "",
    base: float = 0.0,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Ratings:
    """Elo ratings with percentile intervals over votes, or over clusters of votes where they name one.

    `ridge` adds ridge · Σ r² / 2 to the negative log-likelihood; without it, players that never lost or
    never won (or groups that never met) have no finite rating and are refused with ValueError. Resamples in
    which this happens use a ridge of 0.01. The result is the same for any order of the votes.
    """
    names = players(votes)
    if anchor and anchor not in names:
        raise ValueError(f"anchor {anchor!r} has no votes; players are {', '.join(names)}")
    scores, nu, draws, units = _fitted(votes, names, ties, ridge, resamples, seed)
    if len(draws):
        tail = percentile_tail(units, level)
        low, high = np.quantile(_anchored(draws, names, anchor, base), (tail, 1 - tail), axis=0)
    else:
        low = high = np.full(len(names), math.nan)
    elo = _anchored(scores, names, anchor, base)[0]
    played = [sum(name in vote[:2] for vote in votes) for name in names]
    order = sorted(range(len(names)), key=lambda i: (-elo[i], names[i]))
    tied = sum(vote.outcome == 0.5 for vote in votes)
    return Ratings(
        elo={names[i]: Interval(float(elo[i]), float(low[i]), float(high[i]), played[i]) for i in order},
        tie_rate=tied / len(votes),
        nu=float(nu[0]),
        n=len(votes),
        anchor=anchor,
    )


def players(votes: Sequence[Vote]) -> list[str]:
    """The names of all who are voted on, sorted. ValueError for no votes."""
    if not votes:
        raise ValueError("no votes to rate")
    return sorted({player for vote in votes for player in vote[:2]})


def elo_draws(
    votes: Sequence[Vote], anchor: str, *, ridge: float = 0.0, resamples: int = 1000, seed: int = 0
) -> tuple[Array, Array]:
    """Elo of `players(votes)` with `anchor` at 0, `[players]`, and of every resample, `[resamples, players]`.

    Votes on the same clusters are resampled alike under one seed, so that draws of two judges may be subtracted.
    """
    names = players(votes)
    scores, _, draws, _ = _fitted(votes, names, "half", ridge, resamples, seed)
    return _anchored(scores, names, anchor, 0.0)[0], _anchored(draws, names, anchor, 0.0)


def bradley_terry(wins: Array, ties: Array | None = None, ridge: float = 0.0) -> Array:
    """Log-strengths (mean 0) from wins[i, j], how often i beat j; a tie in ties[i, j] is half a win for each.

    `ties` counts every tie once, in either triangle. ValueError if no finite maximum exists (give a ridge).
    """
    shared = np.zeros_like(wins, dtype=float) if ties is None else np.asarray(ties, dtype=float)
    counts = np.stack([np.asarray(wins, dtype=float), shared])
    if ridge == 0 and not _connected(counts):
        raise ValueError("the wins do not connect all players both ways; give a ridge such as 0.1")
    scores: Array = _fit(counts[None], "half", ridge)[0][0]
    return scores


class _Counts(NamedTuple):
    """Votes as counts: `rows[unit, cell]`, where a unit is a cluster, or else one vote; `cells[cell]` says what is
    counted (0 wins or 1 ties, of which player, against which)."""

    rows: Array
    cells: NDArray[np.int64]
    players: int

    @property
    def units(self) -> int:
        return len(self.rows)

    def tables(self, weights: Array) -> Array:
        """`[b, wins | ties, players, players]` under weights of the units `[b, units]`."""
        table = np.zeros((len(weights), 2, self.players, self.players))
        table[:, self.cells[:, 0], self.cells[:, 1], self.cells[:, 2]] = weights @ self.rows
        return table


def _count(votes: Sequence[Vote], names: Sequence[str], ties: Ties) -> _Counts:
    place = {name: i for i, name in enumerate(names)}
    cells: dict[tuple[int, int, int], int] = {}
    found: dict[Hashable, dict[int, float]] = {}
    for index, vote in enumerate(sorted(votes, key=repr)):  # any order of votes is one order: the resamples too
        if vote.first == vote.second:
            raise ValueError(f"{vote.first!r} was compared with itself")
        if not 0 <= vote.outcome <= 1 or (ties == "davidson" and vote.outcome not in (0, 0.5, 1)):
            due = "0, ½ or 1, as Davidson's ties ask for" if ties == "davidson" else "between 0 and 1"
            raise ValueError(f"outcome {vote.outcome!r} is not {due}")
        unit: Hashable = ("vote", index) if vote.cluster is None else ("cluster", vote.cluster)
        a, b = place[vote.first], place[vote.second]
        row = found.setdefault(unit, {})
        said = [(1, a, b, 1.0)] if vote.outcome == 0.5 else [(0, a, b, vote.outcome), (0, b, a, 1 - vote.outcome)]
        for kind, one, other, worth in said:
            if worth:
                cell = cells.setdefault((kind, one, other), len(cells))
                row[cell] = row.get(cell, 0.0) + worth
    rows = np.zeros((len(found), len(cells)))
    for number, key in enumerate(sorted(found, key=repr)):
        for cell, worth in found[key].items():
            rows[number, cell] = worth
    return _Counts(rows, np.array(list(cells)), len(names))


def _fitted(
    votes: Sequence[Vote], names: Sequence[str], ties: Ties, ridge: float, resamples: int, seed: int
) -> tuple[Array, Array, Array, int]:
    """Scores `[1, players]`, ν `[1]`, the scores of every resample `[resamples, players]`, how many units were drawn.

    A single unit has no resamples.
    """
    counts = _count(votes, names, ties)
    whole = counts.tables(np.ones((1, counts.units)))
    if ridge == 0 and not _connected(whole[0]):
        raise ValueError(UNCONNECTED)
    scores, nu = _fit(whole, ties, ridge)
    draws = [np.empty((0, len(names)))]
    if counts.units > 1:
        blocks = resample_weights(counts.units, resamples, seed, max(len(counts.cells), 2 * counts.players**2))
        draws += [_fit(counts.tables(block), ties, max(ridge, 0.01), scores[0])[0] for block in blocks]
    return scores, nu, np.concatenate(draws), counts.units


def _connected(counts: Array) -> bool:
    from scipy.sparse.csgraph import connected_components

    beaten = counts[0] + counts[1] + counts[1].T
    return int(connected_components(beaten > 0, directed=True, connection="strong")[0]) == 1


def _anchored(scores: Array, names: Sequence[str], anchor: str, base: float) -> Array:
    zero = scores[:, [names.index(anchor)]] if anchor else scores.mean(axis=1, keepdims=True)
    return (scores - zero) * ELO + base


def _fit(counts: Array, ties: Ties, ridge: float, start: Array | None = None) -> tuple[Array, Array]:
    """Scores `[b, players]` (mean 0) and ν `[b]` of tables of counts `[b, wins|ties, players, players]`."""
    wins, tied = counts[:, 0], counts[:, 1]
    tied = tied + tied.transpose(0, 2, 1)  # [b, i, j] = ties of the pair, seen from both
    if ties == "half":
        return _newton(wins + tied / 2, ridge, start=start), np.zeros(len(counts))
    total = wins + wins.transpose(0, 2, 1) + tied
    share = tied.sum(axis=(1, 2)) / total.sum(axis=(1, 2))
    if np.all(share == 0):
        return _newton(wins, ridge, start=start), np.zeros(len(counts))
    nu = np.clip(2 * share / np.maximum(1 - share, 1 / _LARGEST_NU), 0, _LARGEST_NU)
    scores = np.zeros(wins.shape[:2]) if start is None else np.tile(start, (len(wins), 1))
    for _ in range(500):
        # For given ν the likelihood is that of half-wins with another link; ν then has its own fixed point.
        scores = _newton(wins + tied / 2, ridge, nu, scores)
        half = np.exp((scores[:, :, None] - scores[:, None, :]) / 2)
        expected = (total / (half + 1 / half + nu[:, None, None])).sum(axis=(1, 2))
        updated = np.clip(tied.sum(axis=(1, 2)) / expected, 0, _LARGEST_NU)
        done = np.allclose(updated, nu, rtol=1e-10, atol=1e-14)
        nu = updated
        if done:
            break
    return scores, nu


def _newton(wins: Array, ridge: float, nu: Array | None = None, start: Array | None = None) -> Array:
    """Maximum likelihood for `wins[b, i, j]` (half-wins included), by Newton's method with halved steps.

    `start` are scores to begin at, `[players]` or `[b, players]`.
    """
    size, players = wins.shape[:2]
    scores = np.zeros((size, players)) + (0.0 if start is None else start)
    games = wins + wins.transpose(0, 2, 1)
    won = wins.sum(axis=2)
    extra = np.zeros(size) if nu is None else nu
    pad = np.ones((players, players)) / players  # fixes the mean, which the likelihood leaves free

    def loss(at: Array) -> Array:
        gap = at[:, :, None] - at[:, None, :]
        # log(e^{g/2} + e^{-g/2} + ν), without overflow
        size_of = np.abs(gap) / 2
        norm = size_of + np.log1p(np.exp(-2 * size_of) + extra[:, None, None] * np.exp(-size_of))
        value: Array = (games * norm).sum(axis=(1, 2)) / 2 - (wins * gap / 2).sum(axis=(1, 2))
        return value + ridge / 2 * (at**2).sum(axis=1)

    now = loss(scores)
    for _ in range(200):
        gap = scores[:, :, None] - scores[:, None, :]
        up = np.exp(np.clip(gap / 2, -300, 300))
        norm = up + 1 / up + extra[:, None, None]
        expected = (up + extra[:, None, None] / 2) / norm
        gradient = (games * expected).sum(axis=2) - won + ridge * scores
        # derivative of `expected` by the gap
        slope = games * (1 + extra[:, None, None] * (up + 1 / up) / 4) / norm**2
        hessian = -slope
        diagonal = np.arange(players)
        hessian[:, diagonal, diagonal] = slope.sum(axis=2) - slope[:, diagonal, diagonal] + ridge
        step = np.linalg.solve(hessian + pad, gradient[:, :, None])[:, :, 0]
        length = np.ones((size, 1))
        trial = scores - step
        after = loss(trial)
        for _ in range(30):
            worse = after > now + 1e-12 * np.abs(now)
            if not worse.any():
                break
            length[worse] /= 2
            trial = np.where(worse[:, None], scores - length * step, trial)
            after = loss(trial)
        scores, now = trial, after
        if np.abs(step).max() < 1e-10:
            break
    return scores - scores.mean(axis=1, keepdims=True)
