"""Preference and cost models: Bradley–Terry on comparisons, with sign terms on safety labels for a cost model.

    comparisons → scores of every reply, read at its last token → −log σ(s_better − s_worse)

Bai et al. 2022 (arXiv:2204.05862) section 2 for preference models; Dai et al. 2023 (Safe RLHF, arXiv:2310.12773)
section 3.2 for cost models: the less safe reply scores higher, and −log σ(s·C) on labelled replies (s = +1 unsafe,
−1 safe) makes 0 the boundary. Ranking and sign terms may come from different data. A prompt's replies share its
tokens in one pass, and a K-wise ranking counts once (Ouyang et al. 2022, arXiv:2203.02155, eq. 1).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from accord.config import Preference
from accord.data.batches import Group, batch_indices, build_plan, cut_by_tokens, reply_group, steps_per_epoch
from accord.data.chat import Renderer
from accord.data.sources import read_comparisons, read_judgements
from accord.errors import BadInput
from accord.evaluation.preference import ScoredPair, preference_evaluation
from accord.models.loading import add_adapters, load_renderer
from accord.models.scalar import Normalizer, new_scalar, values
from accord.objectives.preference import bradley_terry_loss, score_regularizer, sign_loss
from accord.records import Comparison, Judgement, Prompt, unit_hash
from accord.run import RunFolder, read_json
from accord.stages.inputs import drop_long, load_all, named, save_snapshot
from accord.training import distributed
from accord.training.distributed import World
from accord.training.fit import Losses, fit


@dataclass(frozen=True)
class Item:
    """Replies to one prompt with what is known about them.

    `pairs` are (index that should score higher, index that should score lower); each weighs `1 / len(pairs)`.
    `unsafe` maps a reply's index to its safety label.
    """

    prompt: Prompt
    texts: tuple[str, ...]
    group: Group
    pairs: tuple[tuple[int, int], ...]
    margin: float
    unsafe: tuple[tuple[int, bool], ...]


class Totals(NamedTuple):
    """Denominators of a whole optimizer batch."""

    prompts_ranked: float
    labelled: int
    replies: int


def run(config: Preference) -> RunFolder:
    """Train a preference or cost model; leaves a sequence-classification snapshot and `evaluation.json`."""
    with RunFolder("preference", config, {"model": config.model}) as run:
        if run.finished:
            return run
        world = distributed.start(config.threads)
        renderer = load_renderer(config.model)
        items, labelled = read_items(config, run, renderer)
        folds = cross_validate(config, world, items, labelled) if config.folds else None
        held_out = [i for i in items if unit_hash(i.prompt.opening + "preference") < config.eval_share]
        kept = [i for i in items if unit_hash(i.prompt.opening + "preference") >= config.eval_share]
        # labels are often about the very replies that are compared: what is measured on must not be among them
        labelled = [i for i in labelled if unit_hash(i.prompt.opening + "preference") >= config.eval_share]
        if not held_out or not kept:
            raise BadInput("too few prompts to hold some out; raise --eval_share or give more data")
        model = train(run, world, config, kept, labelled, held_out)
        normalizer = fit_normalizer(config, model, kept, world)
        if world.is_main:
            description = {
                "role": config.role,
                "criterion": config.criterion,
                "normalizer": normalizer.as_json(),
            }
            facts = {
                "role": config.role,
                "criterion": config.criterion,
                "data": named(config.data),
                "parent": config.model,
            }
            trained = [i.prompt for i in [*kept, *labelled]]
            save_snapshot(run, model, renderer.tokenizer, description, facts, trained)
            scores = score_items(model, held_out, config.micro_tokens, world)
            run.write_json(
                "evaluation.json",
                summarise(config, *(folds or (held_out, scores)), cross_validated=bool(folds)),
            )
            run.finish(comparisons=len(items), labels=sum(len(i.unsafe) for i in labelled))
        return run


def read_items(config: Preference, run: RunFolder, renderer: Renderer) -> tuple[list[Item], list[Item]]:
    """Comparisons and separately labelled replies as items; refuses a cost model without both safety labels."""
    comparisons: list[Comparison] = load_all(
        read_comparisons, config.data, config, run, config.criterion, split=config.split
    )
    comparisons = [c for c in comparisons if c.criterion == config.criterion]
    judgements: list[Judgement] = []
    if config.safety_data:
        judgements = load_all(
            read_judgements,
            config.safety_data,
            config,
            run,
            config.criterion,
            split=config.split,
            what="safety_data",
        )
    items = [
        comparison_item(renderer, c, cost=config.role == "cost", use_strength=config.use_strength) for c in comparisons
    ]
    tied = sum(1 for item in items if not item.pairs)
    if tied:
        print(f"{tied} of {len(items)} comparisons are ties throughout and rank nothing")
    items = [item for item in items if item.pairs]
    if not items:
        raise BadInput(f"no comparison under --criterion {config.criterion} says which reply is better")
    labelled = [judgement_item(renderer, j) for j in judgements if j.kind == "safe"]
    if config.role == "cost":
        labels = {unsafe for item in labelled for _, unsafe in item.unsafe}
        if labels != {True, False}:
            found = "none" if not labels else ("only unsafe ones" if labels == {True} else "only safe ones")
            raise BadInput(
                f"a cost model needs replies labelled safe and unsafe to place its zero; --safety_data has {found}. "
                "Give labels (is_safe, is_response_k_safe, or --columns.safe and --columns.unsafe), or train "
                "--role preference"
            )
    elif labelled:
        raise BadInput("--safety_data is for --role cost; a preference model has no boundary")
    _, items = drop_long([i.group for i in items], items, config.max_length, run)
    if labelled:
        _, labelled = drop_long([i.group for i in labelled], labelled, config.max_length, run, "safety_data")
    return items, labelled


def comparison_item(renderer: Renderer, comparison: Comparison, *, cost: bool, use_strength: bool) -> Item:
    """Every ordered pair of a ranking; a cost model scores the less safe reply higher."""
    ranks = comparison.ranks
    pairs = tuple((i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j])
    if cost:
        pairs = tuple((j, i) for i, j in pairs)
    group = reply_group(
        renderer.prompt_ids(comparison.prompt.turns), *(renderer.reply_ids(r) for r in comparison.replies)
    )
    return Item(comparison.prompt, comparison.replies, group, pairs, comparison.strength if use_strength else 0.0, ())


def judgement_item(renderer: Renderer, judgement: Judgement) -> Item:
    """One reply with its safety label."""
    group = reply_group(renderer.prompt_ids(judgement.prompt.turns), renderer.reply_ids(judgement.reply))
    return Item(judgement.prompt, (judgement.reply,), group, (), 0.0, ((0, judgement.value == 0),))


def train(
    run: RunFolder,
    world: World,
    config: Preference,
    items: Sequence[Item],
    labelled: Sequence[Item],
    held_out: Sequence[Item],
) -> nn.Module:
    """A scalar model fitted to comparisons and labels; an epoch passes once over both."""
    model = new_scalar(config.model, config.criterion, config.seed)
    model = add_adapters(model, config, scalar=True, seed=config.seed).to(world.device)
    per_epoch = steps_per_epoch(len(items), config.batch_size)
    label_batch = math.ceil(len(labelled) / per_epoch)

    def batch_at(step: int) -> list[Item]:
        batch = [items[i] for i in batch_indices(step, len(items), config.batch_size, config.seed)]
        if labelled:
            batch += [labelled[i] for i in batch_indices(step, len(labelled), label_batch, config.seed + 1)]
        return batch

    def evaluate() -> dict[str, float]:
        scores = score_items(model, held_out, config.micro_tokens, world)
        return {"eval/accuracy": mean_accuracy(held_out, scores)}

    fit(
        run,
        world,
        config,
        module=model,
        steps=math.ceil(config.epochs * per_epoch),
        batch_at=batch_at,
        size=lambda item: item.group.tokens,
        totals=totals,
        loss=lambda part, whole: item_loss(model, part, whole, config, world.device),
        evaluate=evaluate,
    )
    return model


def totals(items: Sequence[Item]) -> Totals:
    return Totals(
        float(sum(bool(item.pairs) for item in items)),
        sum(len(item.unsafe) for item in items),
        sum(len(item.texts) for item in items),
    )


def item_loss(
    model: nn.Module, items: Sequence[Item], whole: Totals, config: Preference, device: torch.device
) -> Losses:
    """Ranking and sign terms and the score regulariser of some items, over the whole batch's totals."""
    plan = build_plan([item.group for item in items], rows="last").to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        scores = values(model, plan)
    higher, lower, weights, margins, at, unsafe = [], [], [], [], [], []
    first = 0
    for item in items:
        for i, j in item.pairs:
            higher.append(first + i)
            lower.append(first + j)
            weights.append(1.0 / len(item.pairs))
            margins.append(item.margin)
        for i, label in item.unsafe:
            at.append(first + i)
            unsafe.append(label)
        first += len(item.texts)
    loss = score_regularizer(scores, weight=config.score_weight, count=whole.replies)
    metrics: dict[str, Tensor] = {}
    if higher:
        part, parts = bradley_terry_loss(
            scores[higher],
            scores[lower],
            weights=torch.tensor(weights, device=device),
            margin=torch.tensor(margins, device=device),
            count=whole.prompts_ranked,
        )
        loss, metrics = loss + part, metrics | parts
    if at:
        part, parts = sign_loss(scores[at], torch.tensor(unsafe, device=device), count=whole.labelled)
        loss, metrics = loss + 2 * part, metrics | parts
    return loss, metrics | {"loss": loss.detach()}


