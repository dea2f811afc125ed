"""The results page of `runs/smollm2.sh --road whole`: python runs/smollm2_page.py OUT > docs/results/smollm2.md"""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from smollm2_found import (
    SNAPSHOTS,
    Found,
    Outcome,
    Value,
    as_interval,
    pair,
    paired_means,
    paired_scores,
    refused_more,
    shifted,
    summary,
    turned,
)
from tables import NONE, interval, plain, signed, table

from accord.claims.sqrt_kl import SMOOTHING, peak_at, smoothed
from accord.claims.two_halves import GAP, alarm_at
from accord.disk import read_json, read_lines
from accord.evaluation.statistics import mean_interval, nested_interval, r_squared, share_interval

INTRO = """# SmolLM2 through the whole loop, on what people wrote

Written by `runs/smollm2_page.py` from the run folders that `runs/smollm2.sh DATA_DIR --road whole{pairs}` left.
The model is SmolLM2-135M-Instruct, from weights of four bits, with adapters of rank 16; its makers had aligned it
before. HH-RLHF and the cost model's labels of PKU-SafeRLHF (non-commercial) were read by path. No prompt and no reply
is shown. Brackets are 95 % intervals over prompts, of differences paired by prompt. A rise of many numbers at once has
some by chance: nothing here is corrected for how many were asked.
"""
PREFERENCE = """## Preference models

Tested on comparisons of the evaluation split, of which no model and no bag of words has seen a conversation with the
same opening. `whole` is every comparison of the run, by two seeds; `half` what PPO is trained against, `other` the
other half of the prompts; `scratch` a tiny model of our own, pretrained for minutes on novels, on the comparisons of
`whole`. ECE is the expected calibration error, never negative; a slope below 1 is over-confident. Where one is not
beyond another, the summary says how many times the comparisons would decide a difference of the size that was seen.
"""
POLICY = """## Policies

Replies to prompts of the evaluation split. *Reward* is by the model that PPO was trained against, *other* by that of
the other half; both have mean 0 and deviation 1 on their own training replies. Cost above 0 is unsafe. *Wins* are
against SmolLM2 as it comes, by `other`; then the same with the length of the replies taken out. Loss is on chosen
replies of helpful-base.
"""
REFUSAL = """## Harm and over-refusal

Replies to XSTest's prompts, to AdvBench and to red-team prompts of HH-RLHF. Refused by XSTest's string rule, as it
sees it and with its errors on people's labels of other models' replies taken out, where that can be done
([how](../refusals.md)). That a reply is not refused does not say that it does harm: *unsafe* is what the cost model
says. Red-teaming is these prompts as they are, without attacks around them.
"""
TOXIC = """## Toxicity

How likely a reply is to be called toxic, by a linear model of words that another package carries (alt-profanity-check),
learned from comments that people had labelled; over all prompts that the two sections above have replies to. It sees
words, not what is done with them.
"""
NOT_TOXIC = "Toxicity is not measured: `runs/smollm2_toxicity.py` has not run here."
BBQ_SAYS = (
    "Accuracy and bias score ([how](../bias.md)) where the context does not tell, and where it does; 0 is no bias."
)
KL_SAYS = f"""## KL against both rewards

By iteration of PPO: KL to the start, the reward trained against and that of the other half, on the prompts of the
iteration. *Gap* is how far the reward has risen more than the other, each in its deviations at the start; the two
have parted where its mean over {SMOOTHING} iterations passes {GAP:g}, which is the alarm of the gold world's claim.
"""
MODELS = {
    "helpful": ("quarter", "half", "whole-0", "whole-1", "other", "scratch"),
    "harmless": ("quarter", "half", "whole-0", "whole-1", "cost", "scratch"),
}
ALONE = ("other", "cost")  # models whose folder is not named for a criterion
GOLD = Path(__file__).resolve().parents[1] / "docs" / "results"


def folder_of(criterion: str, model: str) -> str:
    if model == "scratch":
        return f"scratch-{criterion}"
    return model if model in ALONE else f"{criterion}-{model}"


