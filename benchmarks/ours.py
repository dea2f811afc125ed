"""Our side: the package's own loop and losses on a workload, `python ours.py TASK FOLDER`."""

import hashlib
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from accord import __version__
from accord.config import Dpo, Preference, Sft, Supervised
from accord.data.batches import Group, reply_group
from accord.models.loading import load_policy
from accord.run import RunFolder
from accord.training.distributed import World
from accord.training.fit import Losses, fit

torch.set_num_threads(1)
Item = dict[str, Any]
WORLD = World(0, 1, torch.device("cpu"))


class Clocked(RunFolder):
    """A run folder that notes the CPU time whenever a step is logged."""

    def log(self, row: dict[str, Any]) -> None:
        super().log(row)
        self.marks.append(time.process_time())
        self.rows.append(row)


def options(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "options.json").read_text())
    return found


def items_of(folder: Path) -> list[Item]:
    found: list[Item] = json.loads((folder / "items.json").read_text())
    return found


def knobs(folder: Path, model: str) -> dict[str, Any]:
    """The knobs that every training task shares, from the workload's options."""
    chosen = options(folder)
    return {
        "model": str(folder / model),
        "data": "as in items.json",
        "out": str(folder / f"ours-{time.time_ns()}"),
        "learning_rate": chosen["learning_rate"],
        "schedule": "constant",
        "warmup": 0.0,
        "batch_size": chosen["batch_size"],
        "precision": "bf16" if chosen.get("bf16") else "f32",
        "checkpoint_every": 0,
        "threads": 1,
    }


def train(
    folder: Path, stage: str, config: Supervised, groups: Sequence[Group], totals: Any, loss: Any, module: Any
) -> dict[str, Any]:
    """Every step takes the next `batch_size` groups in their order."""
    chosen = options(folder)
    size = chosen["batch_size"]
    with Clocked(stage, config, {}) as run:
        run.marks, run.rows = [], []
        fit(
            run,
            WORLD,
            config,
            module=module,
            steps=chosen["steps"],
            batch_at=lambda step: range(step * size, (step + 1) * size),
            size=lambda i: groups[i].tokens,
            totals=totals,
            loss=loss,
        )
    steps = [b - a for a, b in zip(run.marks, run.marks[1:], strict=False)]
    return {
        "seconds": steps[chosen["warm"] :],
        "losses": [row["loss"] for row in run.rows],
        "grad_norms": [row["grad_norm"] for row in run.rows],
        "tokens": tokens_hash(groups[:size]),
    }


def tokens_hash(groups: Sequence[Group]) -> str:
    """Of every pair's or reply's text, as the peer's collator sees them."""
    texts = []
    for group in groups:
        if len(group.replies) == 1:
            texts.append([*group.prefix, *group.replies[0]])
        for i, first in enumerate(group.replies):
            for second in group.replies[i + 1 :]:
                texts += [[*group.prefix, *first], [*group.prefix, *second]]
    return hashlib.sha256(json.dumps(sorted(texts)).encode()).hexdigest()[:16]


def sft(folder: Path) -> dict[str, Any]:
    from accord.data.batches import build_plan
    from accord.objectives.likelihood import likelihood_loss
    from accord.stages.pretrain import compute_logprobs

    config = Sft(**knobs(folder, "model"))
    groups = [reply_group(item["prompt"], item["replies"][0]) for item in items_of(folder)]
    model = load_policy(config.model)

    def loss(chosen: Sequence[int], count: int) -> Losses:
        plan = build_plan([groups[i] for i in chosen])
        return likelihood_loss(compute_logprobs(model, plan, config.precision), count=count)

    def totals(chosen: Sequence[int]) -> int:
        return sum(groups[i].trained for i in chosen)

    return train(folder, "sft", config, groups, totals, loss, model)


def preference(folder: Path) -> dict[str, Any]:
    """Pairs of every ranking, the earlier reply the better; no score regulariser, as the peer has none."""
    from accord.models.learner import PreferenceLearner
    from accord.models.loading import load_scalar
    from accord.records import Prompt, Turn
    from accord.stages.preference_data import Item as PreferenceItem
    from accord.stages.preference_loss import item_loss
    from accord.stages.preference_loss import totals as totals_of

    (folder / "scorer" / "accord.json").write_text(
        json.dumps({"role": "preference", "criterion": "helpful", "normalizer": {"kind": "none"}})
    )
    config = Preference(**knobs(folder, "scorer"), score_weight=0.0)
    prompt = Prompt((Turn("user", "x"),), "bench", "all")
    items = []
    for item in items_of(folder):
        group = reply_group(item["prompt"], *item["replies"])
        ranks = tuple(range(1, len(group.replies) + 1))
        items.append(PreferenceItem(prompt, ("",) * len(ranks), group, "helpful", "bench", ranks=ranks))
    scorer = load_scalar(config.model, role="preference", trainable=True)
    learner = PreferenceLearner(scorer, ["helpful"], ["bench"], tie_rate=0.0)
    return train(
        folder,
        "preference",
        config,
        [item.group for item in items],
        lambda chosen: totals_of([items[i] for i in chosen]),
        lambda chosen, whole: item_loss(learner, [items[i] for i in chosen], whole, config, WORLD.device),
        learner,
    )


