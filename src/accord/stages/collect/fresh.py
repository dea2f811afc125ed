"""Fresh samples as questions: what the snapshots say to the prompts, beside each other and without their names."""

from collections.abc import Iterator, Sequence

from accord.data.sources import read_many, read_prompts
from accord.feedback.store.questions import REPLIES, Item
from accord.records import Prompt
from accord.stages.collect.config import Collect, Drawn
from accord.stages.collect.snapshots import Snapshots
from accord.stages.shared import named, taken

TOO_LONG = "longer than a snapshot reads"
FIRST, FEW = 2, 8  # prompts that are answered before anybody sees a question of them: at first, and later


def draw_items(config: Collect, mode: Drawn, snapshots: Snapshots) -> Iterator[list[Item]]:
    """Questions on fresh replies, a few prompts at a time; a prompt whose replies are equal or empty gives none.

    Raises BadInput for a snapshot or a source that will not do.
    """
    policies = snapshots.all()
    loaded = read_many(read_prompts, named(config.data), **config.how)
    prompts, drops = taken(
        [record for part in loaded.values() for record in part.records], [policy.renderer for policy in policies]
    )
    for policy in policies:
        fitting = [prompt for prompt in prompts if policy.fits(prompt.turns, config.max_new_tokens)]
        drops[TOO_LONG] = drops.get(TOO_LONG, 0) + len(prompts) - len(fitting)
        prompts = fitting
    dropped = ", ".join(f"{count} {reason}" for reason, count in drops.items() if count)
    print(f"{len(prompts)} prompts" + (f"; dropped {dropped}" if dropped else ""), flush=True)
    least, most = REPLIES[mode]
    count = min(most, config.samples) if least > 1 else 1
    # a conversation waits until what is being drawn is whole
    later = FEW if set(config.mode) <= set(config.drawn) else FIRST
    start = 0
    while few := prompts[start : start + (later if start else FIRST)]:
        replies: list[list[tuple[str, str]]] = [[] for _ in few]
        for number, policy in enumerate(policies):
            share = len(range(number, count, len(policies)))
            if share:
                turns = [prompt.turns for prompt in few]
                drawn = snapshots.draw(policy, turns, share, seed=config.seed, first=start)
                for held, texts in zip(replies, drawn, strict=True):
                    held += [(text, snapshots.origin(policy.where, config.seed)) for text in texts]
        items = [_item(config, mode, prompt, held) for prompt, held in zip(few, replies, strict=True)]
        yield [item for item in items if item is not None]
        start += len(few)


def _item(config: Collect, mode: Drawn, prompt: Prompt, replies: Sequence[tuple[str, str]]) -> Item | None:
    texts, origins = zip(*replies, strict=True)
    if not all(map(str.strip, texts)) or len({text.strip() for text in texts}) < len(texts):
        return None
    weighs = config.weighs(prompt)
    return Item(mode, prompt, texts, tuple(config.criterion), origins, "", config.overlap, harmful=weighs)
