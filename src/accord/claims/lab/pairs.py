"""What claims about preference models share: score comparisons as a cell, and join the scores to who preferred what."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from accord.claims.lab.recipes import GoldFlow
from accord.data.sources import read_comparisons
from accord.disk import read_lines
from accord.objectives.ranking import ranked_pairs
from accord.records import Comparison
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
