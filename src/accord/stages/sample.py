"""Sampling: prompts → replies in `samples.jsonl`, with the ids and log-probs they were drawn at."""

from collections.abc import Iterator, Sequence

from torch import nn

from accord.config import Evaluate, Sample
from accord.data.batches import reply_group
from accord.data.chat import Renderer
from accord.data.sources import read_prompts
from accord.models.loading import load_policy, load_renderer
from accord.models.sampling import sample
from accord.records import Prompt, Rollout
from accord.run import RunFolder
from accord.stages.inputs import drop_long, load_all
from accord.training import distributed
from accord.training.progress import Progress

CHUNK = 1024  # replies between two writes: what an interruption can lose

Drawn = list[tuple[Prompt, list[Rollout]]]


def run(config: Sample) -> RunFolder:
    """Draw replies from a snapshot; leaves `samples.jsonl`."""
    with RunFolder("sample", config, {"model": config.model}) as run:
        if run.finished:
            return run
        world = distributed.start(config.threads)
        renderer = load_renderer(config.model)
        prompts: list[Prompt] = load_all(read_prompts, config.data, config, run, split=config.split)
        rendered = [reply_group(renderer.prompt_ids(p.turns), ()) for p in prompts]
        rendered, prompts = drop_long(rendered, prompts, config.max_length, run)
        model = load_policy(config.model, trainable=False).to(world.device)
        for drawn in draw(run, model, renderer, prompts, config):
            for prompt, replies in drawn:
                for rollout in replies:
                    run.add_sample(
                        {
                            "prompt_id": prompt.id,
                            "slice": prompt.slice,
                            "source": prompt.source,
                            "prompt": [turn._asdict() for turn in prompt.turns],
                            "reply": renderer.text(rollout.ids),
                            "finish": rollout.finish,
                            "logprob": sum(rollout.logprobs),
                            "model": config.model,
                            "temperature": config.temperature,
                        }
                    )
        run.finish(samples=len(prompts) * config.samples)
        return run


def draw(
    run: RunFolder, model: nn.Module, renderer: Renderer, prompts: Sequence[Prompt], config: Sample | Evaluate
) -> Iterator[Drawn]:
    """`config.samples` rollouts per prompt, a chunk of prompts at a time, each to be written before the next is drawn.

    A resumed run goes on after the last whole chunk of its `samples.jsonl`. Raises Interrupted after Ctrl-C.
    """
    n = config.samples
    size = max(1, CHUNK // n)
    first = run.keep_samples(size * n) // n
    progress = Progress(run.stage, len(prompts), unit="prompt", first=first)
    while first < len(prompts):
        chunk = prompts[first : first + size]
        rollouts = sample(
            model,
            [renderer.prompt_ids(p.turns) for p in chunk],
            n=n,
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            stop_ids=frozenset({renderer.eos}),
            seed=config.seed,
            numbers=range(first, first + len(chunk)),
            micro_tokens=config.micro_tokens,
        )
        yield [(prompt, rollouts[i * n : (i + 1) * n]) for i, prompt in enumerate(chunk)]
        first += len(chunk)
        progress.update(first, {})
        if run.stop_requested and first < len(prompts):
            raise run.interrupted(first, "prompt")
