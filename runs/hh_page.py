"""Write the results page of `runs/hh.sh` from its run folders: python runs/hh_page.py OUT > docs/results/hh.md"""

import sys
from pathlib import Path

from tables import interval, table

from accord.disk import read_json, read_lines

FOLDED = ("helpful-folds", "harmless-folds")
HELD_OUT = ("helpful", "dpo", "ipo", "harmless", "cost")
MEASURED = ("pretrain", "sft", "dpo", "ipo", "ppo", "limited")
STAGES = ("pretrain", "sft", *FOLDED, *HELD_OUT, "ppo", "limited")
INTRO = """# HH-RLHF at the size of two CPU cores

Written by `runs/hh_page.py` from the run folders that `runs/hh.sh` left; one seed. **The models are weak**: a few
million parameters, pretrained for minutes on novels. They write broken English, and what they say is worth nothing.
What the page shows is that every stage runs on real data, learns what so small a model can, and says how little that
is. No reply is shown: none was checked to be harmless.
"""
FOLDS = """## Preference models

Cross-validated by prompt (two folds; conversations with the same opening stay together): every row that is short enough
is tested once, by a model that saw none of its conversation. The baseline prefers the longer (or the shorter) reply,
whichever the other rows favour. ECE is the expected calibration error of σ(score difference).
"""
SPLIT = """The models that the policies below use saw the preference split less a tenth, on which they are tested here.
`cost` has ranking terms from harmless-base and sign terms from labelled replies. `dpo` and `ipo` are policies, trained
on the same comparisons as `helpful`: their implicit reward is tested on the same held-out prompts. Published preference
models of this data stand on language models that saw hundreds of billions of tokens.
"""
POLICIES = """## Policies

Replies to evaluation prompts, scored by the models that PPO was trained against: what it was asked for, not what people
would say. The limit asks for an expected cost of at most 0 on harmless-base prompts.
"""
HEAD = ["snapshot", "reward, helpful prompts", "cost, harmless prompts", "unsafe there", "KL to SFT, nats", "tokens"]


def last(folder: Path) -> dict:
    return read_lines(folder / "metrics.jsonl")[-1]


def accuracies(out: Path, names: tuple[str, ...]) -> list[str]:
    rows = []
    for name in names:
        for row in read_json(out / name / "evaluation.json")["rows"]:
            baseline = f"{interval(row['length_baseline'])} ({row['length_baseline_prefers']})"
            ece = f"{row['ece']:.3f}"
            rows.append([name, row["subset"], str(row["n"]), interval(row["accuracy"]), baseline, ece])
    return table(["model", "subset", "n", "accuracy [95 %]", "length alone [95 %]", "ECE"], rows)


def page(out: Path) -> list[str]:
    took = {name: read_json(out / name / "lineage.json") for name in STAGES}
    seconds = ", ".join(f"{name} {lineage['seconds']:.0f}" for name, lineage in took.items())
    lines = [
        INTRO,
        f"Seconds by stage (one thread each; other work ran on the two cores beside them): {seconds}.",
        "",
        "## What was read",
        "",
    ]
    rows = []
    for name in ("sft", "helpful-folds", "harmless-folds", "cost", "ppo"):
        for file in sorted((out / name / "data").glob("*.json")):
            read = read_json(file)
            if isinstance(read, dict):
                rows.append([name, f"longer than {read['max_length']} tokens", "", "", str(read["dropped"])])
                continue
            for held in read:
                source = held["name"] or Path(held["source"].partition("?")[0]).name
                drops = ", ".join(f"{count} {reason}" for reason, count in held["drops"].items()) or "none"
                rows.append([name, source, str(held["rows"]), str(held["used"]), drops])
    lines += table(["stage", "source", "rows", "used", "dropped"], rows)
    lines += ["## Language-model loss, nats a token", ""]
    rows = []
    for name in ("pretrain", "sft"):
        metrics = last(out / name)
        rows.append([name, f"{metrics['num_tokens']:,}", f"{metrics['loss']:.3f}", f"{metrics['eval/loss']:.3f}"])
    lines += table(["stage", "tokens seen", "last batch", "held out, its own data"], rows)
    evaluations = {name: read_json(out / f"evaluate-{name}" / "evaluation.json") for name in MEASURED}
    rows = [[name, f"{found['loss']:.3f}"] for name, found in evaluations.items()]
    lines += ["The chosen replies of helpful-base, evaluation split:", "", *table(["snapshot", "loss"], rows)]
    lines.append(FOLDS)
    lines += accuracies(out, FOLDED)
    lines += [SPLIT, *accuracies(out, HELD_OUT)]
    lines.append(POLICIES)
    rows = []
    for name, found in evaluations.items():
        slices = found["slices"]
        harmless, helpful = slices["harmless"], slices["helpful"]
        kl = interval(slices["all"]["kl"], 2) if "kl" in slices["all"] else "0"
        rows.append(
            [
                name,
                interval(helpful["reward/helpful"], 2),
                interval(harmless["cost/harmless"], 2),
                interval(harmless["cost/harmless/unsafe"], 2),
                kl,
                interval(slices["all"]["length"], 1),
            ]
        )
    lines += table(HEAD, rows)
    for name in MEASURED[2:]:
        rate = (evaluations[name].get("win_rate") or {}).get("all")
        if rate:
            lines += [f"{name} against SFT by {rate['judge']}: win rate {interval(rate, 2)}, n = {rate['n']}.", ""]
    path = read_lines(out / "limited" / "metrics.jsonl")
    rows = [
        [
            str(r["step"]),
            f"{r['cost/harmless/mean']:+.3f}",
            f"{r['lagrange/harmless']:.2f}",
            f"{max(r['objective/kl'], 0.0):.2f}",
        ]
        for r in path[:: max(1, len(path) // 8)] + path[-1:]
    ]
    lines += ["The multiplier's path under the limit:", "", *table(["iteration", "cost", "λ", "KL"], rows)]
    return lines[:-1]


if __name__ == "__main__":
    print("\n".join(page(Path(sys.argv[1]))))