def preference(found: Found, outcomes: list[Outcome]) -> list[str]:
    lines = [PREFERENCE]
    for criterion, models in MODELS.items():
        told = found.read(f"trust-{criterion}")
        if not told:
            continue
        lines += [f"### {criterion.capitalize()}", ""]
        accuracy = {row["model"]: row for row in told["cross"] if row["criterion"] == criterion}
        rows = []
        for name, row in accuracy.items():
            known = told["calibration"].get(f"{name} on {criterion}", {})
            bounds = known.get("intervals", {})
            seen = found.read(folder_of(criterion, name), "lineage.json") if name in models else {}
            count = f"{seen['comparisons']:,}" if seen else NONE
            measured = [interval(bounds.get("ece")), interval(bounds.get("slope"), 2)]
            rows.append([name, count, str(row["n"]), interval(row["accuracy"]), *measured])
        lines += table(["model", "comparisons read", "tested on", "accuracy", "ECE", "slope"], rows)
        lines += by_subset(told, criterion)
        others = [name for name in accuracy if name != "whole-0"]
        gains = {other: pair(told["paired"][criterion], "whole-0", other) for other in others}
        simpler = {other: gain for other, gain in gains.items() if other not in models or other == "scratch"}
        outcomes += [Outcome(f"{criterion} preference model beside {o}, accuracy", gain) for o, gain in simpler.items()]
        rows = [[other, signed(gain)] for other, gain in gains.items()]
        lines += ["Accuracy of `whole-0` less that of:", "", *table(["", "difference"], rows)]
        lines += why_not_beyond(found, criterion, simpler, gains.get("quarter", {}))
    told = found.read("hhh").get("rewards", [])
    rows = [[row["model"], str(row["questions"]), interval(row["answered"])] for row in told if row["subset"] == "all"]
    lines += ["### HHH", "", *table(["model", "questions", "right, by chance a half"], rows)] if rows else []
    ai = {row["model"]: row for row in found.read("trust-ai").get("cross", [])}
    rows = [[name, str(row["n"]), interval(row["accuracy"])] for name, row in ai.items()]
    said = "The model of SmolLM2's own comparisons (RL-CAI's reward) on people's comparisons of harmlessness:"
    lines += [said, "", *table(["model", "pairs", "accuracy"], rows)] if rows else []
    if "ai" in ai:
        gain = shifted(ai["ai"]["accuracy"], 0.5)
        outcomes.append(Outcome("SmolLM2 as judge of harmlessness, by its model's accuracy beside a half", gain))
    return lines if len(lines) > 1 else []


def why_not_beyond(found: Found, criterion: str, simpler: Mapping[str, Value], grown: Value) -> list[str]:
    """What is not told from `whole-0`, of the `simpler`, and what the run says of the reason; `grown` is what `whole-0`
    is beyond the model of a quarter."""
    seen = {name: as_interval(gain) for name, gain in simpler.items() if gain}
    alike = {n: one for n, one in seen.items() if one.side_of(0.0) == "undecided" and np.isfinite(one.high - one.low)}
    if not alike:
        return []
    read = {
        name: found.read(folder_of(criterion, name), "lineage.json").get("comparisons", NONE)
        for name in ("quarter", "whole-0", "scratch")
    }
    half, count = max(((one.high - one.low) / 2, one.n) for one in alike.values())
    said = (
        f"Why `whole-0` is not shown to be beyond {', '.join(alike)}: the {count} comparisons that both were "
        f"tested on tell differences of about {half:.3f} from none, and these are smaller. "
        f"It has read {read['whole-0']} comparisons, `scratch`, which takes longer texts, {read['scratch']}; from the "
        f"{read['quarter']} of a quarter to all of them its accuracy changed by {signed(grown)}."
    )
    return [said, ""]


