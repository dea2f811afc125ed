"""C1–C8 and N1: what is compared on a CPU. Each benchmark gives its cases; the harness runs them."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import equality
from benchmarks.harness import (
    OURS,
    TRL,
    TRL19,
    Case,
    Goal,
    Job,
    Measure,
    Options,
    Pair,
    Result,
    at_least,
    at_most,
    extra_memory,
    faster,
)
from benchmarks.workloads import (
    EOS,
    Item,
    Workload,
    equal_items,
    equal_prompts,
    fixed_replies,
    hh_items,
)

# both sides draw, and then take the workload's replies: of a few that end by chance, lengths differ too much
ENDING: Options = {"stop_ids": [EOS], "given": True}


@dataclass(frozen=True)
class Plan:
    """How much of it: rounds of both sides, steps of a run, the models' size, the device, a real model's directory."""

    rounds: int
    steps: int
    size: str
    device: str = "cpu"
    model: str = ""

    @property
    def toy(self) -> bool:
        return self.size == "toy"

    @property
    def vocab(self) -> int:
        if self.model:
            found: int = json.loads((Path(self.model) / "config.json").read_text())["vocab_size"]
            return found
        return 512 if self.toy else 8192

    def workload(self, items: Sequence[Item], vocab: int = 0) -> Workload:
        return Workload(items, vocab or self.vocab, self.size, self.model)

    def options(self, **more: Any) -> Options:
        """What every training task asks: of the steps, two are untimed."""
        base = {"steps": self.steps, "warm": 2, "batch_size": 8, "learning_rate": 1e-4, "device": self.device}
        return {**base, **more}


def against(
    plan: Plan, task: str, name: str, items: Sequence[Item], goal: Goal, *, needs: str = "", **more: Any
) -> Case:
    """Training steps of both sides on the same items; equal tokens, losses and gradients."""
    options = plan.options(**more)
    return Case(
        name,
        plan.workload(items),
        Job(OURS, task, options),
        Job(TRL, task, options),
        equality.training_bf16 if more.get("bf16") else equality.training,
        [Measure(goal, faster)],
        needs=needs,
    )


def sft(plan: Plan) -> list[Case]:
    """C1: loss on replies alone, batch 8. Against packing every step sees the same 8, or the packings would differ."""
    items = hh_items(8 * plan.steps, plan.vocab)
    return [
        against(plan, "sft", "HH lengths, f32", items, at_least(3)),
        against(plan, "sft", "HH lengths, bf16", items, at_least(3.5), needs="bf16", bf16=True),
        against(plan, "sft", "HH lengths, f32, the peer packs", hh_items(8, plan.vocab), at_least(2), packing=True),
    ]


def preference(plan: Plan) -> list[Case]:
    """C2: a preference model on pairs, batch 8."""
    return [against(plan, "preference", "HH pairs, f32", hh_items(8 * plan.steps, plan.vocab), at_least(2.5))]


def ranking(plan: Plan) -> list[Case]:
    """C2: rankings of four; the peer is fed all six pairs of each, so its batch is six times ours."""
    items = hh_items(2 * plan.steps, plan.vocab, replies=4)
    sizes: Options = {"batch_size": 2, "peer_batch_size": 12}
    return [against(plan, "preference", "HH rankings of 4, f32", items, at_least(4), **sizes)]


def dpo(plan: Plan) -> list[Case]:
    """C3: DPO, batch 8; the reference at every step and precomputed; and the worst case for packing."""
    pairs = hh_items(8 * plan.steps, plan.vocab)
    equal = equal_items(4 * plan.steps, plan.vocab, length=128)
    low: Options = {"needs": "bf16", "bf16": True}
    return [
        against(plan, "dpo", "HH pairs, f32, reference at every step", pairs, at_least(5)),
        against(plan, "dpo", "HH pairs, f32, reference precomputed", pairs, at_least(6), cached=True),
        against(plan, "dpo", "HH pairs, bf16, reference at every step", pairs, at_least(6), **low),
        against(plan, "dpo", "equal lengths without prompt, f32", equal, at_least(1.0), batch_size=4),
        against(plan, "dpo", "equal lengths without prompt, bf16", equal, at_least(1.5), batch_size=4, **low),
    ]


def dpo_vocab(plan: Plan) -> list[Case]:
    """C4: a vocabulary of 128k; memory is what the run adds to the loaded model."""
    vocab = 2048 if plan.toy else 131072
    options = plan.options(batch_size=2)
    return [
        Case(
            f"HH pairs, V = {vocab}, f32",
            plan.workload(hh_items(2 * plan.steps, vocab), vocab),
            Job(OURS, "dpo", options),
            Job(TRL, "dpo", options),
            equality.training,
            [Measure(at_least(8), faster), Measure(at_most(0.35), extra_memory, ", extra memory")],
        )
    ]


def generation(plan: Plan) -> list[Case]:
    """C5: against `generate`; seconds per token drawn, stop sets that give replies of HH's mean length."""
    limit = 16 if plan.toy else 128
    common = {"greedy_tokens": 8 if plan.toy else 32, "repeats": 1, "device": plan.device}

    def case(name: str, items: Sequence[Item], goal: Goal, limit: int, **more: Any) -> Case:
        options = {**common, "stop_ids": [], "max_new_tokens": limit, **more}
        jobs = Job(OURS, "generation", options), Job(TRL, "generation", options)
        return Case(name, plan.workload(items), *jobs, equality.greedy, [Measure(goal, faster)])

    return [
        case("fixed lengths, B = 8", equal_prompts(8, plan.vocab, length=64), at_least(2), limit),
        case("fixed lengths, B = 64", equal_prompts(64, plan.vocab, length=64), at_least(2), limit),
        case("HH prompts, HH replies' lengths, B = 64", hh_items(64, plan.vocab), at_least(5), 2 * limit, **ENDING),
    ]


