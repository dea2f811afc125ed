"""What the run folders of `runs/smollm2.sh --road whole` hold, and what became of each question."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pieces
from tables import signed

from accord.disk import read_json, read_lines, read_yaml
from accord.evaluation.statistics import Interval, mean_interval, paired_shares
from accord.labelers.rules import refuses
from accord.stages.evaluate.refusals import side_of

TABLE = read_yaml(pieces.HERE / "smollm2.yaml")
ROAD = "whole"
POLICIES = {
    "dpo": "DPO",
    "ppo-0": "PPO, seed 0",
    "ppo-1": "PPO, seed 1",
    "limited": "PPO under a limit",
    "sl-cai": "SL-CAI",
    "rl-cai": "RL-CAI",
    "honest": "honesty training",
}
SNAPSHOTS = {"start": "SmolLM2 as it comes", **POLICIES}
Value = Mapping[str, Any]  # mean, low, high, n


class Outcome(NamedTuple):
    """A question with a better side: a difference whose gain is above 0."""

    what: str
    gain: Value

    @property
    def side(self) -> str:
        """better, worse, or open: the interval holds 0, or there is none."""
        return {"above": "better", "below": "worse", "undecided": "open"}[as_interval(self.gain).side_of(0.0)]


class Found:
    """The folders of a run; `missing` are those of its stages that have not come to their end, by piece."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.pieces = {piece: pieces.stages(TABLE, [piece]) for piece in PIECES}
        self.missing = {
            piece: [name for name in names if not self.has(name)]
            for piece, names in self.pieces.items()
            if not all(map(self.has, names))
        }

    def has(self, folder: str) -> bool:
        return (self.out / folder / "manifest.json").exists()

    def read(self, folder: str, file: str = "evaluation.json") -> Any:
        """A finished run's file; empty where the run is missing."""
        return read_json(self.out / folder / file) if self.has(folder) else {}

    def lines(self, folder: str, file: str = "samples.jsonl") -> list[dict[str, Any]]:
        return read_lines(self.out / folder / file) if self.has(folder) else []

    def policies(self, kind: str) -> dict[str, Any]:
        """NAME → `evaluation.json` of `KIND-NAME`, of the snapshots that were measured so."""
        return {name: found for name in SNAPSHOTS if (found := self.read(f"{kind}-{name}"))}


PIECES = TABLE["roads"][ROAD]["pieces"]


def as_interval(value: Value) -> Interval:
    """The interval of a file; bounds that are null decide nothing."""
    nan = float("nan")
    mean, low, high = (nan if value.get(key) is None else float(value[key]) for key in ("mean", "low", "high"))
    return Interval(mean, low, high, int(value.get("n") or 0))


def turned(value: Value) -> dict[str, Any]:
    """The same difference from the other side."""
    low, high = value.get("high"), value.get("low")
    return {
        "mean": None if value.get("mean") is None else -value["mean"],
        "low": None if low is None else -low,
        "high": None if high is None else -high,
        "n": value.get("n"),
    }


def shifted(value: Value, by: float) -> dict[str, Any]:
    """A share as its difference from another number."""
    moved = {key: None if value.get(key) is None else value[key] - by for key in ("mean", "low", "high")}
    return {**moved, "n": value.get("n")}


def pair(rows: Sequence[Mapping[str, Any]], one: str, other: str) -> Value:
    """Accuracy of one less that of the other in `paired` of `accord evaluate preference`; empty where it is not."""
    for row in rows:
        if (row["model"], row["less"]) == (one, other):
            return dict(row["difference"])
        if (row["model"], row["less"]) == (other, one):
            return turned(row["difference"])
    return {}


def paired_scores(
    after: Sequence[Mapping[str, Any]],
    before: Sequence[Mapping[str, Any]],
    weights: Mapping[str, float],
    slice_: str = "",
) -> Value:
    """Mean change of a weighted sum of scores over the prompts of a slice that both have."""

    def sums(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        return {
            row["prompt_id"]: sum(weight * row["scores"][name] for name, weight in weights.items())
            for row in rows
            if row["slice"] == slice_ and all(row["scores"].get(name) is not None for name in weights)
        }

    return paired_means(sums(after), sums(before))


def paired_means(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Value:
    """Mean difference of two numbers over the prompts that both have; empty without one."""
    shared = [prompt for prompt in ours if prompt in theirs]
    return mean_interval([ours[p] - theirs[p] for p in shared], shared).json() if shared else {}


def refused_more(after: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]], side: str) -> Value:
    """Change of the share that the string rule takes for refusals, on prompts of one side, paired by prompt."""
    ours, theirs = (
        {row["prompt_id"]: float(refuses(row["reply"])) for row in rows if side_of(row["slice"]) == side}
        for rows in (after, before)
    )
    shared = [prompt for prompt in ours if prompt in theirs]
    return paired_shares([ours[p] for p in shared], [theirs[p] for p in shared]).json() if shared else {}


def wants(value: Value) -> str:
    """Of a difference whose interval holds 0: how many times the prompts would decide one of its size."""
    seen = as_interval(value)
    if seen.side_of(0.0) != "undecided" or not seen.mean or not math.isfinite(seen.high - seen.low):
        return ""
    times = ((seen.high - seen.low) / 2 / seen.mean) ** 2
    return f" ({seen.n} prompts; {times:,.1f} times as many would decide this size)" if 1 < times < 100 else ""


def summary(outcomes: Sequence[Outcome]) -> list[str]:
    """What became worse, then what was not shown to be better, then what was."""
    titles = {
        "worse": "Worse, beyond the interval",
        "open": "Not shown to be better: the interval holds no change",
        "better": "Better, beyond the interval",
    }
    lines = ["## Summary, what did not improve first", ""]
    for side, title in titles.items():
        own = [f"- {one.what}: {signed(one.gain)}{wants(one.gain)}" for one in outcomes if one.side == side]
        lines += [f"**{title}** ({len(own)} of {len(outcomes)})", "", *(own or ["- nothing"]), ""]
    return lines
