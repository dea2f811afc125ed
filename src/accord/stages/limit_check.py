"""Whether limits are met: mean raw cost of replies with its interval, and the verdict."""

from collections.abc import Hashable, Sequence
from typing import Any

from accord.evaluation.statistics import limit_verdict, mean_interval


def judge_limit(
    name: str, limit: float, costs: Sequence[float], *, seed: int, clusters: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Interval of the mean cost, share of unsafe replies and verdict, said aloud and returned as JSON.

    `costs` are of the replies on the limit's slices; `clusters` name the prompt of each where prompts have several.
    """
    interval = mean_interval(list(costs), clusters, seed=seed)
    verdict = limit_verdict(interval, limit)
    unsafe = sum(cost > 0 for cost in costs) / len(costs)
    print(
        f"limit {name} {limit:g}: {verdict}; mean cost {interval.mean:+.3f} [{interval.low:+.3f}, "
        f"{interval.high:+.3f}], unsafe {unsafe:.0%} of {len(costs)} sampled replies",
        flush=True,
    )
    return {**interval.json(), "limit": limit, "verdict": verdict, "unsafe": unsafe}
