"""Scores of evaluation prompts by seed: what the claims on policies compare, and how they show it."""

from collections.abc import Callable, Sequence

import numpy as np

from accord.claims.lab.findings import select
from accord.claims.lab.recipes import GoldFlow
from accord.disk import read_lines
from accord.evaluation.statistics import Interval, Nested, nested_interval

Groups = list[np.ndarray]


def every(prompt: str) -> bool:
    """All prompts."""
    return True


def values(flow: GoldFlow, name: str, metric: str, slices: Sequence[str]) -> dict[str, float]:
    """A score by prompt, of one snapshot's evaluation."""
    return select(read_lines(flow.root / f"evaluate-{name}" / "samples.jsonl"), metric, slices)


def level(
    flows: Sequence[GoldFlow], of: str, metric: str, slices: Sequence[str], keep: Callable[[str], bool] = every
) -> Groups:
    """A score of one snapshot's replies by seed, on the prompts that `keep` takes."""
    return [np.array([v for p, v in values(flow, of, metric, slices).items() if keep(p)]) for flow in flows]


def difference(
    flows: Sequence[GoldFlow],
    of: str,
    against: str,
    metric: str,
    slices: Sequence[str],
    keep: Callable[[str], bool] = every,
) -> Groups:
    """The same as paired differences to another snapshot on the prompts that both answered."""
    out = []
    for flow in flows:
        ours, theirs = values(flow, of, metric, slices), values(flow, against, metric, slices)
        out.append(np.array([ours[p] - theirs[p] for p in ours if p in theirs and keep(p)]))
    return out


def paired(after: Sequence[float], before: Sequence[float]) -> Nested:
    """The change by seed, with its interval over seeds."""
    return nested_interval([a - b for a, b in zip(after, before, strict=True)])


def choosing(prompt: str) -> bool:
    """Half of the prompts, by a digit of their ids: a setting that is the best there is measured on the other half."""
    return int(prompt[-1], 16) % 2 == 0


def measuring(prompt: str) -> bool:
    """The other half."""
    return not choosing(prompt)


def show(interval: Interval) -> str:
    """An estimate and its interval, in two decimals."""
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"