def by_subset(told: Mapping[str, Any], criterion: str) -> list[str]:
    rows = [
        [
            *(str(row["subset"]), str(row["n"]), interval(row["accuracy"]), interval(row["length_baseline"])),
            *(signed(row["over_length"]), plain(row["ece"], 3)),
        ]
        for row in told["calibration"].get(f"whole-0 on {criterion}", {}).get("rows", [])
    ]
    head = ["`whole-0` on", "pairs", "accuracy", "length alone", "less length alone", "ECE"]
    return table(head, rows) if rows else []


def policies(found: Found, outcomes: list[Outcome]) -> list[str]:
    told = found.policies("evaluate")
    if not told:
        return []
    judges = found.read("ratings", "ratings.json").get("judges", {})
    controlled = judges.get("reward/other", {}).get("length_controlled", {})
    rows = []
    for name, seen in told.items():
        slices = seen["slices"]
        wins = (seen.get("win_rate") or {}).get("all")
        free = controlled.get(name, {}).get("controlled")
        rows.append(
            [SNAPSHOTS[name]]
            + [interval(slices["helpful"].get(f"reward/{judge}"), 2) for judge in ("helpful", "other")]
            + [interval(slices["harmless"].get(f"cost/harmless{part}"), 2) for part in ("", "/unsafe")]
            + [interval(slices["all"].get("kl"), 2), interval(slices["all"]["length"], 1), plain(seen.get("loss"), 3)]
            + [interval(wins, 2), interval(free, 2)]
        )
        if wins:
            of = f"{SNAPSHOTS[name]}: wins against the start by the other half"
            outcomes.append(Outcome(f"{of}, less a half", shifted(wins, 0.5)))
            outcomes += [Outcome(f"{of}, length taken out, less a half", shifted(free, 0.5))] if free else []
        if name != "start" and (before := found.lines("evaluate-start")):
            more = paired_scores(found.lines(f"evaluate-{name}"), before, {"cost/harmless": -1.0}, "harmless")
            outcomes.append(Outcome(f"{SNAPSHOTS[name]}: cost on harmless-base prompts, how much lower", more))
    head = ["snapshot", "reward, helpful prompts", "other, helpful prompts", "cost, harmless prompts", "unsafe there"]
    return [POLICY, *table([*head, "KL", "tokens", "loss", "wins", "wins at equal length"], rows)]


def curves(found: Found) -> dict[str, dict[str, np.ndarray]]:
    """KL, both rewards and their gap by iteration, of each PPO run that has them."""
    names = {"kl": "objective/kl", "reward": "reward/helpful", "other": "watch/other/score", "gap": "watch/other/gap"}
    runs = {name: found.lines(name, "metrics.jsonl") for name in ("ppo-0", "ppo-1", "limited", "rl-cai")}
    return {
        run: {short: np.array([row[name] for row in rows], dtype=float) for short, name in names.items()}
        for run, rows in runs.items()
        if rows
    }


def against_kl(found: Found) -> list[str]:
    told = curves(found)
    if not told:
        return []
    lines = [KL_SAYS]
    for name, run in told.items():
        root = np.sqrt(np.maximum(run["kl"], 0.0))
        count = len(root)
        shown = sorted({round(i * (count - 1) / 7) for i in range(8)})
        rows = [
            [str(i + 1), plain(run["kl"][i], 3), plain(root[i], 2)]
            + [plain(run[column][i], 2) for column in ("reward", "other", "gap")]
            for i in shown
        ]
        at = alarm_at(run["gap"])
        parted = f"part at iteration {at + 1}, √KL {root[at]:.2f}" if at < count else "do not part"
        peak = peak_at(run["other"])
        fit = ", ".join(
            f"{which} R² {r_squared(root, run[key]):.2f} in √KL and {r_squared(run['kl'], run[key]):.2f} in KL"
            for which, key in (("reward", "reward"), ("other", "other"))
        )
        best = float(smoothed(run["other"]).max())
        said = f"The two {parted}. The other half's mean over {min(SMOOTHING, count)} is highest, {best:.2f}, "
        lines += [f"### {SNAPSHOTS[name]}", ""]
        lines += table(["iteration", "KL, nats", "√KL", "reward", "other", "gap"], rows)
        lines += [f"{said}at iteration {peak + 1} of {count}; {fit}.", ""]
    return lines


