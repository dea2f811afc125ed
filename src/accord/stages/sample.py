"""Sampling: prompts → replies in `samples.jsonl`, with the ids and log-probs they were drawn at."""

from collections.abc import Sequence

from torch import nn

from accord.config import Sample
from accord.data.batches import reply_group
from accord.data.chat import Renderer
from accord.data.sources import read_prompts
from accord.models.loading import load_policy, load_renderer
from accord.models.sampling import sample
from accord.records import Prompt, Rollout
from accord.run import RunFolder
from accord.stages.inputs import drop_long, load_all
from accord.training import distributed


def run(config: Sample) -> RunFolder:
    """Draw replies from a snapshot; leaves `samples.jsonl`."""
    with RunFolder("sample", config, {"model": config.model}) as run:
        if run.finished:
            return run
        run.truncate_logs(-1)
        world = distributed.start(config.threads)
        renderer = load_renderer(config.model)
        prompts: list[Prompt] = load_all(read_prompts, config.data, config, run, split=config.split)
        rendered = [reply_group(renderer.prompt_ids(p.turns), ()) for p in prompts]
        rendered, prompts = drop_long(rendered, prompts, config.max_length, run)
        model = load_policy(config.model, trainable=False).to(world.device)
        for prompt, replies in draw(model, renderer, prompts, config, seed=config.seed):
            for rollout in replies:
                run.add_sample(
                    {
                        "prompt_id": prompt.id,
                        "slice": prompt.slice,
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
    model: nn.Module, renderer: Renderer, prompts: Sequence[Prompt], config: object, *, seed: int
) -> list[tuple[Prompt, list[Rollout]]]:
    """`config.samples` rollouts for each prompt at the config's temperature and length."""
    n: int = config.samples  # type: ignore[attr-defined]
    rollouts = sample(
        model,
        [renderer.prompt_ids(p.turns) for p in prompts],
        n=n,
        temperature=config.temperature,  # type: ignore[attr-defined]
        max_new_tokens=config.max_new_tokens,  # type: ignore[attr-defined]
        stop_ids=frozenset({renderer.eos}),
        seed=seed,
        micro_tokens=config.micro_tokens,  # type: ignore[attr-defined]
    )
    return [(prompt, rollouts[i * n : (i + 1) * n]) for i, prompt in enumerate(prompts)]
