"""Preference and cost models: scores from comparisons, rankings, labels and ratings, with sign terms for a cost model.

    comparisons → scores of every reply, read at its last token → −log σ(s_better − s_worse)

Bai et al. 2022 (arXiv:2204.05862) section 2 for preference models; Dai et al. 2023 (Safe RLHF, arXiv:2310.12773)
section 3.2 for cost models: the less safe reply scores higher, and −log σ(s·C) on labelled replies (s = +1 unsafe,
−1 safe) makes 0 the boundary. Ranking and sign terms may come from different data. A prompt's replies share its
tokens in one pass, and a K-wise ranking counts once (Ouyang et al. 2022, arXiv:2203.02155, eq. 1).
"""

import gc
import heapq
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from accord.data.sources import few_openings
from accord.disk import read_json
from accord.engine.forward.adapters import unround
from accord.engine.packing import Group, cut_by_tokens, pack
from accord.errors import BadInput
from accord.models.bases import lower_frozen
from accord.models.ensemble import mean_weights
from accord.models.learner import PreferenceLearner
from accord.models.loading import add_adapters
from accord.models.scalar import start_scalar
from accord.records import fold_of
from accord.run import RunFolder
from accord.stages.preference.config import Preference
from accord.stages.preference.items import PreferenceData, PreferenceItem, read_preference_data, refuse_thin_heads
from accord.stages.preference.loss import item_loss, own_scores, totals
from accord.stages.preference.noise import turned_round, without_suspects
from accord.stages.preference.results import cross_validated, mean_accuracy, write_results
from accord.stages.shared import measures, open_renderer, open_run
from accord.training import distributed
from accord.training.distributed import World
from accord.training.fit import fit
from accord.training.machine import settle
from accord.training.order import batch_indices, steps_per_epoch
from accord.training.precision import lowered
from accord.training.shards import in_step

Scores = list[list[float]]


def run(config: Preference) -> RunFolder:
    """Train a preference or cost model; leaves a sequence-classification snapshot and `evaluation.json`."""
    with open_run("preference", config, {"model": config.model}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads, shard=config.shard)
        renderer = open_renderer(config.model, run, world)
        data = read_preference_data(config, run, renderer)
        config = settle_learner(config, run, world, data)
        gc.collect()  # modules refer to each other in circles: what was measured on would stay beside what is trained
        # labels are often about the very replies that are compared: what is measured on must not be among them
        unseen = data.where(lambda prompt: measures(prompt, config.eval_share))
        held_out = unseen.items
        kept = data.where(lambda prompt: not measures(prompt, config.eval_share))
        if not (kept.items or kept.labelled) or (data.items and not (held_out and kept.items)):
            alike = few_openings(item.prompt for item in [*data.items, *data.labelled])
            raise BadInput(f"too few prompts to hold some out{alike}; raise --eval_share or give more data")
        refuse_thin_heads(config, kept)
        clean = data
        data, kept = (replace(m, items=turned_round(m.items, config.flips, config.seed)) for m in (data, kept))
        tested = cross_validate(config, world, data) if config.folds else None
        if tested is not None and world.is_main:
            found, pairs = cross_validated(config, clean.items, tested, lambda item: fold_of(item.prompt, config.folds))
            run.write_json("evaluation.json", found)
            run.write_json("tested.json", pairs)
        if tested is not None and config.suspects != "keep":
            scored = {id(item): scores for item, scores in zip(data.items, tested, strict=True)}
            kept = data.where(lambda prompt: not measures(prompt, config.eval_share))
            kept = replace(kept, items=without_suspects(config, run, kept.items, [scored[id(i)] for i in kept.items]))
            refuse_thin_heads(config, kept)
        learners = train_members(run, world, config, kept, held_out)
        if world.is_main:
            trained = [item.prompt for item in [*kept.items, *kept.labelled]]
            write_results(run, world, config, renderer, learners, kept, unseen, trained)
            run.finish(
                comparisons=len(data.items),
                labels=sum(len(i.labels) for i in kept.labelled),
                heads=data.heads,
            )
        return run


