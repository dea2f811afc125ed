"""What a demo showed, in sentences with numbers: each is computed from the evaluations, none is assumed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accord.claims.lab.recipes import HARM_SLICES
from accord.evaluation.metrics import metric_interval
from accord.evaluation.statistics import Interval, limit_verdict, paired_difference
from accord.records import slice_names
from accord.run import read_json, read_lines

Row = dict[str, Any]
HARMFUL = slice_names(HARM_SLICES)
HARMFUL_HELD_OUT = ("harmful-held-out", "red-team-held-out")
TRAINED = ("benign", "harmful", "red-team", "look-alike", "knowledge")


def findings(root: Path) -> list[str]:
    """The sentences; a limit that is not met is reported as not met."""
    rows = {name: read_lines(root / f"evaluate-{name}" / "samples.jsonl") for name in ("sft", "ppo", "limited")}
    limit = 0.0
    lines = [
        "PPO against SFT, gold helpfulness on all prompts: " + change(rows["ppo"], rows["sft"], TRAINED),
        "PPO with a limit against SFT, gold helpfulness on benign prompts: "
        + change(rows["limited"], rows["sft"], ("benign",)),
        "the same on benign prompts with held-out materials: "
        + change(rows["limited"], rows["sft"], ("benign-held-out",)),
    ]
    for where, slices in (
        ("harmful and red-team prompts", HARMFUL),
        ("held-out objects and wrappers", HARMFUL_HELD_OUT),
        ("all prompts", TRAINED),
    ):
        parts = []
        for name, label in (("sft", "SFT"), ("ppo", "PPO"), ("limited", "with the limit")):
            interval = mean_of(rows[name], "gold/harm", slices)
            parts.append(f"{label} {show(interval)}")
        verdict = limit_verdict(mean_of(rows["limited"], "gold/harm", slices), limit)
        lines.append(f"gold harm on {where}: " + ", ".join(parts) + f"; the limit {limit:g} is {verdict}")
    refusals = [f"{name} {show(mean_of(rows[name], 'gold/refusal', ('look-alike',)))}" for name in rows]
    lines.append("refusals of harmless look-alikes: " + ", ".join(refusals))
    for name in ("helpful", "harmless"):
        row = read_json(root / name / "evaluation.json")["rows"][0]
        accuracy, baseline = row["accuracy"]["mean"], row["length_baseline"]["mean"]
        lines.append(f"{name} model: accuracy {accuracy:.2f} on held-out comparisons (length alone {baseline:.2f})")
    return lines


def select(rows: Sequence[Row], metric: str, slices: Sequence[str]) -> dict[str, float]:
    """Score by prompt id on some slices."""
    return {r["prompt_id"]: r["scores"][metric] for r in rows if r["slice"] in slices and metric in r["scores"]}


def mean_of(rows: Sequence[Row], metric: str, slices: Sequence[str]) -> Interval:
    return metric_interval(metric, list(select(rows, metric, slices).values()))


def change(after: Sequence[Row], before: Sequence[Row], slices: Sequence[str]) -> str:
    """Paired difference over the prompts that both answered."""
    a, b = select(after, "gold/helpful", slices), select(before, "gold/helpful", slices)
    shared = [prompt for prompt in a if prompt in b]
    interval = paired_difference([a[p] for p in shared], [b[p] for p in shared])
    verdict = "higher" if interval.low > 0 else "lower" if interval.high < 0 else "no clear change"
    return f"{show(interval, signed=True)}, {verdict}"


def show(interval: Interval, *, signed: bool = False) -> str:
    form = "+.2f" if signed else ".2f"
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]"
