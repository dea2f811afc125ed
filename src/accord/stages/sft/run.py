"""Supervised fine-tuning: maximum likelihood on demonstrations, loss on assistant tokens alone.

    demonstrations → tokens and mask → max over θ of Σ mask_t · log π_θ(x_t | x_<t)

The mean is over the assistant tokens of the whole optimizer batch (InstructGPT, arXiv:2203.02155, section 3.5), not
a mean of per-conversation means.
"""

import heapq
import math

from accord.data.sources import few_openings, read_demonstrations, refuse_overlap
from accord.engine.texts import conversation_group
from accord.errors import BadInput
from accord.models.bases import lower_frozen
from accord.models.loading import add_adapters, load_policy
from accord.models.places import POLICY
from accord.models.policy import mean_loss
from accord.records import Demonstration, prompt_ids
from accord.run import RunFolder
from accord.stages.leaks import refuse_trained_prompts
from accord.stages.sft.config import Sft
from accord.stages.shared import (
    drop_long,
    hold_out,
    load_all,
    named,
    open_renderer,
    open_run,
    save_snapshot,
    settle_language_model,
    text_loss,
)
from accord.training import distributed
from accord.training.fit import fit
from accord.training.order import batch_indices, steps_per_epoch

HELD_OUT = 0.05  # of the openings, where no --eval_data is given


def run(config: Sft) -> RunFolder:
    """Fine-tune a snapshot on demonstrations; leaves a policy snapshot."""
    with open_run("sft", config, {"model": config.model}) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads, shard=config.shard)
        renderer = open_renderer(config.model, run, world)
        demonstrations: list[Demonstration] = load_all(
            read_demonstrations,
            config.data,
            config,
            run,
            split=config.split,
            weights=config.weights,
            renderers=[renderer],
        )
        if config.eval_data:
            held_out: list[Demonstration] = load_all(
                read_demonstrations, config.eval_data, config, run, what="eval_data", renderers=[renderer]
            )
            prompts = [d.prompt for d in held_out]
            refuse_overlap(prompt_ids(prompts), [d.prompt.id for d in demonstrations], "--eval_data", "--data")
            refuse_trained_prompts(prompts, [config.model], "--eval_data")
        else:
            demonstrations, held_out = hold_out(demonstrations, lambda shown: shown.prompt.opening, "sft", HELD_OUT)
        if not demonstrations or not held_out:
            alike = few_openings([*demonstrations, *held_out])
            raise BadInput(f"too few demonstrations to hold {100 * HELD_OUT:g} % out{alike}; give --eval_data")
        groups = [conversation_group(renderer, d, config.train_on) for d in demonstrations]
        groups, demonstrations = drop_long(groups, demonstrations, config.max_length, run)
        eval_groups = [conversation_group(renderer, d, config.train_on) for d in held_out]
        eval_groups, _ = drop_long(eval_groups, held_out, config.max_length, run, "eval_data")
        model = add_adapters(load_policy(config.model), config, scalar=False, seed=config.seed).to(world.device)
        largest = heapq.nlargest(config.batch_size, groups, key=lambda group: group.tokens)
        config = settle_language_model(config, run, world, model, largest)
        lower_frozen([model], config.precision, config.base_bits)

        model = fit(
            run,
            world,
            config,
            module=model,
            steps=math.ceil(config.epochs * steps_per_epoch(len(groups), config.batch_size)),
            batch_at=lambda step: [groups[i] for i in batch_indices(step, len(groups), config.batch_size, config.seed)],
            size=lambda group: group.tokens,
            totals=lambda items: sum(group.trained for group in items),
            loss=text_loss(model, world, config.precision),
            evaluate=lambda: {"eval/loss": mean_loss(model, eval_groups, config.micro_tokens, world, config.precision)},
        )
        if world.is_main:
            facts = {"data": named(config.data), "demonstrations": len(groups), "parent": config.model}
            save_snapshot(run, model, renderer.tokenizer, POLICY, facts, demonstrations)
            run.finish(demonstrations=len(groups))
        return run
