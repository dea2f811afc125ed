"""Fresh samples as questions: what the snapshots say to the prompts, beside each other and without their names."""

import json
from collections.abc import Iterator, Sequence

from accord.data.chat import Renderer
from accord.data.sources import read_many, read_prompts
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import CACHED, sample
from accord.engine.texts import said
from accord.feedback.store.questions import REPLIES, Item
from accord.models.loading import load_policy
from accord.models.places import most_positions
from accord.models.preflight import preflight
from accord.models.tokenizer import load_renderer
from accord.records import Prompt
from accord.stages.collect.config import Collect
from accord.stages.shared import named, taken

TOO_LONG = "longer than a snapshot reads"
FEW = 8  # prompts that are answered before anybody sees a question of them


def draw_items(config: Collect) -> Iterator[list[Item]]:
    """Questions on fresh replies, a few prompts at a time; a prompt whose replies are equal or empty gives none.

    Raises BadInput for a snapshot or a source that will not do.
    """
    preflight({f"snapshot {number}": where for number, where in enumerate(config.snapshots)})
    loaded = read_many(read_prompts, named(config.data), **config.how)
    policies = [(where, load_policy(where, trainable=False), load_renderer(where)) for where in config.snapshots]
    prompts, drops = taken(
        [record for part in loaded.values() for record in part.records], [renderer for _, _, renderer in policies]
    )
    for _, model, renderer in policies:
        room = most_positions(model.config) or 2**31
        fitting = [p for p in prompts if len(renderer.prompt_ids(p.turns)) + config.max_new_tokens <= room]
        drops[TOO_LONG] = drops.get(TOO_LONG, 0) + len(prompts) - len(fitting)
        prompts = fitting
    dropped = ", ".join(f"{count} {reason}" for reason, count in drops.items() if count)
    print(f"{len(prompts)} prompts" + (f"; dropped {dropped}" if dropped else ""), flush=True)
    least, most = REPLIES[config.mode]
    count = min(most, config.samples) if least > 1 else 1
    for start in range(0, len(prompts), FEW):
        few = prompts[start : start + FEW]
        replies: list[list[tuple[str, str]]] = [[] for _ in few]
        for number, (where, model, renderer) in enumerate(policies):
            share = len(range(number, count, len(policies)))
            if share:
                for held, texts in zip(replies, _draw(config, model, renderer, few, share, start), strict=True):
                    held += [(text, origin(config, where)) for text in texts]
        items = [_item(config, prompt, held) for prompt, held in zip(few, replies, strict=True)]
        yield [item for item in items if item is not None]


def origin(config: Collect, where: str) -> str:
    """Which snapshot and which settings a reply came from."""
    settings = {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens, "seed": config.seed}
    return json.dumps({"snapshot": where, **settings})


def _draw(
    config: Collect, model: object, renderer: Renderer, prompts: Sequence[Prompt], share: int, start: int
) -> list[list[str]]:
    """`share` replies to each prompt, as texts."""
    settings = SampleSettings(
        n=share,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        stop_ids=renderer.stops,
        seed=config.seed,
        numbers=list(range(start, start + len(prompts))),
        vocabulary=renderer.vocabulary,
    )
    ids = [renderer.prompt_ids(prompt.turns) for prompt in prompts]
    drawn = sample(model, ids, settings, cache_tokens=config.cache_tokens or CACHED)  # type: ignore[arg-type]
    texts = [said(renderer, (), rollout.ids) for rollout in drawn]
    return [texts[place : place + share] for place in range(0, len(texts), share)]


def _item(config: Collect, prompt: Prompt, replies: Sequence[tuple[str, str]]) -> Item | None:
    texts, origins = zip(*replies, strict=True)
    if not all(map(str.strip, texts)) or len({text.strip() for text in texts}) < len(texts):
        return None
    return Item(config.mode, prompt, texts, tuple(config.criterion), origins, "", config.overlap)