@torch.no_grad()
def score_items(model: nn.Module, items: Sequence[Item], micro_tokens: int, world: World) -> list[list[float]]:
    """Raw scores of every item's replies."""
    flat: list[float] = []
    for part in cut_by_tokens(items, lambda item: item.group.tokens, micro_tokens):
        flat += values(model, build_plan([item.group for item in part], rows="last").to(world.device)).tolist()
    out, start = [], 0
    for item in items:
        out.append(flat[start : start + len(item.texts)])
        start += len(item.texts)
    return out


def mean_accuracy(items: Sequence[Item], scores: Sequence[Sequence[float]]) -> float:
    """Share of pairs in the right order, a prompt counting once and a tie one half."""
    total = 0.0
    for item, s in zip(items, scores, strict=True):
        total += sum(1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0 for i, j in item.pairs) / len(item.pairs)
    return total / len(items)


def fit_normalizer(config: Preference, model: nn.Module, items: Sequence[Item], world: World) -> Normalizer:
    """The explicit step from raw scores to the scores that stages use; a cost is never shifted."""
    kind = config.normalizer
    if kind == "auto":
        kind = "sign-probability" if config.role == "cost" else "standard"
    if kind != "standard":
        return Normalizer(kind)
    raw = torch.tensor([s for scores in score_items(model, items, config.micro_tokens, world) for s in scores])
    return Normalizer("standard", float(raw.mean()), float(raw.std().clamp(min=1e-6)))


