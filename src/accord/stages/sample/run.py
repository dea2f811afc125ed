"""Sampling: prompts → replies in `samples.jsonl`, with the log-probs they were drawn at.

With `--select` also a policy made of draws: best of n, or rejection sampling. What it gives is in
`demonstrations.jsonl`, ready for `accord sft` (rejection-sampling fine-tuning, Touvron et al. 2023, arXiv:2307.09288).
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accord.data.chat import Renderer
from accord.data.rows import prompt_of_row, rollout_row, write_records
from accord.data.sources import read_prompts
from accord.disk import read_lines
from accord.engine.engines import Engine, Served, open_engine
from accord.engine.remote.vllm import servers_at
from accord.engine.texts import rollout_groups, said
from accord.models.loading import load_policy
from accord.models.places import base_of, read_config
from accord.models.scorers import ReplyScorer, open_scorer
from accord.objectives.best_of import acceptance, best_of_kl_bound, best_of_kl_estimate
from accord.records import Demonstration, Prompt
from accord.run import RunFolder
from accord.stages.sample.config import Sample
from accord.stages.shared import Drawn, cache_of, draw, drop_long_prompts, load_all, open_renderer, open_run
from accord.training import distributed
from accord.training.precision import choose_precision, lowered


def run(config: Sample) -> RunFolder:
    """Draw replies from a snapshot; leaves `samples.jsonl`."""
    parents = {"model": config.model} | {f"reward.{n}": p for n, p in config.rewards.items()}
    with open_run("sample", config, parents) as run:
        if run.finished:
            return run
        world = distributed.start(run.threads)
        renderer = open_renderer(config.model, run, world)
        scorers = [open_scorer(where, "preference", renderer, world.device, n) for n, where in config.rewards.items()]
        renderers = [renderer, *(scorer.renderer for scorer in scorers if scorer.renderer)]
        prompts: list[Prompt] = load_all(
            read_prompts, config.data, config, run, split=config.split, renderers=renderers
        )
        prompts = drop_long_prompts(renderer, prompts, config.max_length, run)
        precision = run.decide("precision", lambda: choose_precision(world))
        with closing(engine_of(config, run, world.device)) as engine, lowered(precision, world.device):
            for drawn in draw(run, engine, renderer, prompts, config, samples=config.samples, seed=config.seed):
                scores = score(config, renderer, scorers, drawn) if scorers else None
                for place, (prompt, replies) in enumerate(drawn):
                    kept = select(config, prompt, scores[place]) if scores is not None else None
                    for k, rollout in enumerate(replies):
                        row = rollout_row(
                            prompt,
                            said(renderer, config.stop, rollout.ids),
                            rollout,
                            logprob=sum(rollout.logprobs),
                            model=config.model,
                            temperature=config.temperature,
                        )
                        if scores is not None and kept is not None:
                            row |= {"score": float(scores[place, k]), "kept": bool(kept[k])}
                        run.add_sample(row)
        chosen = write_selected(config, run) if scorers and world.is_main else {}
        run.finish(samples=len(prompts) * config.samples, **chosen)
        return run


def engine_of(config: Sample, run: RunFolder, device: torch.device) -> Engine:
    """What draws replies of the snapshot; a server reads a plain one itself."""
    if config.engine and Path(config.model).is_dir() and not base_of(config.model):
        rows = read_config(config.model).get_text_config().vocab_size
        served = Served(servers_at(config.engine, *config.most_tokens), run.path, rows)
        served.follow_directory(str(Path(config.model).resolve()))
        return served
    model = load_policy(config.model, trainable=False).to(device)
    engine = open_engine(config.engine, model, run.path, config.most_tokens, cache_tokens=cache_of(config, model))
    engine.follow(model)
    return engine


def score(config: Sample, renderer: Renderer, scorers: Sequence[ReplyScorer], drawn: Drawn) -> Tensor:
    """Summed scores (prompts, samples) of a chunk of replies."""
    prompts = [prompt for prompt, replies in drawn for _ in replies]
    texts = [said(renderer, config.stop, rollout.ids) for _, replies in drawn for rollout in replies]
    groups = rollout_groups([rollout for _, replies in drawn for rollout in replies])
    total = torch.zeros(len(texts))
    for scorer in scorers:
        total = total + scorer.scores(prompts, texts, groups, micro_tokens=config.micro_tokens)
    return total.view(len(drawn), -1)


def select(config: Sample, prompt: Prompt, scores: Tensor) -> Tensor:
    """(samples,) True for the replies that are kept: the first best one, or every one that is accepted.

    What is accepted depends on the seed and the prompt, not on where the prompt stands.
    """
    if config.select == "best":
        return torch.arange(len(scores)) == int(scores.argmax())
    generator = torch.Generator().manual_seed(int(prompt.id[:12], 16) ^ config.seed)
    return torch.rand(len(scores), generator=generator) < acceptance(scores, beta=config.beta, highest=scores.max())


def write_selected(config: Sample, run: RunFolder) -> dict[str, Any]:
    """The kept replies as demonstrations; how many, and how far from the policy they are in nats."""
    rows = [row for row in read_lines(run.path / "samples.jsonl") if row["kept"]]
    write_records(run.path / "demonstrations.jsonl", (demonstration(row) for row in rows if row["reply"]))
    facts: dict[str, Any] = {"kept": len(rows)}
    if config.select == "best":
        estimate = best_of_kl_estimate(torch.tensor([row["logprob"] for row in rows]), config.samples)
        facts |= {"kl_bound": best_of_kl_bound(config.samples), "kl_estimate": float(estimate.mean())}
    return facts


def demonstration(row: Mapping[str, Any]) -> Demonstration:
    """A kept reply as something to learn from."""
    return Demonstration(replace(prompt_of_row(row), source=f"sample:{row['model']}"), row["reply"])
