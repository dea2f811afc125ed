"""What is known of a logged metric by its name: its definition, the interval of its mean, the page docs/metrics.md.

`python -m accord.evaluation.metrics docs/metrics.md` writes the page anew.
"""

import re
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from accord.evaluation.metric_names import GROUPS, METRICS, Metric
from accord.evaluation.statistics import Interval, mean_interval, paired_difference, paired_shares, share_interval


def key_of(name: str) -> str | None:
    """The name in the list that a logged name is an instance of (`reward/NAME/SLICE` of `reward/helpful/benign`)."""
    if name in METRICS:
        return name
    matches = [key for key in METRICS if _pattern(key).fullmatch(name)]
    literal = {key: len(_shown(key).replace("NAME", "").replace("SLICE", "")) for key in matches}
    # the most literal pattern; of equals the first
    return max(matches, key=literal.__getitem__) if matches else None


def definition(name: str) -> Metric | None:
    """The metric that a logged name is an instance of, or None."""
    key = key_of(name)
    return None if key is None else METRICS[key]


def is_share(name: str) -> bool:
    """Whether a logged metric is a mean of outcomes between 0 and 1."""
    found = definition(name)
    return found is not None and found.unit == "share"


def metric_interval(
    name: str,
    values: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """Interval of the mean of a logged metric over replies or prompts: `share_interval` where the list says share."""
    if is_share(name):
        return share_interval(values, clusters, level)
    return mean_interval(values, clusters, seed, level, resamples=resamples)


def metric_change(
    name: str, after: ArrayLike, before: ArrayLike, *, seed: int = 0, level: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Interval of the mean change of a logged metric over prompts that both have: `paired_shares` of a share."""
    if is_share(name):
        return paired_shares(after, before, level)
    return paired_difference(after, before, None, seed, level, resamples=resamples)


def _shown(key: str) -> str:
    return key.removesuffix(" (evaluate)")


def _pattern(key: str) -> re.Pattern[str]:
    escaped = re.escape(_shown(key))
    return re.compile(escaped.replace("NAME", "[^/]+").replace("SLICE", "[^/]+"))


def page() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Every number that a run folder holds, by the name it is logged under. `NAME` stands for a "
        "preference or cost model as the run names it (`--rewards.helpful` is `reward/helpful`) or for a loss, "
        "`SLICE` for a slice of prompts. Sums and means are over real tokens and real replies, never over padding, and "
        "do not depend on how a batch was cut. The last column is TRL's name for the same number.",
        "",
        "This page is written by `python -m accord.evaluation.metrics docs/metrics.md`.",
    ]
    for group, (title, about) in GROUPS.items():
        lines += ["", f"## {title}", "", about, "", "| name | what it is | unit | TRL |", "|---|---|---|---|"]
        for name, metric in METRICS.items():
            if metric.where == group:
                trl = f"`{metric.trl}`" if metric.trl else ""
                text = metric.definition.replace("|", "\\|")
                lines.append(f"| `{_shown(name)}` | {text} | {metric.unit} | {trl} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
