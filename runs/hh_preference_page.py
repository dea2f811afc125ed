"""The results page of `runs/hh_preference.sh`: python runs/hh_preference_page.py OUT > docs/results/hh-preference.md"""

import math
import sys
from pathlib import Path

import numpy as np
from tables import interval, signed, table

from accord.disk import read_json, read_lines
from accord.evaluation.calibration import calibration_intervals
from accord.evaluation.statistics import Array, Interval, pair_outcomes, paired_difference, share_interval

STARTS = {
    "untrained": "no pretraining",
    "pretrained": "pretraining on text",
    "pmp": "text, then PMP, ranked",
    "pmp-binarised": "text, then PMP, binarised",
}
BASELINES = {"words": "bag of words", "length": "length alone"}
CRITERIA = ("helpful", "harmless")
CONTRASTS = (
    ("pretrained", "untrained"),
    ("pmp", "pretrained"),
    ("pmp-binarised", "pretrained"),
    ("pmp-binarised", "pmp"),
    *((start, baseline) for start in STARTS for baseline in BASELINES),
)
INTRO = """# Which pretraining helps a small preference model on HH-RLHF, and by how much?

Written by `runs/hh_preference_page.py` from the run folders that `runs/hh_preference.sh` left. One model size, one
seed: the intervals are over conversations (bootstrap, 95 %), not over initialisations. Five folds by prompt:
conversations with the same opening stay together, and every row that is short enough is tested once, by a model that
saw none of its conversation. All starts share tokenizer, folds, learning rate and their one epoch. No text is shown:
none was checked to be harmless.

The bag of words is fitted to the same folds; length prefers the longer or the shorter reply, whichever the other
folds favour. ECE is the expected calibration error of σ(score difference) in ten bins of equal mass; it is never
negative, so a calibrated model's is above 0 by chance. A slope below 1 is over-confident, above 1 too timid.
"""
SMALL = """What a language model brings is missing here: the published models stand on ones that saw hundreds of
billions of tokens. For orientation only, the published fit for helpfulness (Bai et al. 2022, equation A.1; the
logarithm's base is not stated, the natural one reproduces their plots),
Acc = 0.72 + 0.007 ln(P / 10^11) + 0.015 ln(D / 80,000), extrapolated far below the smallest of their models (13M):"""


class Tested:
    """What the folds say of every pair under a criterion: margins by start that was run, and by the two baselines."""

    def __init__(self, out: Path, criterion: str) -> None:
        self.starts = [start for start in STARTS if (out / f"{criterion}-{start}" / "manifest.json").exists()]
        found = {start: read_json(out / f"{criterion}-{start}" / "tested.json") for start in self.starts}
        rows = found["untrained"]
        about = [(row["prompt_id"], row["fold"], row["length"]) for row in rows]
        for start, others in found.items():
            if [(row["prompt_id"], row["fold"], row["length"]) for row in others] != about:
                raise SystemExit(f"{criterion}-{start} did not test the pairs that {criterion}-untrained did")
        self.prompts = [row["prompt_id"] for row in rows]
        self.subsets = np.array([row["subset"] for row in rows])
        self.margins = {start: np.array([row["margin"] for row in others]) for start, others in found.items()}
        self.margins["words"] = np.array([row["words"] for row in rows])
        folds = np.array([row["fold"] for row in rows])
        lengths = np.array([row["length"] for row in rows], dtype=float)
        self.margins["length"] = lengths * [
            1.0 if pair_outcomes(lengths[folds != fold]).mean() >= 0.5 else -1.0 for fold in folds
        ]

    def right(self, name: str) -> Array:
        return pair_outcomes(self.margins[name])

    def accuracy(self, name: str, subset: str = "") -> Interval:
        kept = (self.subsets == subset) if subset else np.ones(len(self.prompts), dtype=bool)
        prompts = [prompt for prompt, keep in zip(self.prompts, kept, strict=True) if keep]
        return share_interval(self.right(name)[kept], prompts)

    def difference(self, name: str, other: str) -> Interval:
        return paired_difference(self.right(name), self.right(other), self.prompts)


def label(name: str) -> str:
    return {**STARTS, **BASELINES}[name]


def results(criterion: str, tested: Tested) -> list[str]:
    rows = []
    names = (*tested.starts, *BASELINES)
    for name in names:
        row = [label(name), interval(tested.accuracy(name).json())]
        if name == "length":
            rows.append([*row, "", "", ""])
            continue
        found = calibration_intervals(tested.margins[name], clusters=tested.prompts)
        rows.append([*row, *(interval(found[key].json()) for key in ("ece", "slope", "log_loss"))])
    lines = [f"## {criterion.capitalize()}: {len(tested.prompts)} pairs, each tested once", ""]
    lines += table(["start", "accuracy [95 %]", "ECE", "slope", "−log likelihood, nats"], rows)
    subsets = sorted(set(tested.subsets))
    if len(subsets) > 1:
        rows = [
            [label(name), *(interval(tested.accuracy(name, subset).json()) for subset in subsets)] for name in names
        ]
        counts = [f"{subset}, n = {int((tested.subsets == subset).sum())}" for subset in subsets]
        lines += ["Accuracy by subset:", "", *table(["start", *counts], rows)]
    rows = []
    for name, other in CONTRASTS:
        if name not in names or other not in names:
            continue
        found = tested.difference(name, other)
        rows.append([label(name), label(other), signed(found.json()), verdict(found)])
    head = ["accuracy of", "less that of", "difference, paired by row [95 %]", ""]
    return [*lines, "Who is better, on the same rows:", "", *table(head, rows), *answer(criterion, tested), ""]


