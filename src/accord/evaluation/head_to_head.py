"""What votes say beside a rating: win rates of two, what the order did, whether a judge contradicts itself."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from accord.evaluation.agreement import Answer
from accord.evaluation.ratings import ELO, Ratings, Vote
from accord.evaluation.statistics import finite, share_interval


def pair_rates(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """How often the first of every two who met wins, a tie half, with its interval over clusters; sorted by name."""
    met: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for vote in map(_by_name, votes):
        met[vote.first, vote.second].append(vote)
    rows = []
    for (first, second), said in sorted(met.items()):
        rate = share_interval([v.outcome for v in said], [v.cluster for v in said])
        ties = sum(v.outcome == 0.5 for v in said)
        rows.append({"first": first, "second": second, "rate": rate.json(), "tie_rate": ties / len(said)})
    return rows


def order_effect(votes: Sequence[Vote]) -> dict[str, Any]:
    """How often the reply shown first wins, over votes whose order is known; and of the questions that a judge was
    asked in both orders, how often it kept to its answer. Empty where no order is known."""
    known = [vote for vote in votes if vote.ordered]
    if not known:
        return {}
    both: dict[Any, dict[str, float]] = defaultdict(dict)
    for vote in known:
        both[vote.judge, vote.question][vote.first] = vote.outcome
    turned = [(list(said), list(said.values())) for said in both.values() if len(said) == 2]
    kept = [_side(a) == _side(1 - b) for _, (a, b) in turned]
    rate = share_interval([vote.outcome for vote in known], [vote.cluster for vote in known])
    found: dict[str, Any] = {"first_wins": rate.json(), "both_orders": len(kept)}
    return found | ({"kept": share_interval(kept).json()} if kept else {})


def answers(votes: Sequence[Vote]) -> list[Answer]:
    """Which side every judge took of every question, its votes in both orders as one: a tie where they contradict."""
    said: dict[Any, list[float]] = defaultdict(list)
    for vote in map(_by_name, votes):
        said[(vote.question, vote.first, vote.second), vote.judge].append(vote.outcome)
    return [Answer(question, judge, _side(sum(of) / len(of))) for (question, judge), of in said.items()]


class Cycles(NamedTuple):
    """Triples of replies to one prompt in which every two were told apart: how often a > b > c > a."""

    seen: dict[str, Any]
    expected: float
    triples: int

    def json(self) -> dict[str, Any]:
        return {"seen": self.seen, "expected": finite(self.expected), "triples": self.triples}


def cyclic_triples(votes: Sequence[Vote], ratings: Ratings) -> Cycles:
    """The share of cyclic triples, with its interval over clusters, and what Bradley–Terry expects of the same triples.

    A triple is one judge's answers on one cluster about three players, none of them a tie; the model expects
    p_ab p_bc p_ca + p_ba p_cb p_ac of independent answers. A judge that scores each reply alone, or ranks them all at
    once, has none.
    """
    tables: dict[Any, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for vote in map(_by_name, votes):
        tables[vote.cluster, vote.judge][vote.first, vote.second].append(vote.outcome)
    seen, expected, clusters = [], [], []
    for (cluster, _), table in tables.items():
        decided = {pair: _side(sum(said) / len(said)) for pair, said in table.items()}
        for a, b, c in combinations(sorted({name for pair in table for name in pair}), 3):
            sides = [decided.get(pair, 0) for pair in ((a, b), (b, c), (a, c))]
            if all(sides):
                seen.append(sides[0] == sides[1] != sides[2])
                expected.append(_cycle(ratings, a, b, c))
                clusters.append(cluster)
    mean = sum(expected) / len(expected) if expected else math.nan
    return Cycles(share_interval(seen, clusters).json(), mean, len(seen))


def mean_lengths(votes: Sequence[Vote]) -> Mapping[str, float]:
    """Mean length of every player's replies, in characters."""
    found: dict[str, list[float]] = defaultdict(list)
    for vote in votes:
        for name, length in zip(vote[:2], vote.lengths, strict=True):
            found[name].append(length)
    return {name: sum(lengths) / len(lengths) for name, lengths in found.items()}


def _cycle(ratings: Ratings, a: str, b: str, c: str) -> float:
    p = [1 / (1 + math.exp((ratings.elo[y].mean - ratings.elo[x].mean) / ELO)) for x, y in ((a, b), (b, c), (c, a))]
    return math.prod(p) + math.prod(1 - one for one in p)


def _side(outcome: float) -> int:
    """1 where the first won, −1 where the second did, 0 for a tie."""
    return (outcome > 0.5) - (outcome < 0.5)


def _by_name(vote: Vote) -> Vote:
    """The vote seen from the player whose name comes first."""
    return vote if vote.first < vote.second else vote.turned()