def real(plan: Plan) -> list[Case]:
    """A real model (`--model DIRECTORY`): training with LoRA at HH lengths, and generation, with its own weights.

    Tokens are drawn from its vocabulary. Micro-batches are what a plan for its size gives (docs/engine.md).
    """
    pairs = hh_items(4 * plan.steps, plan.vocab)
    lora: Options = {"lora_rank": 16, "batch_size": 4, "micro_tokens": 768}

    def beside(task: str, name: str, goal: Goal, **more: Any) -> Case:
        case = against(plan, task, f"{name}, LoRA", pairs, goal, **lora, **more)
        return replace(case, measures=[*case.measures, *memory])

    def drawn(name: str, items: Sequence[Item], goal: Goal, limit: int, **more: Any) -> Case:
        options = {"greedy_tokens": 32, "repeats": 2, "device": plan.device, "stop_ids": []}
        options |= {"max_new_tokens": limit, **more}
        jobs = Job(OURS, "generation", options), Job(TRL, "generation", options)
        return Case(name, plan.workload(items), *jobs, equality.greedy, [Measure(goal, faster)])

    memory = [
        Measure(at_most(1.0), lambda ours, theirs: ours["peak_mib"] / theirs["peak_mib"], ", peak memory"),
        Measure(at_most(4.0, "GiB"), peak_gib, ", peak memory of ours"),
    ]
    return [
        beside("sft", "SFT", at_least(3)),
        beside("preference", "preference", at_least(3)),
        beside("dpo", "DPO, reference at every step", at_least(4)),
        beside("dpo", "DPO, reference precomputed", at_least(4), cached=True),
        *within_memory(plan, lora),
        every_role(plan, lora),
        roles_over_one(plan, lora),
        *(rank_over_one(plan, rows) for rows in (4, 16)),
        *as_planned(plan),
        drawn("generation, fixed lengths, B = 8", equal_prompts(8, plan.vocab, length=64), at_least(1.3), 64),
        drawn("generation, HH's lengths, B = 8", hh_items(8, plan.vocab), at_least(2), 128, **ENDING),
    ]


def peak_gib(ours: Result, _: Result) -> float:
    return float(ours["peak_mib"]) / 1024


