"""P(IK): a head that tells from the prompt alone how likely the model knows the answer.

    judgements of samples → share of right ones by prompt → a scalar head at the prompt's last token → cross-entropy

Kadavath et al. 2022, "Language Models (Mostly) Know What They Know" (arXiv:2207.05221), section 5: the whole model is
fine-tuned, in large batches, as labels are noisy.
"""

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from accord.data.chat import Renderer
from accord.data.sources import few_openings, read_judgements
from accord.engine.forward.adapters import unround
from accord.engine.packing import Group, pack
from accord.errors import BadInput
from accord.evaluation.honesty import stated_numbers
from accord.models.bases import lower_frozen
from accord.models.knowledge import prompt_group, prompt_logits
from accord.models.loading import add_adapters
from accord.models.places import KNOWLEDGE
from accord.models.scalar import start_scalar, values
from accord.objectives.honesty import Losses, knowledge_loss
from accord.records import Judgement, Prompt
from accord.run import RunFolder
from accord.stages.probe.config import ProbeHead
from accord.stages.probe.lessons import KNOWN
from accord.stages.shared import drop_long, hold_out, load_criterion, named, open_renderer, open_run, save_snapshot
from accord.training import distributed
from accord.training.fit import fit
from accord.training.machine import settle
from accord.training.order import batch_indices, steps_per_epoch
from accord.training.precision import lowered


class KnowledgeItem(NamedTuple):
    """A prompt with the share of its samples that are right, of so many."""

    prompt: Prompt
    share: float
    samples: int
    group: Group


def run(config: ProbeHead) -> RunFolder:
    """Train a P(IK) head; leaves a snapshot of the role `knowledge` and `evaluation.json`."""
    with open_run("probe-head", config, {"model": config.model}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads)
        renderer = open_renderer(config.model, run, world)
        items = read_items(config, run, renderer)
        kept, held_out = hold_out(items, lambda item: item.prompt.opening, "probe", config.eval_share)
        if not kept or not held_out:
            alike = few_openings(item.prompt for item in items)
            raise BadInput(f"too few questions to hold some out{alike}; raise --eval_share or give more data")
        start = start_scalar(config.model, [KNOWN], role=KNOWLEDGE, seed=config.seed)
        model = add_adapters(start, config, scalar=True, seed=config.seed).to(world.device)

        def compute(groups: Sequence[Group], precision: str) -> torch.Tensor:
            with lowered(precision, world.device):
                return values(model, pack(groups, rows="last").to(world.device)).sum()

        largest = heapq.nlargest(config.batch_size, (item.group for item in kept), key=lambda group: group.tokens)
        config = settle(config, run, world, [model], largest, compute)
        lower_frozen([model], config.precision, config.base_bits)

        def loss(part: Sequence[KnowledgeItem], count: int) -> Losses:
            packing = pack([item.group for item in part], rows="last").to(world.device)
            with lowered(config.precision, world.device):
                logits = values(model, packing)
            shares = torch.tensor([item.share for item in part], device=world.device)
            return knowledge_loss(logits, shares, count=count)

        def told(some: Sequence[KnowledgeItem], precision: str) -> list[float]:
            with lowered(precision, world.device):
                found = prompt_logits(model, [item.group for item in some], config.micro_tokens, world.device)
            return torch.sigmoid(found).tolist()

        model = fit(
            run,
            world,
            config,
            module=model,
            steps=math.ceil(config.epochs * steps_per_epoch(len(kept), config.batch_size)),
            batch_at=lambda step: [kept[i] for i in batch_indices(step, len(kept), config.batch_size, config.seed)],
            size=lambda item: item.group.tokens,
            totals=len,
            loss=loss,
            evaluate=lambda: {"eval/brier": mean_brier(told(held_out, config.precision), held_out)},
        )
        unround(model)  # what is told of it is of what is saved
        if world.is_main:
            run.write_json("evaluation.json", {"p_ik": measured(told(held_out, "f32"), held_out, config.seed)})
            description = {"role": KNOWLEDGE, "criterion": KNOWN, "normalizer": {"kind": "none"}}
            facts = {"data": named(config.data), "questions": len(kept), "parent": config.model}
            save_snapshot(run, model, renderer.tokenizer, description, facts, [item.prompt for item in kept])
            run.finish(questions=len(kept))
        return run


def read_items(config: ProbeHead, run: RunFolder, renderer: Renderer) -> list[KnowledgeItem]:
    """A question for every prompt, with the share of right samples; BadInput where a label is no yes or no."""
    read: list[Judgement] = load_criterion(
        read_judgements, config.data, config, run, KNOWN, what="data", renderers=[renderer]
    )
    if other := next((judgement.kind for judgement in read if judgement.kind != "good"), ""):
        raise BadInput(f"--data: labels of the kind {other} do not say which replies are right; give those of a probe")
    grouped: dict[str, list[Judgement]] = {}
    for judgement in read:
        grouped.setdefault(judgement.prompt.id, []).append(judgement)
    items = []
    for own in grouped.values():
        prompt = own[0].prompt
        share = sum(judgement.value for judgement in own) / len(own)
        items.append(KnowledgeItem(prompt, share, len(own), prompt_group(renderer.prompt_ids(prompt.turns))))
    return drop_long([item.group for item in items], items, config.max_length, run)[1]


def mean_brier(chances: Sequence[float], items: Sequence[KnowledgeItem]) -> float:
    """Mean squared distance of P(IK) and the share of right samples."""
    return sum((p - item.share) ** 2 for p, item in zip(chances, items, strict=True)) / len(items)


def measured(chances: Sequence[float], items: Sequence[KnowledgeItem], seed: int) -> dict[str, object]:
    """AUROC, Brier and ECE over every held-out sample, clustered by question."""
    p, right, clusters = [], [], []
    for chance, item in zip(chances, items, strict=True):
        hits = round(item.share * item.samples)
        p += [chance] * item.samples
        right += [1.0] * hits + [0.0] * (item.samples - hits)
        clusters += [item.prompt.id] * item.samples
    return stated_numbers(p, right, clusters, seed=seed, resamples=1000)