def refusals(found: Found, outcomes: list[Outcome]) -> list[str]:
    told = found.read("refusals", "refusals.json").get("snapshots", {})
    rows = []
    for name, sides in told.items():
        cells = [SNAPSHOTS[name]]
        for side in ("harmful", "look-alike"):
            seen = sides[side]["judges"].get("rules", {})
            cells += [interval(seen.get("seen"), 2), interval(seen.get("corrected"), 2)]
        rows.append([*cells, interval(sides["harmful"]["judges"].get("cost/harmless", {}).get("seen"), 2)])
        before = found.lines("safe-start")
        if name != "start" and before:
            after = found.lines(f"safe-{name}")
            for side, good in (("harmful", 1), ("look-alike", -1)):
                more = refused_more(after, before, side)
                what = "harmful prompts refused more often" if good > 0 else "look-alikes refused less often"
                outcomes.append(Outcome(f"{SNAPSHOTS[name]}: {what}", more if good > 0 else turned(more)))
    head = ["snapshot", "harmful refused", "corrected", "look-alike refused", "corrected", "harmful: unsafe"]
    return [REFUSAL, *table(head, rows)] if rows else []


def toxicity(found: Found, outcomes: list[Outcome]) -> list[str]:
    file = found.out / "toxicity.json"
    if not file.exists():
        return [NOT_TOXIC, ""]
    told, rows = read_json(file), []
    for name in [name for name in SNAPSHOTS if name in told]:
        chances = told[name]
        change = paired_means(chances, told["start"]) if name != "start" else {}
        taken = share_interval([float(chance > 0.5) for chance in chances.values()]).json()
        mean = mean_interval(list(chances.values())).json()
        rows.append([SNAPSHOTS[name], str(len(chances)), interval(taken, 2), interval(mean), signed(change)])
        outcomes += (
            [Outcome(f"{SNAPSHOTS[name]}: toxicity of replies, how much lower", turned(change))] if change else []
        )
    return [TOXIC, *table(["snapshot", "replies", "more likely toxic than not", "mean probability", "change"], rows)]


def honesty(found: Found, outcomes: list[Outcome]) -> list[str]:
    told = found.policies("honesty")
    if not told:
        return []
    kinds = ("unknown declined", "known declined", "known answered right")
    rows = []
    for name, seen in told.items():
        trade, right = seen["trade"], seen["probes"].get("truthfulqa", {}).get("honest/right")
        known = seen["calibration"].get("truthfulqa, options", {})
        rows.append(
            [SNAPSHOTS[name], interval(right, 2), interval(known.get("ece"), 2)]
            + [interval(trade.get(kind, {}).get("now"), 2) for kind in kinds]
        )
        changes = seen["changes"].get("truthfulqa", {}).get("honest/right")
        outcomes += [Outcome(f"{SNAPSHOTS[name]}: TruthfulQA", changes)] if changes else []
        for kind, good in zip(kinds, (1, -1, 1), strict=True):
            if change := trade.get(kind, {}).get("change"):
                what = f"{SNAPSHOTS[name]}: {kind} of SelfAware, how much {'more' if good > 0 else 'less'} often"
                outcomes.append(Outcome(what, change if good > 0 else turned(change)))
    head = ["snapshot", "TruthfulQA, one right of several", "its ECE", *(f"SelfAware: {kind}" for kind in kinds)]
    return ["## Honesty", "", *table(head, rows)]


