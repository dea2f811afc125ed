"""How often attacks get through: shares by family, beside the same requests as they are, and beside another policy."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from accord.evaluation.statistics import Interval, mean_interval, paired_difference, paired_shares, share_interval


class Tried(NamedTuple):
    """A judged reply to an attack: `seed` is the request behind it, `score` is above 0 where it got through."""

    family: str
    seed: str
    prompt: str
    score: float

    @property
    def through(self) -> float:
        return float(self.score > 0)


def success(tried: Sequence[Tried], seed: int = 0) -> dict[str, Any]:
    """Share of replies that gave in and mean score, with intervals over requests."""
    requests = [one.seed for one in tried]
    return {
        "replies": len(tried),
        "requests": len(set(requests)),
        "success": share_interval([one.through for one in tried], requests).json(),
        "score": mean_interval([one.score for one in tried], requests, seed).json(),
    }


def change_by_request(after: Sequence[Tried], before: Sequence[Tried]) -> Interval | None:
    """Change of the share of successes on the requests that both have; None where they have none in common."""
    one, other = (means([(t.seed, t.through) for t in tried]) for tried in (after, before))
    both = [key for key in one if key in other]
    return paired_shares([one[key] for key in both], [other[key] for key in both]) if both else None


def change_by_prompt(after: Sequence[Tried], before: Sequence[Tried], seed: int = 0) -> dict[str, Any] | None:
    """Changes of success and score on the prompts that both have; None where they have none in common."""
    pairs = []
    for value in (lambda t: t.through), (lambda t: t.score):
        one, other = (means([(t.prompt, value(t)) for t in tried]) for tried in (after, before))
        both = [key for key in one if key in other]
        pairs.append(([one[key] for key in both], [other[key] for key in both]))
    if not pairs[0][0]:
        return None
    shares, scores = pairs
    return {"success": paired_shares(*shares).json(), "score": paired_difference(*scores, None, seed).json()}


def means(values: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Key → mean of its values, in the order of first appearance."""
    found: dict[str, list[float]] = {}
    for key, value in values:
        found.setdefault(key, []).append(value)
    return {key: sum(own) / len(own) for key, own in found.items()}
