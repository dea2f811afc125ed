"""The benchmarks themselves: each makes its workloads, runs the sides, and gives rows."""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    OURS,
    Pair,
    Result,
    interleave,
    machine,
    peer,
    row,
    spread,
    training_equality,
)
from benchmarks.workloads import FIRST, SIZES, equal_items, hh_items, write_workload

TRL = ("ACCORD_BENCH_TRL", "trl==1.16.0", "peer_trl.py")


@dataclass(frozen=True)
class Plan:
    """How much of it: rounds of both sides, timed steps, the model's size."""

    rounds: int = 5
    steps: int = 12
    size: str = "9M"
    vocab: int = 8192


Versions = dict[str, str]
Rows = list[Result]


def sft(plan: Plan) -> tuple[Rows, Versions]:
    """C1: supervised fine-tuning, loss on replies alone, batch 8."""
    return compare(
        plan,
        "sft",
        [
            ("HH lengths, f32", hh_items(8 * plan.steps, plan.vocab), {}, "3x"),
            ("HH lengths, bf16", hh_items(8 * plan.steps, plan.vocab), {"bf16": True}, "3.5x"),
        ],
    )


def preference(plan: Plan) -> tuple[Rows, Versions]:
    """C2: a preference model on pairs, batch 8."""
    return compare(plan, "preference", [("HH pairs, f32", hh_items(8 * plan.steps, plan.vocab), {}, "2.5x")])


def ranking(plan: Plan) -> tuple[Rows, Versions]:
    """C2: rankings of four; the peer is fed all six pairs of each, so its batch is six times ours."""
    items = hh_items(4 * plan.steps, plan.vocab, replies=4)
    return compare(plan, "ranking", [("HH rankings of 4, f32", items, {"batch_size": 4, "peer_batch_size": 24}, "4x")])


def dpo(plan: Plan) -> tuple[Rows, Versions]:
    """C3: DPO, batch 8; the reference at every step and precomputed; and the worst case for packing."""
    pairs = hh_items(8 * plan.steps, plan.vocab)
    equal = equal_items(8 * plan.steps, plan.vocab, length=128)
    return compare(
        plan,
        "dpo",
        [
            ("HH pairs, f32, reference at every step", pairs, {}, "5x"),
            ("HH pairs, f32, reference precomputed on both sides", pairs, {"cached": True}, "6x"),
            ("HH pairs, bf16, reference at every step", pairs, {"bf16": True}, "6x"),
            ("equal lengths without prompt, f32", equal, {}, "1.0x"),
        ],
    )


def dpo_vocab(plan: Plan) -> tuple[Rows, Versions]:
    """C4: a vocabulary of 128k; memory is what the run adds to the loaded model."""
    vocab = 131072 if plan.size != "toy" else 2048
    few = Plan(plan.rounds, min(plan.steps, 7), plan.size, vocab)
    items = hh_items(4 * few.steps, vocab)
    return compare(few, "dpo", [(f"HH pairs, V = {vocab}, f32", items, {"batch_size": 4}, "8x; memory 0.35x")])


