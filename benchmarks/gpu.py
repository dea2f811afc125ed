"""G1–G7: the same tasks on one GPU, in bf16. Without one they run at `--size toy` on a CPU, and have no figures.

Sizes are of random weights. Peaks are those of an H100 or H200; rates that a bound is made of are measured in the run.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks import cases, equality
from benchmarks.cases import Plan, against
from benchmarks.harness import OURS, Case, Job, Measure, Options, Result, at_least, at_most, extra_memory
from benchmarks.workloads import equal_items, equal_prompts, fixed_replies, hh_items

PEAK = 989e12  # bf16 FLOP/s of an H100's tensor cores, dense
# shares of the measured GEMM and copy rates that a good implementation reaches (facts of peers, docs/engine.md)
PREFILL, SCORE, TRAIN, DECODE = 0.6, 0.55, 0.45, 0.7


def gpu(plan: Plan) -> list[Case]:
    """Every goal's cases, at 0.5B parameters or as a toy."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    big = replace(plan, size="toy" if plan.toy else "0.5B", device=device)
    # in order of worth: what is wrong comes before what is slow, and time may end
    found = [*paths(big), *mfu(big), *generation(big), *preferences(big), *iteration(big), *adapters(big)]
    found += [*memory(big), *group(big)]
    return [replace(case, needs="cuda") for case in found]


PATHS = {  # relative error that rounding of the inputs explains
    "varlen bfloat16 64": 1e-2,
    "varlen bfloat16 128": 1e-2,
    "flex bfloat16 64": 1e-2,
    "flex float32 64": 1e-3,
    "tiled log-probs": 1e-4,
    "graphs float32": 1e-4,
    "graphs bfloat16": 2e-2,
}


def paths(plan: Plan) -> list[Case]:
    """What only a GPU runs, beside plain products and plain steps."""

    def error(name: str) -> Callable[[Result, Result], float]:
        return lambda ours, _: float(ours[name])

    measures = [Measure(at_most(bound, "of the norm"), error(name), f", {name}") for name, bound in PATHS.items()]
    job = Job(OURS, "paths", plan.options())
    return [
        Case("paths", plan.workload(hh_items(8, plan.vocab)), job, None, lambda pair: pair.ours[0]["notes"], measures)
    ]


def mfu(plan: Plan) -> list[Case]:
    """G1: packed SFT, share of the peak that the model's own products take."""
    items = hh_items(64 * plan.steps, plan.vocab)
    job = Job(OURS, "sft", plan.options(batch_size=64, micro_tokens=16384, bf16=True))
    share = [Measure(at_least(0.38, "of peak"), share_of_peak)]
    return [Case("G1 packed SFT", plan.workload(items), job, None, equality.alone, share)]


def share_of_peak(ours: Result, _: Result) -> float:
    """6 FLOP per trunk parameter and token and per head parameter and row, over the time and the peak.

    Attention's own products, and what is computed twice, count for nothing.
    """
    flop = 6 * (ours["trunk_parameters"] * ours["num_tokens"] + ours["head_parameters"] * ours["num_rows"])
    return float(flop / statistics.median(ours["seconds"]) / PEAK)


def preferences(plan: Plan) -> list[Case]:
    """G2: DPO on HH pairs and on equal lengths without prompt; preference models."""
    pairs = hh_items(32 * plan.steps, plan.vocab)
    equal = equal_items(32 * plan.steps, plan.vocab, length=128)
    more: Options = {"batch_size": 32, "bf16": True, "micro_tokens": 32768}
    return [
        against(plan, "dpo", "G2 DPO, HH pairs", pairs, at_least(3), **more),
        against(plan, "dpo", "G2 DPO, equal lengths without prompt", equal, at_least(1.15), **more),
        against(plan, "preference", "G2 preference model, HH pairs", pairs, at_least(2.5), **more),
    ]


def memory(plan: Plan) -> list[Case]:
    """G3: DPO with a vocabulary of 128k, against the same with all logits at once, and against the peer's head."""
    (versus_peer,) = cases.dpo_vocab(plan)
    assert versus_peer.theirs is not None
    full = Job(OURS, "dpo", {**versus_peer.ours.options, "all_logits": True})
    less = [Measure(at_most(0.5), extra_memory, ", extra memory")]
    peers = [Measure(at_most(1.0), extra_memory, ", extra memory")]
    return [
        replace(versus_peer, name="G3 V = 128k, over all logits at once", theirs=full, measures=less),
        replace(versus_peer, name="G3 V = 128k, over the peer", measures=peers),
    ]