def dpo(folder: Path) -> dict[str, Any]:
    """With the reference's log-probs computed once, or at every step by a frozen copy."""
    import copy

    from accord.data.batches import build_plan, cut_by_tokens
    from accord.models.reference import Reference, ReplyReference, reply_sums
    from accord.objectives.direct import Pairs, weighted_losses
    from accord.objectives.implicit import sequence_logprobs, token_counts
    from accord.stages.pretrain import compute_logprobs

    chosen_options = options(folder)
    config = Dpo(**knobs(folder, "model"), beta=0.1)
    groups = [reply_group(item["prompt"], *item["replies"]) for item in items_of(folder)]
    model = load_policy(config.model)
    baseline = peak()
    frozen = copy.deepcopy(model).requires_grad_(False)

    def logprobs(plan: Any, of: Any = model) -> torch.Tensor:
        return compute_logprobs(of, plan, config.precision)

    if chosen_options.get("cached"):
        parts = cut_by_tokens(range(len(groups)), lambda i: groups[i].tokens, config.micro_tokens)
        reference = ReplyReference(kept=reply_sums(logprobs, groups, parts, WORLD))
    else:
        reference = ReplyReference(logprobs=lambda plan: Reference(model, frozen).token_logprobs(plan))

    def loss(chosen: Sequence[int], count: float) -> Losses:
        plan = build_plan([groups[i] for i in chosen])
        sums = sequence_logprobs(logprobs(plan), plan.owner, plan.replies, "sum")
        theirs = reference.sums(list(chosen), plan)
        tokens = token_counts(plan.owner, plan.replies)
        a, b = slice(0, None, 2), slice(1, None, 2)
        ones, none = torch.ones(len(chosen)), torch.zeros(len(chosen))
        data = Pairs(sums[a], sums[b], theirs[a], theirs[b], tokens[a], tokens[b], ones, none)
        return weighted_losses({"dpo": 1.0}, data, {"dpo": {"beta": 0.1, "reduction": "sum"}}, count=count)

    result = train(folder, "dpo", config, groups, lambda chosen: float(len(chosen)), loss, model)
    return {**result, "extra_mib": peak() - baseline}


def generation(folder: Path) -> dict[str, Any]:
    from accord.models.sampling import sample

    chosen = options(folder)
    prompts = [item["prompt"] for item in items_of(folder)]
    model = load_policy(str(folder / "model"), trainable=False)
    stops = frozenset(chosen["stop_ids"])
    common = {"n": 1, "stop_ids": stops, "micro_tokens": 65536}
    limit, greedy_limit = chosen["max_new_tokens"], chosen["greedy_tokens"]
    # so cold that the likeliest token is drawn
    greedy = sample(model, prompts[:8], temperature=1e-5, max_new_tokens=greedy_limit, seed=0, **common)
    seconds, tokens = [], 0
    for repeat in range(chosen["repeats"]):
        started = time.process_time()
        rollouts = sample(model, prompts, temperature=1.0, max_new_tokens=limit, seed=repeat, **common)
        tokens = sum(len(rollout.ids) for rollout in rollouts)
        seconds.append((time.process_time() - started) / tokens)
    return {"seconds": seconds, "greedy": [list(r.ids) for r in greedy], "tokens": tokens / len(prompts)}


def agreement(folder: Path) -> dict[str, Any]:
    """Log-probs that replies were sampled at, against those of the training forward on the same weights."""
    from accord.data.batches import build_plan
    from accord.models.policy import token_logprobs
    from accord.models.sampling import sample

    chosen = options(folder)
    prompts = [item["prompt"] for item in items_of(folder)]
    model = load_policy(str(folder / "model"), trainable=False)
    rollouts = sample(
        model, prompts, n=2, temperature=1.0, max_new_tokens=chosen["max_new_tokens"], stop_ids=frozenset({2}), seed=0
    )
    plan = build_plan([reply_group(r.prompt_ids, r.ids) for r in rollouts])
    drawn = torch.tensor([value for r in rollouts for value in r.logprobs])
    out = {}
    for precision in ("f32", "bf16"):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            gap = token_logprobs(model, plan) - drawn
        out[precision] = {"mean": float(gap.abs().mean()), "max_ratio": float(gap.abs().max().exp())}
    return out


def peak() -> float:
    """Largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


TASKS = {
    "sft": sft,
    "preference": preference,
    "ranking": preference,
    "dpo": dpo,
    "generation": generation,
    "agreement": agreement,
}

if __name__ == "__main__":
    result = TASKS[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps({**result, "versions": {"accord": __version__, "torch": torch.__version__}}))