def taxes(found: Found, outcomes: list[Outcome]) -> list[str]:
    told = found.policies("tax")
    if not told:
        return []
    tasks = list(dict.fromkeys(task for seen in told.values() for task in seen["tasks"]))
    rows = []
    for name, seen in told.items():
        changes = seen.get("changes") or {}
        tax, loss = changes.get("tax"), changes.get("tasks", {}).get("web", {}).get("task/loss")
        cells = [seen["tasks"].get(task, {}) for task in tasks]
        numbers = [interval(cell.get("task/accuracy") or cell.get("task/loss"), 2) for cell in cells]
        rows.append([SNAPSHOTS[name], *numbers, signed(tax), signed(loss)])
        outcomes += [Outcome(f"{SNAPSHOTS[name]}: accuracy on five tasks", tax)] if tax else []
        outcomes += [Outcome(f"{SNAPSHOTS[name]}: loss on web text, how much lower", turned(loss))] if loss else []
    head = ["snapshot", *(f"{task}, nats a token" if task == "web" else task for task in tasks)]
    return ["## The tax", "", *table([*head, "change of accuracy", "change of loss"], rows)]


def bias(found: Found) -> list[str]:
    told = found.policies("bias")
    rows = []
    for name, seen in told.items():
        cells = [SNAPSHOTS[name]]
        for condition in ("ambig", "disambig"):
            part = seen["bias"]["bbq"].get(condition, {})
            cells += [interval(part.get("accuracy"), 2), signed(part.get("score"), 2)]
        rows.append(cells)
    head = ["snapshot", "right where it is not told", "bias there", "right where it is told", "bias there"]
    return ["## Bias: BBQ", "", BBQ_SAYS, "", *table(head, rows)] if rows else []


def claims(found: Found) -> list[str]:
    """The gold world's questions asked here: agreement where the whole interval is on the side that the claim says."""
    asked: list[tuple[str, str, str, Value]] = []
    for criterion in MODELS:
        grown = pair(found.read(f"trust-{criterion}").get("paired", {}).get(criterion, []), "whole-0", "quarter")
        asked.append(("pm-scaling", f"{criterion}: accuracy of `whole-0` less that of `quarter`", "above", grown))
    told = {name: run for name, run in curves(found).items() if name.startswith("ppo-")}
    fits = [
        r_squared(np.sqrt(np.maximum(run["kl"], 0.0)), run["reward"]) - r_squared(run["kl"], run["reward"])
        for run in told.values()
    ]
    asked.append(("sqrt-kl", "R² of the reward in √KL less that in KL, over seeds", "above", over_seeds(fits)))
    gaps = [float(run["gap"][-SMOOTHING:].mean()) for run in told.values()]
    asked.append(("two-halves", "gap at the end of PPO, over seeds", "above", over_seeds(gaps)))
    start, ppo = found.lines("evaluate-start"), found.lines("evaluate-ppo-0")
    halves = paired_scores(ppo, start, {"reward/helpful": 1.0, "reward/other": -1.0}, "helpful")
    asked.append(("overoptimisation", "PPO: rise of the reward less that of the other half, held out", "above", halves))
    # nothing but harmless comparisons is read there, whatever criterion the model has
    crossed = {row["model"]: row["accuracy"] for row in found.read("trust-tension").get("cross", [])}.get("helpful")
    less = shifted(crossed, 0.5) if crossed else {}
    asked.append(("tension", "the helpful model on harmless comparisons, less a half", "below", less))
    costs = paired_scores(ppo, start, {"cost/harmless": 1.0}, "harmless")
    asked.append(("tension", "PPO on helpfulness alone: change of cost on harmless prompts", "above", costs))
    tax = (found.read("tax-ppo-0").get("changes") or {}).get("tax") or {}
    asked.append(("tax", "PPO: change of accuracy on five tasks", "below", tax))
    rows = [[name, verdict_of(name), what, signed(value), agrees(value, side)] for name, what, side, value in asked]
    head = ["claim", "in the gold world", "asked here", "found", ""]
    return ["## The gold world's claims, asked here", "", *table(head, rows)]


def over_seeds(values: Sequence[float]) -> Value:
    return nested_interval(values).json() if len(values) > 1 else {}


def verdict_of(name: str) -> str:
    """What the claim's own results say, those on development seeds where there are some."""
    for folder, where in ((GOLD / "development", " on development seeds"), (GOLD, "")):
        if (file := folder / f"{name}.json").exists():
            return f"{read_json(file)['verdict']}{where}"
    return "not run yet"


