"""The direct family: a policy from comparisons alone, by DPO and its relatives (docs/objectives.md lists them).

    comparisons → log π(y|x) of every reply → −log σ(β [log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)])

Rafailov et al. 2023 (arXiv:2305.18290) eq. 7. A prompt's replies share its tokens in one pass, and a ranking counts
once. The reference's log-probs are computed before training, in the order of the first epoch, and kept. What a loss
needs to know of its whole batch (KTO's KL, BCO's shift, AOT's ranks) is computed before the batch is cut.
"""

import copy
import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from accord.config import LISTWISE, PAIRED, UNPAIRED, Dpo
from accord.engine.packing import Plan, build_plan, cut_by_tokens
from accord.errors import BadInput
from accord.models.loading import add_adapters, base_of, load_policy
from accord.models.reference import (
    Reference,
    ReplyReference,
    ReplyStore,
    follow,
    kept_sums,
    reply_sums,
    weights_hash,
)
from accord.models.tokenizer import load_renderer
from accord.objectives.direct import Pairs, match_ranks, weighted_losses
from accord.objectives.direct_unpaired import Rankings, Singles, kl_estimate, reward_shift
from accord.objectives.implicit import Reduction, reduce, sequence_logprobs, token_counts
from accord.run import RunFolder
from accord.stages.dpo.implicit import HeldOut, keywords, measure_samples
from accord.stages.dpo.items import Item, Material, read_material
from accord.stages.dpo.margins import score_margins
from accord.stages.pretrain.run import POLICY, compute_logprobs, settle_language_model
from accord.stages.shared import named, save_snapshot
from accord.training import distributed
from accord.training.distributed import World
from accord.training.fit import Losses, fit
from accord.training.order import batch_indices, steps_per_epoch
from accord.training.precision import lowered


@dataclass(frozen=True)
class Whole:
    """What is known of a whole optimizer batch before it is cut.

    `count` is the number of comparisons, rankings or labelled replies, `goods` that of good replies. `shifts` are
    KTO's z and BCO's δ by loss; `matched` are the reference's margins at the ranks of AOT by an item's number.
    """

    count: float
    goods: float = 0.0
    shifts: dict[str, Tensor] = field(default_factory=dict)
    matched: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Actors:
    """The policy and what it is compared with."""

    config: Dpo
    world: World
    policy: nn.Module
    reference: ReplyReference

    def logprobs(self, plan: Plan) -> Tensor:
        """Token log-probs of the policy."""
        return compute_logprobs(self.policy, plan, self.config.precision)

    def log_ratios(self, items: Sequence[Item]) -> list[Tensor]:
        """log π / π_ref of each item's replies, summed over tokens; without gradient, on every rank."""
        parts = self.cut(items)
        groups = [item.group for item in items]
        ours = reply_sums(self.logprobs, groups, parts, self.world)
        theirs = self.reference.of([item.number for item in items], groups, parts, self.world)
        return [a - b for a, b in zip(ours, theirs, strict=True)]

    def cut(self, items: Sequence[Item]) -> list[list[int]]:
        """Micro-batches, as places in `items`."""
        return cut_by_tokens(range(len(items)), lambda i: items[i].group.tokens, self.config.micro_tokens)


def run(config: Dpo) -> RunFolder:
    """Train a policy on comparisons; leaves a policy snapshot and `evaluation.json`."""
    start = config.reference or config.model
    parents = {"model": config.model, **({"reference": start} if config.needs_reference else {})}
    parents |= {f"reward.{n}": p for n, p in config.rewards.items()} | {f"cost.{n}": p for n, p in config.costs.items()}
    with RunFolder("dpo", config, parents) as run:
        if run.finished:
            return run
        world = distributed.start(config.threads)
        renderer = load_renderer(config.model)
        material = read_material(config, run, renderer)
        material = replace(material, items=score_margins(config, material.items, renderer, world.device))
        items = material.items
        policy = add_adapters(load_policy(config.model), config, scalar=False, seed=config.seed).to(world.device)
        if not any(p.requires_grad for p in policy.parameters()):
            raise BadInput(f"{config.model}: nothing to train; its adapter is frozen")
        config = settle_language_model(config, run, world, policy, [item.group for item in items])
        frozen = frozen_model(config, policy, world)
        reference, measured_against = make_reference(config, run, world, policy, frozen, material)
        actors = Actors(config, world, policy, reference)
        held_out = HeldOut(config, world, actors.logprobs, material.held_out, measured_against)

        def batch_at(step: int) -> list[Item]:
            if frozen is not None and config.refresh_every and step and step % config.refresh_every == 0:
                follow(frozen, policy, config.refresh_mix)
            return [items[i] for i in batch_indices(step, len(items), config.batch_size, config.seed)]

        fit(
            run,
            world,
            config,
            module=policy,
            steps=math.ceil(config.epochs * steps_per_epoch(len(items), config.batch_size)),
            batch_at=batch_at,
            size=lambda item: item.group.tokens,
            totals=lambda batch: look_over(actors, material, batch),
            loss=lambda part, whole: item_loss(actors, part, whole),
            largest=heapq.nlargest(config.batch_size, items, key=lambda item: item.group.tokens),
            evaluate=held_out.measure if material.held_out else None,
            kept={"reference": frozen} if frozen is not None and config.refresh_every else None,
        )
        result = {"criterion": config.criterion, "role": "implicit", "loss": config.losses, **held_out.summarise()}
        if world.is_main:
            if material.held_out and config.kl_prompts:
                result |= measure_samples(config, run, policy, renderer, material.held_out, world.device)
            facts = {"loss": config.losses, "data": named(config.data or config.unpaired_data), "parent": config.model}
            save_snapshot(run, policy, renderer.tokenizer, POLICY, facts, [item.prompt for item in items])
            run.write_json("evaluation.json", result)
            run.finish(comparisons=len(items))
        return run


