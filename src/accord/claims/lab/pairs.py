"""What claims about preference models share: score comparisons as a cell, and join the scores to who preferred what."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accord.claims.lab.recipes import GoldFlow
from accord.data.sources import read_comparisons
from accord.objectives.ranking import ranked_pairs
from accord.records import Comparison
from accord.run import read_lines
from accord.stages.score.config import Score


class Scored(NamedTuple):
    """A compared pair: the scores of the preferred reply and of the other under each column."""

    comparison: Comparison
    better: int
    worse: int
    columns: dict[str, tuple[float, float]]

    def margin(self, column: str) -> float:
        first, second = self.columns[column]
        return first - second


def score(flow: GoldFlow, name: str, data: str, criterion: str, models: dict[str, str], **changes: Any) -> Score:
    """A cell that scores `data` with the models."""
    settings = {**flow.common(name), "data": data, "criterion": criterion, "models": models, "max_length": 200}
    return Score(**{**settings, **changes})


def scored(config: Score) -> Iterator[Scored]:
    """Every ordered pair of a finished cell; what was too long to be scored is left out."""
    replies: dict[str, list[dict[str, float | None]]] = {}
    for row in read_lines(Path(config.out) / "scores.jsonl"):
        replies.setdefault(row["record_id"], []).append(row["scores"])
    for comparison in read_comparisons(str(config.data), config.criterion, max_rows=config.max_rows).records:
        values = replies[comparison.id]
        for i, j in ranked_pairs(comparison.ranks):
            columns = {
                name: (float(first), float(second))
                for name, first in values[i].items()
                if first is not None and (second := values[j][name]) is not None
            }
            if len(columns) == len(values[i]):
                yield Scored(comparison, i, j, columns)


def over_seeds(
    per_seed: list[list[np.ndarray]],
    statistic: Callable[[list[list[np.ndarray]]], np.ndarray],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vector statistic of per-seed tables of pairs, with percentile bounds: seeds are drawn, and rows within them.

    `per_seed[s]` are arrays whose first axis counts the same pairs of seed s: a drawn pair is drawn in all of them.
    """
    rng = np.random.default_rng(seed)
    value = statistic(per_seed)
    draws = []
    for _ in range(resamples):
        chosen = []
        for s in rng.integers(len(per_seed), size=len(per_seed)):
            count = len(per_seed[s][0])
            rows = rng.integers(count, size=count)
            chosen.append([table[rows] for table in per_seed[s]])
        draws.append(statistic(chosen))
    # a resample in which a number does not exist says nothing about it
    columns = [column[np.isfinite(column)] for column in np.array(draws).T]
    bounds = [np.quantile(known, (0.025, 0.975)) if known.size else np.full(2, np.nan) for known in columns]
    low, high = np.array(bounds).T
    return value, low, high
