"""SFT, preference models and DPO on our side: the package's loop and losses on items in their order."""

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accord.config import Supervised
from accord.engine.forward import linear_logprobs
from accord.engine.forward.adapters import bare
from accord.engine.packing import Group, cut_by_tokens, pack, reply_group
from accord.models.learner import PreferenceLearner
from accord.models.loading import add_adapters, load_policy, load_scalar
from accord.models.policy import compute_logprobs
from accord.models.reference import Reference, ReplyReference, reply_sums
from accord.objectives.direct import Pairs, weighted_losses
from accord.objectives.implicit import sequence_logprobs, token_counts
from accord.objectives.likelihood import likelihood_loss
from accord.records import Prompt, Turn
from accord.stages.dpo.config import Dpo
from accord.stages.preference.config import Preference
from accord.stages.preference.items import PreferenceItem
from accord.stages.preference.loss import item_loss
from accord.stages.preference.loss import totals as totals_of
from accord.stages.sft.config import Sft
from accord.training.distributed import World
from accord.training.fit import Losses, fit
from benchmarks.clock import peak_mib, steps
from benchmarks.ours.setting import Clocked, Result, items_of, knobs, options, placed, world_of


def train(
    chosen: dict[str, Any],
    world: World,
    stage: str,
    config: Supervised,
    groups: Sequence[Group],
    totals: Any,
    loss: Any,
    module: nn.Module,
) -> Result:
    """Every step takes the next `batch_size` groups in their order, from the start again after the last."""
    size = chosen["batch_size"]
    run = Clocked(stage, config, world.device.type)
    with run:
        fit(
            run,
            world,
            config,
            module=module,
            steps=chosen["steps"],
            batch_at=lambda step: [i % len(groups) for i in range(step * size, (step + 1) * size)],
            size=lambda i: groups[i].tokens,
            totals=totals,
            loss=loss,
        )
    return {
        "seconds": steps(run.marks, chosen["warm"] - 1),
        "losses": [row["loss"] for row in run.rows],
        "grad_norms": [row["grad_norm"] for row in run.rows],
        "tokens": tokens_hash(groups[:size]),
        "num_tokens": run.rows[-1]["num_tokens"] / chosen["steps"],
        "peak_mib": peak_mib(world.device.type),
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


def sft(folder: Path) -> Result:
    chosen = options(folder)
    world, config = world_of(chosen), Sft(**knobs(folder, chosen, "model"))
    groups = [reply_group(item["prompt"], item["replies"][0]) for item in items_of(folder)]
    model = placed(load_policy(config.model), config, world)

    def loss(part: Sequence[int], count: int) -> Losses:
        packing = pack([groups[i] for i in part]).to(world.device)
        return likelihood_loss(compute_logprobs(model, packing, config.precision), count=count)

    def totals(part: Sequence[int]) -> int:
        return sum(groups[i].trained for i in part)

    found = train(chosen, world, "sft", config, groups, totals, loss, model)
    seen = [groups[i % len(groups)].trained for i in range(chosen["steps"] * chosen["batch_size"])]
    head = bare(model).get_output_embeddings().weight.numel()
    trunk = sum(p.numel() for p in model.parameters()) - head - bare(model).get_input_embeddings().weight.numel()
    sizes = {"num_rows": sum(seen) / chosen["steps"], "trunk_parameters": trunk, "head_parameters": head}
    return {**found, **sizes}


def preference(folder: Path) -> Result:
    """Pairs of every ranking, the earlier reply the better; no score regulariser, as the peer has none."""
    chosen = options(folder)
    world, config = world_of(chosen), Preference(**knobs(folder, chosen, "scorer"), score_weight=0.0)
    prompt = Prompt((Turn("user", "x"),), "bench", "all")
    items = []
    for item in items_of(folder):
        group = reply_group(item["prompt"], *item["replies"])
        ranks = tuple(range(1, len(group.replies) + 1))
        items.append(PreferenceItem(prompt, ("",) * len(ranks), group, ranks, head="helpful", labeler="bench"))
    scorer = add_adapters(load_scalar(config.model, role="preference", trainable=True), config, scalar=True, seed=0)
    learner = PreferenceLearner(scorer, ["helpful"], ["bench"], tie_rate=0.0).to(world.device)
    return train(
        chosen,
        world,
        "preference",
        config,
        [item.group for item in items],
        lambda part: totals_of([items[i] for i in part]),
        lambda part, whole: item_loss(learner, [items[i] for i in part], whole, config, world.device),
        learner,
    )


def dpo(folder: Path) -> Result:
    """With the reference's log-probs computed once, or at every step by a frozen copy."""
    chosen = options(folder)
    world, config = world_of(chosen), Dpo(**knobs(folder, chosen, "model"), beta=0.1)
    if chosen.get("all_logits"):
        linear_logprobs.KEPT = 2**62
    groups = [reply_group(item["prompt"], *item["replies"]) for item in items_of(folder)]
    model = placed(load_policy(config.model), config, world)
    baseline = peak_mib(world.device.type)

    def logprobs(packing: Any, of: Any = model) -> torch.Tensor:
        return compute_logprobs(of, packing, config.precision)

    if chosen.get("cached"):
        parts = cut_by_tokens(range(len(groups)), lambda i: groups[i].tokens, config.micro_tokens)
        reference = ReplyReference(kept=reply_sums(logprobs, groups, parts, world))
    else:
        frozen = None if config.lora_rank else copy.deepcopy(model).requires_grad_(False)
        reference = ReplyReference(
            logprobs=lambda packing: reference_logprobs(model, frozen, packing, config.precision)
        )

    def loss(part: Sequence[int], count: float) -> Losses:
        packing = pack([groups[i] for i in part]).to(world.device)
        sums = sequence_logprobs(logprobs(packing), packing.owner, packing.replies, "sum")
        theirs = reference.sums(list(part), packing)
        tokens = token_counts(packing.owner, packing.replies)
        a, b = slice(0, None, 2), slice(1, None, 2)
        ones, none = sums.new_ones(len(part)), sums.new_zeros(len(part))
        data = Pairs(sums[a], sums[b], theirs[a], theirs[b], tokens[a], tokens[b], ones, none)
        return weighted_losses({"dpo": 1.0}, data, {"dpo": {"beta": 0.1, "reduction": "sum"}}, count=count)

    found = train(chosen, world, "dpo", config, groups, lambda part: float(len(part)), loss, model)
    return {**found, "extra_mib": peak_mib(world.device.type) - baseline}


def reference_logprobs(model: nn.Module, frozen: nn.Module | None, packing: Any, precision: str) -> torch.Tensor:
    """Log-probs of the packing's targets under the frozen copy, or without the adapter, in the precision of the run."""
    with torch.autocast(packing.ids.device.type, torch.bfloat16, enabled=precision == "bf16"):
        return Reference(model, frozen).token_logprobs(packing)