def within_memory(plan: Plan, lora: Options) -> list[Case]:
    """What bounded memory costs in time, beside the same run without the bound; and a long text alone."""

    def case(name: str, task: str, items: Sequence[Item], bounded: Options, free: Options, *measures: Measure) -> Case:
        jobs = [Job(OURS, task, {**plan.options(**{**lora, **more}), "warm": 1}) for more in (bounded, free)]
        return Case(name, plan.workload(items), jobs[0], jobs[1], equality.training, measures)

    def peak(limit: float) -> Measure:
        return Measure(at_most(limit, "GiB"), peak_gib, ", peak memory")

    pairs = [item for item in hh_items(180, plan.vocab) if len(item["prompt"]) + sum(map(len, item["replies"])) <= 384]
    long, longest = (128, 256) if plan.toy else (2048, 8192)
    sixteen: Options = {"batch_size": 16}
    alone: Options = {"batch_size": 1, "micro_tokens": longest}
    text = equal_prompts(1, plan.vocab, length=longest - 1)
    return [
        case(
            "16 pairs of 384 tokens at most, preference: micro-batches of 768 tokens beside one of all",
            "preference",
            pairs[:160],
            sixteen,
            {**sixteen, "micro_tokens": 16 * 384},
            Measure(at_least(0.9), faster),
            peak(4),
        ),
        case(
            f"layers computed again beside kept, SFT of {long} tokens",
            "sft",
            equal_items(plan.steps, plan.vocab, length=long),
            {**alone, "recompute": "on"},
            alone,
            Measure(at_least(0.6), faster),
        ),
        Case(
            f"one conversation of {longest} tokens, SFT, layers computed again",
            plan.workload([{**text[0], "replies": [text[0]["prompt"]], "prompt": text[0]["prompt"][:1]}]),
            Job(OURS, "sft", {**plan.options(**lora), **alone, "recompute": "on", "steps": 2, "warm": 1}),
            None,
            equality.alone,
            [peak(6)],
        ),
    ]


def every_role(plan: Plan, lora: Options) -> Case:
    """Constrained PPO by LoRA: policy, reference, preference model, cost model and both critics on one base."""
    options = drawing(plan, **lora, method="gae", limited=True, critic="shared", one_base=True)
    options |= {"batch_size": 16, "steps": 2, "max_new_tokens": 8 if plan.toy else 48}
    items = fixed_replies(32, plan.vocab, replies=1, length=options["max_new_tokens"])
    name = f"PPO with a limit, every role by LoRA on one base, 16 replies of {options['max_new_tokens']} tokens"
    measure = Measure(at_most(5, "GiB"), peak_gib, ", peak memory")
    return Case(name, plan.workload(items), Job(OURS, "ppo", options), None, equality.alone, [measure])


def roles_over_one(plan: Plan, lora: Options) -> Case:
    """The same beside LoRA SFT of the same texts, in micro-batches of as many tokens; and above what no model takes."""
    case = every_role(plan, lora)
    name = "PPO with a limit, every role by LoRA on one base, over LoRA SFT of the same tokens"
    measures = [
        Measure(at_most(1.35), lambda ours, theirs: ours["peak_mib"] / theirs["peak_mib"], ", peak memory"),
        Measure(at_most(1.35), added_memory, ", peak memory above libraries alone"),
    ]
    return replace(case, name=name, theirs=Job(OURS, "sft", case.ours.options), measures=measures)


def added_memory(ours: Result, theirs: Result) -> float:
    return float((ours["peak_mib"] - ours["idle_mib"]) / (theirs["peak_mib"] - theirs["idle_mib"]))


def rank_over_one(plan: Plan, rows: int) -> Case:
    """Every weight trained, `--shard` over two ranks: the larger rank's memory above an idle one over one process's.

    Of a batch in one piece; a rank's share of it, and of the states, is half, what is gathered is not.
    """
    options = plan.options(batch_size=rows, micro_tokens=512 * rows, recompute="off")
    jobs = [Job(OURS, "ranks", {**options, "ranks": ranks, "shard": ranks > 1}) for ranks in (2, 1)]
    measures = [
        Measure(at_most(0.6), lambda ours, theirs: ours["above_mib"] / theirs["above_mib"]),
        Measure(at_most(2.0, "GiB"), lambda ours, _: ours["above_mib"] / 1024, ", of a rank"),
    ]
    name = f"SFT, every weight, --shard over two ranks beside one process, {rows} conversations, peak memory above idle"
    items = [item for item in hh_items(400, plan.vocab) if len(item["prompt"]) + len(item["replies"][0]) <= 384]
    return Case(name, plan.workload(items[: rows * plan.steps]), jobs[0], jobs[1], equality.alone, measures)


def as_planned(plan: Plan) -> list[Case]:
    """`accord plan` for this machine beside the run that it starts, texts of one length: memory, and time on the wall.

    A time means something on a machine that does nothing else.
    """
    prompt, reply = (12, 6) if plan.toy else (128, 64)
    items = [{**item, "prompt": item["replies"][0][:prompt]} for item in equal_items(40, plan.vocab, length=prompt)]
    items = [{**item, "replies": [each[:reply] for each in item["replies"]]} for item in items]
    measures = [
        Measure(at_most(0.15, "of it"), lambda ours, _: apart(ours["bytes"], ours["planned_bytes"]), ", memory off by"),
        Measure(
            at_most(0.3, "of it"),
            lambda ours, _: apart(statistics.median(ours["seconds"]), ours["planned_seconds"]),
            ", seconds of a step off by",
        ),
    ]

    def case(name: str, stage: str, **more: Any) -> Case:
        options = {**plan.options(batch_size=8, precision="f32", lora_rank=0, one_base=True), "stage": stage, **more}
        return Case(f"plan, {name}", plan.workload(items), Job(OURS, "planned", options), None, planned_parts, measures)

    return [
        case("SFT, every weight", "sft"),
        case("DPO, LoRA", "dpo", lora_rank=16),
        case("PPO with a limit, every role by LoRA on one base", "ppo", lora_rank=16),
    ]