def train_members(
    run: RunFolder, world: World, config: Preference, kept: PreferenceData, held_out: Sequence[PreferenceItem]
) -> list[PreferenceLearner]:
    """The one model; or those of an ensemble, each in a run folder of its own; or one of their mean weights."""
    if config.ensemble == 1:
        return [train(run, world, config, kept, held_out, seed=config.seed)]
    learners = []
    for k in range(config.ensemble):
        learners.append(member(world, config, kept, held_out, k))
    if config.combine == "weights":
        mean = mean_weights([learner.state_dict() for learner in learners])
        learners[0].load_state_dict(mean)
        return learners[:1]
    return learners


def member(
    world: World, config: Preference, kept: PreferenceData, held_out: Sequence[PreferenceItem], number: int
) -> PreferenceLearner:
    """One model of several, trained or taken from its finished folder. Members whose weights are to be averaged share
    the head that they start from."""
    out = f"{config.out}/members/{number}"
    part = config.model_copy(update={"out": out, "folds": 0, "ensemble": 1, "seed": config.seed + number})
    head_seed = config.seed if config.combine == "weights" else part.seed
    with open_run("preference-member", part) as sub:
        learner = train(sub, world, part, kept, held_out, seed=head_seed, only_built=sub.finished)
        if not sub.finished and world.is_main:
            save_weights(learner, sub.path / "weights")
            sub.finish()
        elif sub.finished:
            load_weights(learner, sub.path / "weights")
    end_if_asked(sub, world, number + 1, "member")
    return learner


def end_if_asked(sub: RunFolder, world: World, number: int, what: str) -> None:
    """Raise Interrupted where a part that has ended well was asked to stop: it heard what was meant for the whole."""
    if any(world.gather(sub.stop_requested)):
        raise sub.interrupted(number, what)


def save_weights(learner: PreferenceLearner, folder: Path) -> None:
    from safetensors.torch import save_model

    folder.mkdir(exist_ok=True)
    save_model(learner, str(folder / "learner.safetensors"))


def load_weights(learner: PreferenceLearner, folder: Path) -> None:
    from safetensors.torch import load_model

    load_model(learner, str(folder / "learner.safetensors"))


def train(
    run: RunFolder,
    world: World,
    config: Preference,
    data: PreferenceData,
    held_out: Sequence[PreferenceItem],
    *,
    seed: int,
    only_built: bool = False,
) -> PreferenceLearner:
    """A scalar model fitted to comparisons and labels; an epoch passes once over both. `seed` draws its heads.

    `only_built` says that nothing else is to be done.
    """
    learner = new_learner(config, world, data, seed)
    if only_built:
        return learner
    lower_frozen([learner.scorer], config.precision, config.base_bits)
    items, labelled, per_epoch, label_batch = batches(config, data)

    def batch_at(step: int) -> list[PreferenceItem]:
        batch = [items[i] for i in batch_indices(step, len(items), config.batch_size, config.seed)]
        if labelled:
            batch += [labelled[i] for i in batch_indices(step, len(labelled), label_batch, config.seed + 1)]
        return batch

    def evaluate() -> dict[str, float]:
        with lowered(config.precision, world.device):
            scores = score_items(learner, held_out, config.micro_tokens, world)
        return {"eval/accuracy": mean_accuracy(held_out, scores)} if held_out else {}

    trained = fit(
        run,
        world,
        config,
        module=learner,
        steps=math.ceil(config.epochs * per_epoch),
        batch_at=batch_at,
        size=lambda item: item.group.tokens,
        totals=totals,
        loss=lambda part, whole: item_loss(learner, part, whole, config, world.device),
        evaluate=evaluate,
    )
    assert isinstance(trained, PreferenceLearner)
    unround(trained.scorer)  # everything that is told of the model is of what will be saved
    return trained


def batches(config: Preference, data: PreferenceData) -> tuple[list[PreferenceItem], list[PreferenceItem], int, int]:
    """What an epoch passes over, what comes beside it, steps of an epoch, and how much of the latter a step takes."""
    items, labelled = (data.items, data.labelled) if data.items else (data.labelled, [])
    per_epoch = steps_per_epoch(len(items), config.batch_size)
    return items, labelled, per_epoch, math.ceil(len(labelled) / per_epoch)