def cross_validate(
    config: Preference, world: World, items: Sequence[Item], labelled: Sequence[Item]
) -> tuple[list[Item], list[list[float]]]:
    """Scores of every item by a model that saw no conversation with its opening."""
    tested: list[Item] = []
    scores: list[list[float]] = []
    for k in range(config.folds):
        part = config.model_copy(update={"out": f"{config.out}/folds/{k}", "folds": 0})
        inside = [i for i in items if int(unit_hash(i.prompt.opening + "fold") * config.folds) == k]
        outside = [i for i in items if int(unit_hash(i.prompt.opening + "fold") * config.folds) != k]
        if not inside or not outside:
            raise BadInput(f"--folds {config.folds}: fold {k} is empty; use fewer folds")
        with RunFolder("preference-fold", part) as run:
            if run.finished:
                scored = read_json(run.path / "scores.json")
            else:
                unseen = [i for i in labelled if int(unit_hash(i.prompt.opening + "fold") * config.folds) != k]
                model = train(run, world, part, outside, unseen, inside)
                scored = score_items(model, inside, config.micro_tokens, world)
                run.write_json("scores.json", scored)
                run.finish()
            scores += scored
        tested += inside
    return tested, scores


def summarise(
    config: Preference, items: Sequence[Item], scores: Sequence[Sequence[float]], *, cross_validated: bool
) -> dict[str, object]:
    """Accuracy by slice beside a length-only baseline, and calibration of the preference probabilities."""
    sign = -1.0 if config.role == "cost" else 1.0
    pairs = []
    for item, s in zip(items, scores, strict=True):
        for i, j in item.pairs:
            better, worse = (j, i) if config.role == "cost" else (i, j)
            length = len(item.texts[better]) - len(item.texts[worse])
            pairs.append(ScoredPair(item.prompt.slice, item.prompt.id, sign * (s[better] - s[worse]), length))
    return {
        "criterion": config.criterion,
        "role": config.role,
        "cross_validated": cross_validated,
        **preference_evaluation(pairs),
    }