def generation(plan: Plan) -> list[Case]:
    """G4: against `generate`, B = 64; and B = 128 against the bytes that each step must read."""
    limit = 16 if plan.toy else 512
    few = {"greedy_tokens": 8, "repeats": 1, "stop_ids": [], "max_new_tokens": limit, "bf16": True}
    options: Options = {**few, "device": plan.device}
    versus = Job(OURS, "generation", options), Job(cases.TRL, "generation", options)
    alone = Job(OURS, "generation", {**options, "rates": True})
    many, more = (equal_prompts(count, plan.vocab, length=64) for count in (64, 128))
    times, share = Measure(at_least(5), cases.faster), Measure(at_least(0.6, "of the byte bound"), share_of_bytes)
    return [
        Case("G4 generation, B = 64", plan.workload(many), *versus, equality.greedy, [times]),
        Case("G4 generation, B = 128", plan.workload(more), alone, None, equality.alone, [share]),
    ]


def share_of_bytes(ours: Result, _: Result) -> float:
    """Time to read the weights once a step and every row's keys and values, over the time it took."""
    read = 2 * ours["parameters"] / ours["rows"] + ours["mean_context"] * ours["cache_bytes"]
    return float(read / ours["copy"] / statistics.median(ours["seconds"]))


def group(plan: Plan) -> list[Case]:
    """G5: the cases of C6 on the GPU."""
    return [replace(case, name=f"G5 {case.name}") for case in cases.group(plan)]


def iteration(plan: Plan) -> list[Case]:
    """G6: a PPO iteration against the bound that the run's own GEMM and copy rates give; and its worst stage."""
    options = cases.drawing(plan, method="gae", batch_size=4 if plan.toy else 64, epochs=1, rates=True, bf16=True)
    items = fixed_replies(options["batch_size"] * plan.steps, plan.vocab, replies=1, length=options["max_new_tokens"])
    measures = [
        Measure(at_most(1.5), lambda ours, _: over_bound(ours)["iteration"]),
        Measure(at_most(1.8), lambda ours, _: max(over_bound(ours).values()), ", its worst stage"),
    ]
    job = Job(OURS, "stages", options)
    return [Case("G6 PPO iteration over its bound", plan.workload(items), job, None, equality.alone, measures)]


def over_bound(ours: Result) -> dict[str, float]:
    """Seconds of every stage and of the iteration over their bounds."""
    bounds = lower_bounds(ours)
    parts = {name: statistics.median(part[name] for part in ours["parts"]) for name in ours["parts"][0]}
    scoring = sum(seconds for name, seconds in parts.items() if name not in ("sampling", "update"))
    found = {"sampling": parts["sampling"], "scoring": scoring, "update": parts["update"]}
    found["iteration"] = statistics.median(ours["whole"])
    return {name: seconds / bounds[name] for name, seconds in found.items()}


def lower_bounds(work: Mapping[str, float]) -> dict[str, float]:
    """Seconds that sampling, scoring and update need at least, for models of one size.

    Sampling: prefill 2 N per prompt token, then a step per token that reads the weights and the cache. A scoring pass:
    2 N per token. Update: 6 N per token, model and epoch. N counts the head, which only some passes have.
    """
    n, tokens = work["parameters"], work["prompt_tokens"] + work["reply_tokens"]
    length = work["reply_tokens"] / work["replies"]
    context = work["prompt_tokens"] / work["replies"] + length / 2
    read = 2 * n + work["replies"] * context * work["cache_bytes"]
    sampling = 2 * n * work["prompt_tokens"] / (PREFILL * work["gemm"]) + length * read / (DECODE * work["copy"])
    scoring = work["scoring_passes"] * 2 * n * tokens / (SCORE * work["gemm"])
    update = work["training_passes"] * work["epochs"] * 6 * n * tokens / (TRAIN * work["gemm"])
    return {"sampling": sampling, "scoring": scoring, "update": update, "iteration": sampling + scoring + update}


def adapters(plan: Plan) -> list[Case]:
    """G7: constrained PPO by LoRA, critics on the policy's trunk, against LoRA SFT with as many tokens in memory."""
    common: Options = {"lora_rank": 16, "bf16": True, "micro_tokens": 8192, "batch_size": 4 if plan.toy else 64}
    options = cases.drawing(plan, method="gae", limited=True, critic="shared", **common)
    items = fixed_replies(options["batch_size"] * plan.steps, plan.vocab, replies=1, length=options["max_new_tokens"])
    over = [Measure(at_most(1.35), lambda ours, theirs: float(ours["peak_mib"] / theirs["peak_mib"]), ", peak memory")]
    jobs = Job(OURS, "ppo", options), Job(OURS, "sft", plan.options(**common))
    return [Case("G7 LoRA PPO with a limit over LoRA SFT", plan.workload(items), *jobs, equality.alone, over)]