def frozen_model(config: Dpo, policy: nn.Module, world: World) -> nn.Module | None:
    """A reference with weights of its own, or None where the policy with its new adapter off is one, or none is asked.

    Without --reference it is the policy before its first step, an adapter of its snapshot included.
    """
    if config.reference:
        return load_policy(config.reference, trainable=False).to(world.device)
    asked = config.needs_reference and not config.cache_reference
    new_adapter = bool(config.lora_rank) and not base_of(config.model)
    if config.refresh_every or (asked and not new_adapter):
        # what is trained in the policy keeps requires_grad, which is what a checkpoint saves; no optimizer has it
        return copy.deepcopy(policy)
    return None


def make_reference(
    config: Dpo, run: RunFolder, world: World, policy: nn.Module, frozen: nn.Module | None, material: Material
) -> tuple[ReplyReference, list[Tensor]]:
    """The reference of training, and the log-probs of the held-out replies that they are measured against.

    Held-out replies of a loss without a reference are measured against the policy before its first step.
    """
    source = policy if frozen is None else frozen
    view = Actors(config, world, source, ReplyReference())
    if config.refresh_every or not config.needs_reference or not config.cache_reference:
        groups = [item.group for item in material.held_out]
        before = reply_sums(view.logprobs, groups, view.cut(material.held_out), world)
        if not config.needs_reference:
            return ReplyReference(), before
        tokens = Reference(policy, frozen)

        def logprobs(plan: Plan) -> Tensor:
            with lowered(config.precision, world.device):
                return tokens.token_logprobs(plan)

        return ReplyReference(logprobs=logprobs), before
    everything, items = material.everything, material.items
    # in the order of the first epoch: the first step then compares with the very numbers that it computes itself
    parts = []
    for step in range(steps_per_epoch(len(items), config.batch_size)):
        batch = [items[i] for i in batch_indices(step, len(items), config.batch_size, config.seed)]
        for some in (batch, [material.mismatch_of(item) for item in batch] if material.mismatched else []):
            parts += [[some[i].number for i in part] for part in view.cut(some)]
    parts += [[material.held_out[i].number for i in part] for part in view.cut(material.held_out)]
    groups = [item.group for item in everything]
    folder = Path(config.reference_cache) if config.reference_cache else run.path / "reference"

    def compute(missing: set[int]) -> list[Tensor]:
        return reply_sums(view.logprobs, groups, [part for part in parts if not missing.isdisjoint(part)], world)

    values = kept_sums(ReplyStore(folder, weights_hash(source), config.precision), groups, world, compute)
    return ReplyReference(kept=values), [values[item.number] for item in material.held_out]


def look_over(actors: Actors, material: Material, batch: Sequence[Item]) -> Whole:
    """Denominators of the whole batch, and what its losses need to know of it, by a pass without gradient."""
    config = actors.config
    labels = [(item, k, good) for item in batch for k, good in item.labels]
    whole = Whole(float(len(batch)))
    if config.family == UNPAIRED:
        whole = Whole(float(len(labels)), float(sum(good for _, _, good in labels)))
    if "kto" in config.losses:
        partners = [material.mismatch_of(item) for item in batch]
        tokens = torch.tensor([len(item.group.replies[0]) for item in partners])
        ratios = reduce(torch.cat(actors.log_ratios(partners)), tokens, keywords(config, "kto")["reduction"])
        whole.shifts["kto"] = kl_estimate(ratios, len(partners))
    if "bco" in config.losses:
        known = keywords(config, "bco")
        ratios = torch.cat([r[[k for k, _ in i.labels]] for i, r in zip(batch, actors.log_ratios(batch), strict=True)])
        tokens = torch.tensor([len(item.group.replies[k]) for item, k, _ in labels])
        good = torch.tensor([good for _, _, good in labels])
        whole.shifts["bco"] = reward_shift(known["beta"] * reduce(ratios, tokens, known["reduction"]), good)
    if "aot" in config.losses:
        whole.matched.update(match_margins(actors, batch, keywords(config, "aot")["reduction"]))
    return whole