def new_learner(config: Preference, world: World, data: PreferenceData, seed: int) -> PreferenceLearner:
    """What training starts from; `seed` draws its heads."""
    scorer = start_scalar(config.model, data.heads, role=config.role, seed=seed)
    scorer = add_adapters(scorer, config, scalar=True, seed=config.seed)
    start = config.model if config.lm_weight else ""
    learner = PreferenceLearner(scorer, data.heads, data.labelers, tie_rate=data.tie_rate, start=start)
    return learner.to(world.device)


def settle_learner(config: Preference, run: RunFolder, world: World, data: PreferenceData) -> Preference:
    """Precision and micro-batch of every model of this run, measured on one of them."""
    learner = new_learner(config, world, data, config.seed)

    def compute(groups: Sequence[Group], precision: str) -> torch.Tensor:
        with lowered(precision, world.device):
            total = learner.scores(pack(groups, rows="last").to(world.device)).sum()
        if config.lm_weight:
            total = total + learner.token_logprobs(pack(groups).to(world.device)).sum()
        return total

    items, labelled, _, label_batch = batches(config, data)
    at_once = ((config.batch_size, items), (label_batch, labelled))
    largest = [i.group for n, some in at_once for i in heapq.nlargest(n, some, key=lambda item: item.group.tokens)]
    return settle(config, run, world, [learner], largest, compute)


@torch.no_grad()
def score_items(learner: PreferenceLearner, items: Sequence[PreferenceItem], micro_tokens: int, world: World) -> Scores:
    """Raw scores of every item's replies by its own head; each rank scores its share."""
    if not items:
        return []
    own: list[list[float]] = []
    shared = world.share(cut_by_tokens(items, lambda item: item.group.tokens, micro_tokens))
    for part, counts in in_step(world.sharded, shared, items[0]):
        packing = pack([item.group for item in part], rows="last").to(world.device)
        scores = own_scores(learner, part, learner.scores(packing)).tolist()
        own += [scores] if counts else []
    flat = [score for scores in world.interleave(own) for score in scores]
    out, start = [], 0
    for item in items:
        out.append(flat[start : start + len(item.texts)])
        start += len(item.texts)
    return out


def cross_validate(config: Preference, world: World, data: PreferenceData) -> Scores:
    """Scores of every item by models that saw no conversation with its opening: the mean over `ensemble` of them."""
    scores: dict[int, list[float]] = {}
    places = {id(item): place for place, item in enumerate(data.items)}
    for k in range(config.folds):
        inside = data.where(lambda prompt: fold_of(prompt, config.folds) == k).items  # noqa: B023 - called at once
        outside = data.where(lambda prompt: fold_of(prompt, config.folds) != k)  # noqa: B023
        if not inside or not outside.items:
            raise BadInput(f"--folds {config.folds}: fold {k} is empty; use fewer folds")
        found = [fold_scores(config, world, k, m, outside, inside) for m in range(config.ensemble)]
        for number, item in enumerate(inside):
            mean = torch.tensor([scored[number] for scored in found], dtype=torch.float64).mean(0)
            scores[places[id(item)]] = mean.tolist()
    return [scores[place] for place in range(len(data.items))]


def fold_scores(
    config: Preference, world: World, fold: int, number: int, outside: PreferenceData, inside: Sequence[PreferenceItem]
) -> Scores:
    """Scores of one fold's items by a model of the others."""
    out = f"{config.out}/folds/{fold}" + (f"-{number}" if config.ensemble > 1 else "")
    part = config.model_copy(update={"out": out, "folds": 0, "ensemble": 1, "seed": config.seed + number})
    with open_run("preference-fold", part) as run:
        if run.finished:
            stored: Scores = read_json(run.path / "scores.json")
            return stored
        learner = train(run, world, part, outside, inside, seed=part.seed)
        scored = score_items(learner, inside, config.micro_tokens, world)
        run.write_json("scores.json", scored)
        run.finish()
    end_if_asked(run, world, fold + 1, "fold")
    return scored