def apart(found: float, said: float) -> float:
    return abs(found / said - 1)


def planned_parts(pair: Pair) -> dict[str, Any]:
    """Nothing is compared; what was planned and what was used, in GiB."""
    ours = pair.ours[0]
    return {"planned_gib": round(ours["planned_bytes"] / 2**30, 2), "used_gib": round(ours["bytes"] / 2**30, 2)}


def drawing(plan: Plan, **more: Any) -> Options:
    """What policy optimisation asks: of the iterations, the first is untimed; replies of one length."""
    options = {"warm": 1, "max_new_tokens": 8 if plan.toy else 64, "epochs": 1, "samples": 1}
    return plan.options(**{**options, **more})


def group(plan: Plan) -> list[Case]:
    """C6: RLOO and GRPO, 4 prompts with 4 replies of 64 tokens each, one optimizer step per batch."""

    def case(method: str) -> Case:
        options = drawing(plan, method=method, batch_size=4, samples=4)
        length = options["max_new_tokens"]
        items = fixed_replies(4 * max(plan.steps, 2), plan.vocab, replies=4, length=length)
        return Case(
            f"{method.upper()}, n = 4, {length} tokens, f32",
            plan.workload(items),
            Job(OURS, "group", options),
            Job(TRL, "group", options),
            equality.group(method, options["samples"], length),
            [Measure(at_least(4), faster)],
            given="given",
        )

    return [case("rloo"), case("grpo")]


def ppo(plan: Plan) -> list[Case]:
    """C7: 8 prompts, a reply of 64 tokens each, 4 epochs of one mini-batch: the peer's defaults."""
    options = drawing(plan, method="gae", epochs=4)
    length = options["max_new_tokens"]
    items = fixed_replies(options["batch_size"] * max(plan.steps, 2), plan.vocab, replies=1, length=length)
    over = [Measure(at_most(1.25), over_its_stages)]

    def alone(name: str, **more: Any) -> Case:
        job = Job(OURS, "stages", {**options, **more})
        return Case(name, plan.workload(items), job, None, equality.alone, over)

    return [
        alone("iteration over its stages timed alone, PPO"),
        alone("iteration over its stages timed alone, PPO with a limit", limited=True),
        Case(
            f"{options['batch_size']} prompts, {length} tokens, 4 epochs, f32",
            plan.workload(items),
            Job(OURS, "ppo", options),
            Job(TRL19, "ppo", options),
            equality.ppo,
            [Measure(at_least(3), faster)],
            given="given",
        ),
    ]


def over_its_stages(ours: Result, _: Result) -> float:
    """Median seconds of a whole iteration over the sum of its stages alone."""
    return statistics.median(ours["whole"]) / statistics.median(sum(parts.values()) for parts in ours["parts"])


def startup(plan: Plan) -> list[Case]:
    """C8, in CPU-seconds, so that other processes on the machine do not count."""
    workload = Workload(hh_items(64, 512), 512, "toy")
    measures = [
        Measure(at_most(0.3, "s"), lambda ours, _: float(ours["help"]), "accord --help above Python's own start"),
        Measure(at_most(8, "s"), lambda ours, _: float(ours["first_step"]), "accord sft, one step and its snapshot"),
    ]
    return [Case("", workload, Job(OURS, "startup", {}), None, equality.alone, measures)]


def agreement(plan: Plan) -> list[Case]:
    """N1: the log-probs that replies are sampled at, against those of the training forward."""

    def gap(precision: str) -> Callable[[Result, Result], float]:
        return lambda ours, _: float(ours[precision]["mean"])

    measures = [
        Measure(at_most(bound, "nats"), gap(precision), f", {precision}")
        for precision, bound in (("f32", 1e-5), ("bf16", 2e-3))
    ]
    job = Job(OURS, "agreement", {"max_new_tokens": 64})
    items = hh_items(32, plan.vocab)
    return [Case("mean abs Δlogp", plan.workload(items), job, None, equality.agreement, measures)]