def match_margins(actors: Actors, batch: Sequence[Item], reduction: Reduction) -> dict[int, Tensor]:
    """AOT: for the pairs of each item, the reference's margin at the rank of the policy's in the whole batch."""
    groups, parts = [item.group for item in batch], actors.cut(batch)
    ours = reply_sums(actors.logprobs, groups, parts, actors.world)
    theirs = actors.reference.of([item.number for item in batch], groups, parts, actors.world)
    margins: list[list[Tensor]] = [[], []]
    for item, *both in zip(batch, ours, theirs, strict=True):
        tokens = torch.tensor([len(reply) for reply in item.group.replies])
        for column, sums in zip(margins, both, strict=True):
            logprobs = reduce(sums, tokens, reduction)
            column += [logprobs[i] - logprobs[j] for i, j in item.pairs]
    matched = match_ranks(torch.stack(margins[0]), torch.stack(margins[1]))
    sizes = [len(item.pairs) for item in batch]
    return {item.number: part for item, part in zip(batch, matched.split(sizes), strict=True)}


def item_loss(actors: Actors, items: Sequence[Item], whole: Whole) -> Losses:
    """The losses of some items, over the whole batch's denominators, and their metrics."""
    config = actors.config
    plan = build_plan([item.group for item in items]).to(actors.world.device)
    sums = sequence_logprobs(actors.logprobs(plan), plan.owner, plan.replies, "sum")
    reference = actors.reference.sums([item.number for item in items], plan)
    tokens = token_counts(plan.owner, plan.replies)
    data = ASSEMBLE[config.family](config, items, sums, reference, tokens)
    options = {name: keywords(config, name) for name in config.losses}
    for name, shift in whole.shifts.items():
        options[name] |= {"shift": shift.to(sums.device), "goods": whole.goods}
    if whole.matched:
        options["aot"]["matched"] = torch.cat([whole.matched[item.number] for item in items]).to(sums.device)
    loss, metrics = weighted_losses(config.losses, data, options, count=whole.count)
    if isinstance(data, Pairs) and config.needs_reference:
        a_w, a_l = (a.detach() for a in data.log_ratios("sum"))
        metrics["logps/displaced"] = (data.weights * ((a_w < 0) & (a_w > a_l)).float()).sum() / whole.count
    if "kto" in whole.shifts:
        # the same in every micro-batch, and these are summed
        metrics["kto/kl"] = whole.shifts["kto"].to(sums.device) * sum(len(i.labels) for i in items) / whole.count
    return loss, metrics


def pairs_of(config: Dpo, items: Sequence[Item], sums: Tensor, reference: Tensor, tokens: Tensor) -> Pairs:
    """Every ordered pair of the items' replies; an item counts once.

    A soft label p is its expectation: the pair with weight p and the same pair turned round with 1 − p.
    """
    chosen, rejected, weights, margins = [], [], [], []
    first = 0
    for item in items:
        for (i, j), margin in zip(item.pairs, item.margins, strict=True):
            for better, worse, asked, chance in (
                (i, j, margin, item.probability),
                (j, i, -margin, 1 - item.probability),
            ):
                if chance > 0:
                    chosen.append(first + better)
                    rejected.append(first + worse)
                    weights.append(chance / len(item.pairs))
                    margins.append(asked)
        first += len(item.texts)
    of_pair = (torch.tensor(column, device=sums.device) for column in (weights, margins))
    a, b = chosen, rejected
    return Pairs(sums[a], sums[b], reference[a], reference[b], tokens[a], tokens[b], *of_pair)


def singles_of(config: Dpo, items: Sequence[Item], sums: Tensor, reference: Tensor, tokens: Tensor) -> Singles:
    """Every labelled reply."""
    at, good = [], []
    first = 0
    for item in items:
        at += [first + k for k, _ in item.labels]
        good += [label for _, label in item.labels]
        first += len(item.texts)
    labels = torch.tensor(good, device=sums.device)
    return Singles(sums[at], reference[at], tokens[at], labels, torch.ones(len(at), device=sums.device))


def rankings_of(config: Dpo, items: Sequence[Item], sums: Tensor, reference: Tensor, tokens: Tensor) -> Rankings:
    """Every item as a row, padded with rank 0."""
    sizes = [len(item.texts) for item in items]
    ranks = [torch.tensor(item.ranks, device=sums.device) for item in items]
    a, b, c = (pad_sequence(list(t.split(sizes)), batch_first=True) for t in (sums, reference, tokens))
    return Rankings(a, b, c, pad_sequence(ranks, batch_first=True), torch.ones(len(items), device=sums.device))


ASSEMBLE: dict[str, Callable[..., Any]] = {PAIRED: pairs_of, UNPAIRED: singles_of, LISTWISE: rankings_of}
