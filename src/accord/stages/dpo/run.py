"""The direct family: a policy from comparisons alone, by DPO and its relatives (docs/objectives.md lists them).

    comparisons → log π(y|x) of every reply → −log σ(β [log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)])

Rafailov et al. 2023 (arXiv:2305.18290) eq. 7. A prompt's replies share its tokens in one pass, and a ranking counts
once. The reference's log-probs are computed before training, in the order of the first epoch, and kept. What a loss
needs to know of its whole batch (KTO's KL, BCO's shift, AOT's ranks) is computed before the batch is cut.
"""

import heapq
import math
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from accord.engine.packing import Packing
from accord.models.bases import copy_trained, lower_frozen
from accord.models.loading import add_adapters, load_policy
from accord.models.places import POLICY
from accord.models.reference import (
    Reference,
    ReplyReference,
    ReplyStore,
    follow,
    kept_sums,
    reply_sums,
    weights_hash,
)
from accord.run import RunFolder
from accord.stages.dpo.config import Dpo
from accord.stages.dpo.implicit import HeldOut, measure_samples
from accord.stages.dpo.items import DirectData, DirectItem, read_direct_data
from accord.stages.dpo.losses import DirectRoles, item_loss, look_over
from accord.stages.dpo.margins import score_margins
from accord.stages.shared import named, open_renderer, open_run, save_snapshot, settle_language_model
from accord.training import distributed
from accord.training.distributed import World
from accord.training.fit import fit
from accord.training.order import batch_indices, steps_per_epoch
from accord.training.precision import lowered
from accord.training.shards import shard


def run(config: Dpo) -> RunFolder:
    """Train a policy on comparisons; leaves a policy snapshot and `evaluation.json`."""
    start = config.reference or config.model
    parents = {"model": config.model, **({"reference": start} if config.needs_reference else {})}
    parents |= {f"reward.{n}": p for n, p in config.rewards.items()} | {f"cost.{n}": p for n, p in config.costs.items()}
    with open_run("dpo", config, parents) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads, shard=config.shard)
        renderer = open_renderer(config.model, run, world)
        data = read_direct_data(config, run, renderer)
        data = replace(data, items=score_margins(config, data.items, renderer, world.device))
        items = data.items
        policy = add_adapters(load_policy(config.model), config, scalar=False, seed=config.seed).to(world.device)
        largest = heapq.nlargest(config.batch_size, (item.group for item in items), key=lambda group: group.tokens)
        config = settle_language_model(config, run, world, policy, largest)
        lower_frozen([policy], config.precision, config.base_bits)
        frozen = frozen_model(config, policy, world)
        reference, measured_against = make_reference(config, run, world, policy, frozen, data)
        actors = DirectRoles(config, world, policy, reference)
        if frozen is not None:
            shard(frozen, world)
        held_out = HeldOut(config, world, actors.logprobs, data.held_out, measured_against)

        def batch_at(step: int) -> list[DirectItem]:
            if frozen is not None and config.refresh_every and step and step % config.refresh_every == 0:
                follow(frozen, policy, config.refresh_mix)
            return [items[i] for i in batch_indices(step, len(items), config.batch_size, config.seed)]

        trained = fit(
            run,
            world,
            config,
            module=policy,
            steps=math.ceil(config.epochs * steps_per_epoch(len(items), config.batch_size)),
            batch_at=batch_at,
            size=lambda item: item.group.tokens,
            totals=lambda batch: look_over(actors, data, batch),
            loss=lambda part, whole: item_loss(actors, part, whole),
            evaluate=held_out.measure if data.held_out else None,
            kept={"reference": frozen} if frozen is not None and config.refresh_every else None,
        )
        result = {"criterion": config.criterion, "role": "implicit", "loss": config.losses, **held_out.summarise()}
        if world.is_main:
            if data.held_out and config.kl_prompts:
                result |= measure_samples(config, run, trained, renderer, data.held_out, world.device)
            facts = {"loss": config.losses, "data": named(config.data or config.unpaired_data), "parent": config.model}
            save_snapshot(run, trained, renderer.tokenizer, POLICY, facts, [item.prompt for item in items])
            run.write_json("evaluation.json", result)
            run.finish(comparisons=len(items))
        return run


def frozen_model(config: Dpo, policy: nn.Module, world: World) -> nn.Module | None:
    """A reference with weights of its own, or None where the policy with its adapter off is one, or none is asked.

    Without --reference it is the policy before its first step.
    """
    if config.reference:
        return load_policy(config.reference, trainable=False).to(world.device)
    asked = config.needs_reference and not config.cache_reference
    if config.refresh_every or (asked and not config.lora_rank):
        # what is trained in the policy keeps requires_grad, which is what a checkpoint saves; no optimizer has it
        return copy_trained(policy)
    return None


def make_reference(
    config: Dpo, run: RunFolder, world: World, policy: nn.Module, frozen: nn.Module | None, data: DirectData
) -> tuple[ReplyReference, list[Tensor]]:
    """The reference of training, and the log-probs of the held-out replies that they are measured against.

    Held-out replies of a loss without a reference are measured against the policy before its first step.
    """
    source = policy if frozen is None else frozen
    view = DirectRoles(config, world, source, ReplyReference())
    if config.refresh_every or not config.needs_reference or not config.cache_reference:
        groups = [item.group for item in data.held_out]
        before = reply_sums(view.logprobs, groups, view.cut(data.held_out), world)
        if not config.needs_reference:
            return ReplyReference(), before
        tokens = Reference(policy, frozen)

        def logprobs(packing: Packing) -> Tensor:
            with lowered(config.precision, world.device):
                return tokens.token_logprobs(packing)

        return ReplyReference(logprobs=logprobs), before
    everything, items = data.everything, data.items
    # in the order of the first epoch: the first step then compares with the very numbers that it computes itself
    parts = []
    for step in range(steps_per_epoch(len(items), config.batch_size)):
        batch = [items[i] for i in batch_indices(step, len(items), config.batch_size, config.seed)]
        for some in (batch, [data.mismatch_of(item) for item in batch] if data.mismatched else []):
            parts += [[some[i].number for i in part] for part in view.cut(some)]
    parts += [[data.held_out[i].number for i in part] for part in view.cut(data.held_out)]
    groups = [item.group for item in everything]
    folder = Path(config.reference_cache) if config.reference_cache else run.path / "reference"

    def compute(missing: set[int]) -> list[Tensor]:
        return reply_sums(view.logprobs, groups, [part for part in parts if not missing.isdisjoint(part)], world)

    values = kept_sums(ReplyStore(folder, weights_hash(source), config.precision), groups, world, compute)
    return ReplyReference(kept=values), [values[item.number] for item in data.held_out]