def verdict(difference: Interval) -> str:
    return {"above": "better", "below": "worse", "undecided": "not decided"}[difference.side_of(0.0)]


def answer(criterion: str, tested: Tested) -> list[str]:
    """The sentences that the issue asks for, from the intervals."""
    sides = {start: tested.accuracy(start).side_of(0.5) for start in tested.starts}
    said = []
    for side, words in (
        ("above", "above one half beyond its interval"),
        ("undecided", "not told from one half"),
        ("below", "below one half beyond its interval"),
    ):
        who = [label(start) for start in tested.starts if sides[start] == side]
        if who:
            said.append(f"{words}: {'; '.join(who)}")
    return [f"Accuracy on {criterion} is {'. It is '.join(said)}."]


def orientation(tested: dict[str, Tested], parameters: int) -> list[str]:
    rows = []
    for criterion, found in tested.items():
        pairs = round(0.8 * len(found.prompts))
        fit = 0.72 + 0.007 * math.log(parameters / 1e11) + 0.015 * math.log(pairs / 8e4)
        best = max(found.starts, key=lambda start, found=found: found.accuracy(start).mean)  # type: ignore[misc]
        ours = f"{interval(found.accuracy(best).json())} ({label(best)})"
        rows.append([criterion, f"{parameters:,}", f"{pairs:,}", f"{fit:.3f}" if criterion == "helpful" else "–", ours])
    head = ["criterion", "parameters P", "comparisons D", "published fit", "best start here"]
    return ["## Beside the published fit", "", SMALL, "", *table(head, rows)]


def read(out: Path) -> list[str]:
    rows = []
    for criterion in CRITERIA:
        folder = out / f"{criterion}-untrained" / "data"
        for held in read_json(folder / "data.json"):
            drops = ", ".join(f"{count} {reason}" for reason, count in held["drops"].items()) or "none"
            rows.append([criterion, held["name"], str(held["rows"]), str(held["used"]), drops])
        rows.append([criterion, *too_long(folder)])
    for held in read_json(out / "pmp.json"):
        drops = ", ".join(f"{count} {reason}" for reason, count in held["drops"].items() if count) or "none"
        rows.append(["PMP", held["source"].partition(".")[0], str(held["rows"]), str(held["used"]), drops])
    rows.append(["PMP", *too_long(out / "pmp" / "data")])
    return ["## What was read", "", *table(["for", "source", "rows", "used", "dropped"], rows)]


def too_long(folder: Path) -> list[str]:
    file = folder / "data-too-long.json"
    if not file.exists():
        return ["longer than --max_length", "", "", "none"]
    found = read_json(file)
    return [f"longer than {found['max_length']} tokens", "", "", str(found["dropped"])]


def page(out: Path) -> list[str]:
    planned = ["pretrained", "pmp", "pmp-binarised", *(f"{c}-{start}" for c in CRITERIA for start in STARTS)]
    stages = [name for name in planned if (out / name / "manifest.json").exists()]
    seconds = ", ".join(f"{name} {read_json(out / name / 'lineage.json')['seconds']:.0f}" for name in stages)
    spoken = read_lines(out / "pretrained" / "metrics.jsonl")[-1]
    tested = {criterion: Tested(out, criterion) for criterion in CRITERIA}
    parameters = read_json(out / "pretrained" / "lineage.json")["parameters"]
    lines = [INTRO]
    lines.append(
        f"The model has {parameters:,} parameters. Pretraining saw {spoken['num_tokens']:,} tokens and ended at "
        f"{spoken['eval/loss']:.3f} nats a token on held-out documents. PMP goes on from there on "
        f"{read_json(out / 'pmp' / 'lineage.json')['comparisons']:,} pairs that no tested conversation opens like (for "
        "harmless, the trunk of that helpfulness model under a new head)."
    )
    lines.append("")
    for criterion, found in tested.items():
        lines += results(criterion, found)
    lines += orientation(tested, parameters)
    lines += read(out)
    if left := [name for name in planned if name not in stages]:
        lines.append(f"Not run: {', '.join(left)}.\n")
    lines.append(f"Seconds by stage (two side by side, one thread each, but for the pretraining): {seconds}.")
    return lines


if __name__ == "__main__":
    print("\n".join(page(Path(sys.argv[1]))))