def generation(plan: Plan) -> tuple[Rows, Versions]:
    """C5: against `generate`; CPU-seconds per token drawn, stop sets that give replies of HH's mean length."""
    toy = plan.size == "toy"
    limit = 16 if toy else 128
    stops = list(range(FIRST, FIRST + plan.vocab // 58))
    settings = {"greedy_tokens": 8 if toy else 32, "repeats": 1 if toy else 2}
    rows: Rows = []
    versions: Versions = {}
    for case, items, more, goal in (
        ("fixed lengths, B = 8", equal_prompts(8, plan.vocab), {"stop_ids": [], "max_new_tokens": limit}, "2x"),
        ("fixed lengths, B = 64", equal_prompts(64, plan.vocab), {"stop_ids": [], "max_new_tokens": limit}, "2x"),
        (
            "HH prompts, replies that end, B = 64",
            hh_items(64, plan.vocab),
            {"stop_ids": stops, "max_new_tokens": 2 * limit},
            "5x",
        ),
    ):
        found, versions = measure(plan, "generation", case, items, {**settings, **more}, goal, greedy_equality)
        rows.append(found)
    return rows, versions


def agreement(plan: Plan) -> tuple[Rows, Versions]:
    """N1: the log-probs that replies are sampled at, against those of the training forward."""
    with tempfile.TemporaryDirectory() as folder:
        write_workload(
            Path(folder),
            hh_items(32, plan.vocab),
            vocab=plan.vocab,
            size=SIZES[plan.size],
            options={"max_new_tokens": 64},
        )
        gaps = OURS.run("agreement", Path(folder))
    rows = [
        row(
            f"mean abs Δlogp, {precision}, largest ratio {gaps[precision]['max_ratio']:.4g}",
            None,
            {"holds": gaps[precision]["mean"] <= bound, "mean_gap": gaps[precision]["mean"]},
            f"≤ {bound:g}",
        )
        for precision, bound in (("f32", 1e-5), ("bf16", 2e-3))
    ]
    return rows, gaps["versions"]


def group(plan: Plan) -> tuple[Rows, Versions]:
    """C6: group-relative policy gradient. The package has no such stage yet, so there is nothing to compare."""
    return [row("RLOO, n = 4, 64 tokens", None, "not run: no group-relative stage here", "4x")], {}


def gpu(plan: Plan) -> tuple[Rows, Versions]:
    """G1–G7: filled on a machine with a GPU; empty here."""
    goals = {
        "G1 share of peak, packed SFT": "≥ 0.38 at 0.5–1.5B",
        "G2 DPO against the peer": "3x",
        "G3 memory with a 128k vocabulary": "≤ 0.5x of full logits",
        "G4 generation against generate": "5x",
        "G5 group-relative against the peer": "4x",
        "G6 PPO iteration over its lower bound": "≤ 1.5x",
        "G7 LoRA PPO memory over LoRA SFT": "≤ 1.35x",
    }
    return [row(case, None, "not run: no GPU", goal) for case, goal in goals.items()], {}


def equal_prompts(count: int, vocab: int) -> list[Any]:
    return [{**item, "prompt": item["replies"][0]} for item in equal_items(count, vocab, length=64)]


def greedy_equality(pair: Pair) -> dict[str, Any]:
    """Both sides' likeliest tokens on the same prompts; near-ties may fall either way, so nearly all must agree."""
    ours, theirs = pair.ours[0]["greedy"], pair.theirs[0]["greedy"]
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    lengths = {side: round(statistics.mean(r["tokens"] for r in getattr(pair, side)), 1) for side in ("ours", "theirs")}
    return {
        "holds": sum(same) >= 0.75 * len(same),
        "equal_greedy_replies": f"{sum(same)}/{len(same)}",
        "tokens": lengths,
    }


def training_pair_equality(pair: Pair) -> dict[str, Any]:
    return training_equality(pair.ours[0], pair.theirs[0])


def compare(plan: Plan, task: str, cases: list[tuple[str, list[Any], dict[str, Any], str]]) -> tuple[Rows, Versions]:
    """Training steps of both sides on each case."""
    rows: Rows = []
    versions: Versions = {}
    for case, items, more, goal in cases:
        options = {"steps": plan.steps, "warm": 2, "batch_size": 8, "learning_rate": 1e-4, **more}
        if more.get("bf16") and not machine()["amx_bf16"]:
            rows.append(row(case, None, "not measurable on this machine: its CPU has no bf16 units (AMX)", goal))
            continue
        found, seen = measure(plan, task, case, items, options, goal, training_pair_equality)
        rows.append(found)
        versions |= seen
    return rows, versions


def measure(
    plan: Plan,
    task: str,
    case: str,
    items: list[Any],
    options: dict[str, Any],
    goal: str,
    equality: Callable[[Pair], dict[str, Any]],
) -> tuple[Result, Versions]:
    """One row: both sides in turn on one workload, or ours alone where the peer has no interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        write_workload(where, items, vocab=plan.vocab, size=SIZES[plan.size], options=options)
        theirs = peer(*TRL)
        print(f"{task}: {case}")
        if theirs is None:
            alone = OURS.run(task, where)
            seconds = spread(alone["seconds"])
            return row(case, None, "no peer to compare with", goal, seconds=seconds), alone["versions"]
        pair = interleave(task, where, OURS, theirs, plan.rounds)
        extra = memory(pair)
        found = row(case, pair.ratio, equality(pair), goal, seconds=spread(pair.ours[-1]["seconds"]), **extra)
        return found, {**pair.theirs[0]["versions"], **pair.ours[0]["versions"]}


def memory(pair: Pair) -> dict[str, Any]:
    """Our memory above the loaded model over the peer's, where both were measured."""
    if "extra_mib" not in pair.ours[0] or "extra_mib" not in pair.theirs[0]:
        return {}
    a, b = (statistics.median(r["extra_mib"] for r in side) for side in (pair.ours, pair.theirs))
    return {"memory": round(a / b, 3), "extra_mib": [round(a), round(b)]}


BENCHMARKS: dict[str, Callable[[Plan], tuple[Rows, Versions]]] = {
    "sft": sft,
    "preference": preference,
    "ranking": ranking,
    "dpo": dpo,
    "dpo-vocab": dpo_vocab,
    "generation": generation,
    "group": group,
    "agreement": agreement,
    "gpu": gpu,
}