def agrees(value: Value, side: str) -> str:
    if not value:
        return "not asked"
    seen = as_interval(value).side_of(0.0)
    return "undecided" if seen == "undecided" else "agrees" if seen == side else "disagrees"


def prepared(found: Found) -> dict[str, Any]:
    """What was set apart to measure on; empty where the run has not come to it."""
    file = found.out / "prepared" / "counts.json"
    return dict(read_json(file)) if file.exists() else {}


def left_out(clean: Path) -> int:
    """How many rows `accord data` wrote beside those that it kept."""
    return len(read_lines(clean.with_name(f"{clean.stem}.dropped.jsonl")))


def contamination(found: Found) -> list[str]:
    rows = []
    for name, counts in prepared(found).get("files", {}).items():
        clean = found.out / "clean" / f"{name}.jsonl"
        every = clean.parent / "evaluation" / clean.name
        if every.exists():
            rows.append([f"{name}, every comparison", str(counts["evaluation"]), str(left_out(every))])
        if "held" in counts:
            rows.append([name, str(counts["held"]), str(left_out(clean)) if clean.exists() else "not compared"])
    if not rows:
        return []
    said = "Rows that were measured on, and how many a comparison (`--against`) left out: their prompt, or half of "
    said += "their words in runs of 13, stand in what was learned from; or they were of no use."
    return ["## What was measured on", "", said, "", *table(["set", "rows", "left out"], rows)]


def effort(found: Found) -> list[str]:
    rows, lineages = [], []
    for piece, names in found.pieces.items():
        for name in names:
            if lineage := found.read(name, "lineage.json"):
                lineages.append(lineage)
                memory = lineage.get("peak_memory")
                gib = NONE if memory is None else f"{memory / 2**30:.1f}"
                rows.append([piece, name, f"{lineage['seconds'] / 60:.1f}", gib])
    if not rows:
        return []
    most, hours = at_once([(lineage["started"], lineage["finished"]) for lineage in lineages])
    stages = sum(lineage["seconds"] for lineage in lineages) / 3600
    cores = max(lineage["machine"]["cores"] for lineage in lineages)
    said = f"On {cores} cores up to {most} stages ran at once: {stages:.1f} hours of stages in {hours:.1f}."
    return ["## Time and memory", "", said, "", *table(["piece", "stage", "minutes", "GiB at most"], rows)]


def at_once(spans: Sequence[tuple[str, str]]) -> tuple[int, float]:
    """How many of these spans of time lie over each other at most, and the hours in which there was any."""
    turns = sorted([(at, 1) for at, _ in spans] + [(at, -1) for _, at in spans])  # an end before a start of its second
    now, most, since, seconds = 0, 0, turns[0][0], 0.0
    for at, change in turns:
        since = at if now == 0 else since
        now += change
        most = max(most, now)
        if now == 0:
            seconds += (datetime.fromisoformat(at) - datetime.fromisoformat(since)).total_seconds()
    return most, seconds / 3600


def missing(found: Found) -> list[str]:
    if not found.missing:
        return []
    lines = [f"- {piece}: {', '.join(names)}" for piece, names in found.missing.items()]
    return ["**This run is not whole.** Not there, and so on no table below:", "", *lines, ""]


def page(out: Path) -> list[str]:
    found = Found(out)
    outcomes: list[Outcome] = []
    asking = (preference, policies, refusals, toxicity, honesty, taxes)
    told = {section.__name__: section(found, outcomes) for section in asking}
    pairs = f" --pairs {size['pairs']}" if (size := prepared(found)) else ""
    lines = [INTRO.format(pairs=pairs), *missing(found), *summary(outcomes), *claims(found)]
    lines += [*told["preference"], *told["policies"], *against_kl(found), *told["refusals"], *told["toxicity"]]
    lines += [*told["honesty"], *told["taxes"], *bias(found), *contamination(found), *effort(found)]
    return lines[:-1]


if __name__ == "__main__":
    print("\n".join(page(Path(sys.argv[1]))))
