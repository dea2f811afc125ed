"""What stages read and leave behind in the same way: records with their drops, snapshots with their card."""

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from accord import __version__
from accord.config import Config, Decoding, Reading, Sampling, to_plain
from accord.data.chat import Renderer
from accord.data.rows import prompt_of_row
from accord.data.schemes import pin_feedback
from accord.data.sources import Loaded, few_openings, prompt_of, read_many, select_split
from accord.data.template import Refused
from accord.disk import read_json, read_lines
from accord.engine.decode.draw import SampleSettings
from accord.engine.decode.sampler import CACHED, cache_bytes
from accord.engine.engines import Engine
from accord.engine.packing import Group, pack, reply_group
from accord.engine.texts import RankedReplies, says
from accord.errors import BadInput
from accord.models.policy import compute_logprobs
from accord.models.preflight import preflight
from accord.models.saving import save_model
from accord.models.tokenizer import load_renderer
from accord.objectives.likelihood import likelihood_loss
from accord.records import Comparison, Demonstration, Judgement, Prompt, Rollout, is_held_out
from accord.run import RunFolder
from accord.stages.leaks import refuse_held_out, remember_prompts
from accord.training import distributed, heap
from accord.training.distributed import World
from accord.training.fit import Losses
from accord.training.machine import C, settle
from accord.training.memory import free_bytes, plan_cache
from accord.training.progress import Progress
from accord.training.tracking import Tracker

CHUNK = 1024  # replies between two writes: what an interruption can lose

Drawn = list[tuple[Prompt, list[Rollout]]]


R = TypeVar("R")
Item = TypeVar("Item", bound=RankedReplies)


@contextmanager
def open_run(stage: str, config: Config, parents: Mapping[str, str] | None = None) -> Iterator[RunFolder]:
    """The run folder of a stage, whose lineage names the gold world where the run reads from it.

    The models in `parents` are looked at before anything else is done with them. Raises BadInput for what is wrong.
    """
    with RunFolder(stage, config, parents, origin=lambda: world_of(config)) as run:
        if not run.finished:
            longest, knobs = config.most_tokens
            preflight(parents or {}, longest=longest, knobs=knobs)
            if (track := getattr(config, "track", "none")) != "none" and run.is_main:
                run.follower = Tracker(track, run.path, to_plain(config))
        yield run


def world_of(config: Config) -> dict[str, str]:
    """Version and hash of the gold world, where a knob names it as a source."""
    if '"world:' not in json.dumps(to_plain(config)):
        return {}
    from accord.world import VERSION, world_hash  # most runs never ask it, and every start would wait for it

    return {"world": f"{VERSION} {world_hash()}"}


def named(sources: str | Mapping[str, str]) -> dict[str, str]:
    """`--data SOURCE` is a single unnamed source; `--data.NAME SOURCE` names slices."""
    return {"": sources} if isinstance(sources, str) else dict(sources)


def load_all(
    reader: Any,
    sources: str | Mapping[str, str],
    reading: Reading,
    run: RunFolder,
    *args: str,
    split: str = "",
    what: str = "data",
    weights: Mapping[str, float] | None = None,
    renderers: Sequence[Renderer] = (),
) -> list[Any]:
    """Read every source, print and save what was dropped, keep one split; records in the order of the sources.

    `weights` are the sources' shares of the mixture, by size where there are none. What the chat template of one of the
    `renderers` does not take is dropped by the template's words.
    Raises BadInput when nothing is left, or where a resumed run finds other rows than it began with.
    """
    parts: dict[str, Loaded[Any]] = read_many(
        reader, pin_sources(named(sources), run, what), *args, weights=weights, **reading.how
    )
    records = []
    report = []
    dropped_by = []
    for name, part in parts.items():
        kept = select_split(part.records, split) if split else part.records
        kept, refused = taken(kept, renderers)
        drops = part.drops | refused
        dropped_by.append(drops)
        records += kept
        report.append(
            {
                "name": name,
                "source": part.source,
                "shape": part.shape,
                "rows": part.rows,
                "hash": part.hash,
                "records": len(part.records),
                "used": len(kept),
                "drops": drops,
                "duplicates": part.duplicates,
                "notes": part.notes,
            }
        )
        dropped = ", ".join(f"{count} {reason}" for reason, count in drops.items())
        print(
            f"{part.source}: {part.rows} rows, {len(kept)} used"
            + (f" of split {split}" if split else "")
            + (f"; dropped {dropped}" if dropped else "")
            + "".join(f"; {count} with {note}" for note, count in part.notes.items())
        )
    if not records:
        lost = "".join(f", {count} {reason}" for drops in dropped_by for reason, count in drops.items())
        alike = few_openings(record for part in parts.values() for record in part.records) if split else ""
        raise BadInput(
            f"nothing is left of {', '.join(named(sources).values())}"
            + (f" in split {split}{alike}; give more data, or leave --split out" if split else "; give more data")
            + (f" (dropped{lost[1:]})" if lost else "")
        )
    refuse_held_out(records, run.stage, what)
    run.keep_sources(what, report)
    return records


def pin_sources(sources: Mapping[str, str], run: RunFolder, what: str) -> dict[str, str]:
    """Sources that stand for the same rows on every rank and after --resume: a store of feedback grows, and is read up
    to the event that was its newest when this run began."""
    growing = {name: source for name, source in sources.items() if source.startswith("feedback:")}
    if not growing:
        return dict(sources)
    stored = run.path / "data" / f"{what}.json"
    before = {row["name"]: row["source"] for row in read_json(stored)} if stored.exists() else {}
    pinned = {name: before.get(name) or pin_feedback(source) for name, source in growing.items()}
    first: dict[str, str] = distributed.start(run.threads).gather(pinned)[0]
    return {**sources, **first}


def taken(records: Sequence[Any], renderers: Sequence[Renderer]) -> tuple[list[Any], dict[str, int]]:
    """The records that every renderer's template takes, and how many were refused for what reason."""
    kept = []
    refused: Counter[str] = Counter()
    for record in records:
        try:
            for renderer in renderers:
                renderer.take(prompt_of(record).turns, *replies_of(record))
            kept.append(record)
        except Refused as reason:
            refused[str(reason)] += 1
    return kept, dict(refused)


def replies_of(record: Prompt | Demonstration | Comparison | Judgement) -> tuple[str, ...]:
    """The replies that a record holds."""
    if isinstance(record, Comparison):
        return record.replies
    return () if isinstance(record, Prompt) else (record.reply,)


def open_renderer(where: str, run: RunFolder, world: World) -> Renderer:
    """The renderer of a run's model; a template that writes the time is told the run's (`--clock`).

    BadInput for `--clock` where the template writes none.
    """
    renderer = load_renderer(where, clock=lambda: str(world.gather(run.clock)[0]))
    refuse_idle_clock(run, [renderer])
    return renderer


def refuse_idle_clock(run: RunFolder, renderers: Iterable[Renderer]) -> None:
    """Raise BadInput for `--clock` where none of the templates writes the time."""
    if run.config.clock and not any(renderer.clock for renderer in renderers):
        raise BadInput("--clock has no effect: the chat template writes no time; leave it out")


def hold_out(records: Iterable[R], key: Callable[[R], str], purpose: str, share: float) -> tuple[list[R], list[R]]:
    """What is learned from, and the share that is held out of it to measure on; both in the order of the records."""
    kept: list[R] = []
    held_out: list[R] = []
    for record in records:
        (held_out if is_held_out(key(record), purpose, share) else kept).append(record)
    return kept, held_out


def measures(prompt: Prompt, share: float) -> bool:
    """Whether comparisons on a prompt measure instead of train: preference models and the direct family agree on it."""
    return is_held_out(prompt.opening, "preference", share)


def drop_long(
    groups: list[Any], keys: list[R], max_length: int, run: RunFolder, what: str = "data", *, for_replies: int = 0
) -> tuple[list[Any], list[R]]:
    """Drop what has a text longer than `max_length` tokens, with its record; both sides of a pair count.

    Of prompts, `for_replies` tokens are kept free. Raises BadInput where nothing is left.
    """
    bound = f"--max_length {max_length}" + (f" less --max_new_tokens {for_replies}" if for_replies else "")
    kept = [
        (group, key)
        for group, key in zip(groups, keys, strict=True)
        if len(group.prefix) + max((len(reply) for reply in group.replies), default=0) <= max_length - for_replies
    ]
    dropped = len(groups) - len(kept)
    if dropped:
        print(f"dropped {dropped} of {len(groups)} longer than {bound} tokens")
        report = {"max_length": max_length, "dropped": dropped} | ({"for_replies": for_replies} if for_replies else {})
        run.write_json(f"data/{what}-too-long.json", report)
    if not kept:
        raise BadInput(f"every text is longer than {bound} tokens; raise it")
    return [group for group, _ in kept], [key for _, key in kept]


def drop_long_prompts(
    renderer: Renderer,
    prompts: list[Prompt],
    max_length: int,
    run: RunFolder,
    what: str = "data",
    *,
    for_replies: int = 0,
) -> list[Prompt]:
    """Drop prompts longer than `max_length` tokens less those kept free `for_replies`, counted."""
    rendered = [reply_group(renderer.prompt_ids(prompt.turns), ()) for prompt in prompts]
    return drop_long(rendered, prompts, max_length, run, what, for_replies=for_replies)[1]


def load_criterion(
    reader: Any, sources: str | Mapping[str, str], reading: Reading, run: RunFolder, criterion: str, **options: Any
) -> list[Any]:
    """`load_all` of what was said under one criterion; a source may hold others, and one that names none is of it."""
    read = load_all(reader, sources, reading, run, criterion, **options)
    return [record for record in read if record.criterion == criterion]


def drop_alike(items: Sequence[Item]) -> list[Item]:
    """Drop comparisons of replies with equal tokens, counted: their loss would be ln 2 for ever."""
    kept = [item for item in items if not item.alike]
    if len(kept) < len(items):
        print(f"dropped {len(items) - len(kept)} of {len(items)} comparisons for replies of equal tokens")
    return kept


def drop_ties(items: Sequence[Item], hint: str = "") -> list[Item]:
    """Drop comparisons that are ties throughout and rank nothing, counted; `hint` says what would use them."""
    kept = [item for item in items if item.pairs]
    if len(kept) < len(items):
        print(f"dropped {len(items) - len(kept)} of {len(items)} comparisons as ties throughout{hint}")
    return kept


def refuse_unranked(items: Sequence[RankedReplies], criterion: str) -> None:
    """Raise BadInput where no comparison under the criterion is left that ranks."""
    if not any(item.pairs for item in items):
        raise BadInput(f"no comparison under --criterion {criterion} says which reply is better")


def card(stage: str, facts: Mapping[str, Any]) -> str:
    """The model card of a snapshot."""
    lines = [
        "---",
        "library_name: transformers",
        f"tags: [accord, {stage}]",
        "---",
        "",
        f"# A snapshot of `accord {stage}`",
        "",
        f"Made by Accord {__version__}. The run folder beside this directory holds its config, lineage and metrics.",
        "",
        *(f"- {key}: {json.dumps(value, ensure_ascii=False)}" for key, value in facts.items()),
    ]
    return "\n".join(lines) + "\n"


def save_snapshot(
    run: RunFolder,
    model: nn.Module,
    tokenizer: Any,
    description: Mapping[str, Any],
    facts: Mapping[str, Any],
    trained_on: Iterable[Any] = (),
) -> None:
    """Write `snapshot/` atomically, with the prompts that it and its ancestors were trained on."""
    heap.trim()
    with run.new_snapshot() as folder:
        save_model(model, tokenizer, folder, dict(description), card(run.stage, facts))
        remember_prompts(run, folder, trained_on)


def gold_scores(prompt: Prompt, reply: str) -> dict[str, float]:
    """Gold scores of a reply by name; empty where the truth is not known."""
    if not prompt.source.startswith("world:"):
        return {}
    from accord.world import judge

    gold = judge(prompt.turns, reply)
    scores = {
        "gold/helpful": gold.helpful,
        "gold/harm": gold.harm,
        "gold/harm_share": float(gold.harm > 0),
        "gold/honest": gold.honest,
        "gold/evasive": gold.evasive,
        "gold/refusal": float(gold.refused),
    }
    if gold.correct is not None:
        scores["gold/correct"] = float(gold.correct)
    return scores


def gold_values(prompt: Prompt, replies: Sequence[str], criterion: str, labeler: str = "") -> list[float]:
    """What each reply to a prompt of the gold world is truly worth, to those of a labeler's group who miss nothing."""
    from accord.world import group_in, judge, parse, value

    harmful, group = parse(prompt.turns).harmful, group_in(labeler)
    return [value(judge(prompt.turns, reply), harmful, criterion, group) for reply in replies]


def has_gold(prompt: Prompt, criterion: str) -> bool:
    """Whether `gold_values` knows the worth of replies to a prompt under a criterion."""
    if not prompt.source.startswith("world:"):
        return False
    from accord.world import CRITERIA

    return criterion in CRITERIA


def settle_language_model(
    config: C, run: RunFolder, world: World, model: torch.nn.Module, largest: Sequence[Group]
) -> C:
    """The config of a stage that trains on log-probs, with what the machine decides; `largest` is its largest batch."""

    def compute(some: Sequence[Group], precision: str) -> torch.Tensor:
        return compute_logprobs(model, pack(some).to(world.device), precision).sum()

    return settle(config, run, world, [model], largest, compute)


def text_loss(model: nn.Module, world: World, precision: str) -> Callable[[Sequence[Group], int], Losses]:
    """Negative log-likelihood of groups of a batch that trains on `count` tokens in all, as `fit` asks for it."""

    def loss(groups: Sequence[Group], count: int) -> Losses:
        packing = pack(groups).to(world.device)
        return likelihood_loss(compute_logprobs(model, packing, precision), count=count)

    return loss


def cache_of(sampling: Sampling, model: nn.Module) -> int:
    """Tokens that the sampler's cache may hold: as asked for, else what fits."""
    device = next(model.parameters()).device
    return sampling.cache_tokens or plan_cache(cache_bytes(model), free_bytes(device), CACHED)


def sample_settings(
    sampling: Sampling, renderer: Renderer, n: int, seed: int, version: str = "", numbers: Sequence[int] | None = None
) -> SampleSettings:
    """`n` replies per prompt as the knobs say, each until a token, or a text, that ends one."""
    settings = SampleSettings(
        n,
        sampling.temperature,
        sampling.max_new_tokens,
        renderer.stops,
        seed,
        version,
        numbers,
        vocabulary=renderer.vocabulary,
    )
    if not isinstance(sampling, Decoding):
        return settings
    ends = functools.partial(says, renderer, sampling.stop) if sampling.stop else None
    return replace(settings, top_p=sampling.top_p, top_k=sampling.top_k, min_p=sampling.min_p, ends=ends)


def draw(
    run: RunFolder,
    engine: Engine,
    renderer: Renderer,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    *,
    samples: int,
    seed: int,
) -> Iterator[Drawn]:
    """`samples` rollouts per prompt, a chunk of prompts at a time, each to be written before the next is drawn.

    Each rank draws its share. A resumed run goes on after the last whole chunk; Interrupted after Ctrl-C.
    """
    size = max(1, CHUNK // samples)
    world = distributed.start(run.threads)
    first = run.keep_samples(size * samples) // samples
    progress = Progress(run.stage, len(prompts), unit="prompt", first=first, quiet=not world.is_main)
    while first < len(prompts):
        chunk = prompts[first : first + size]
        own = world.share(range(first, first + len(chunk)))
        rollouts = engine.sample(
            [renderer.prompt_ids(prompts[i].turns) for i in own],
            sample_settings(sampling, renderer, samples, seed, numbers=own),
        )
        replies = world.interleave([rollouts[i * samples : (i + 1) * samples] for i in range(len(own))])
        yield list(zip(chunk, replies, strict=True))
        first += len(chunk)
        progress.update(first, {})
        if any(world.gather(run.stop_requested)) and first < len(prompts):
            raise run.interrupted(first, "prompt")


def replies_by_prompt(folder: Path) -> Iterator[tuple[Prompt, tuple[str, ...]]]:
    """Sampled replies of a run folder, grouped by prompt; empty replies are left out, and so is a lone one."""
    grouped: dict[str, tuple[Prompt, list[str]]] = {}
    for row in read_lines(folder / "samples.jsonl"):
        _, replies = grouped.setdefault(row["prompt_id"], (prompt_of_row(row), []))
        if row["reply"]:
            replies.append(row["reply"])
    if not grouped:
        raise BadInput(f"{folder}: no samples there; give the folder of a finished `accord sample`")
    for prompt, replies in grouped.values():
        if len(replies) > 1:
            yield prompt, tuple(replies)


def criteria_of(source: str, criteria: Sequence[str]) -> list[str]:
    """The criteria that a source of this name is read under: its own, or all."""
    own = [c for c in criteria if source == c or source.startswith(f"{c}-")]
    return own or list(criteria)


def group_of(labeler: str) -> str:
    """`simulated:cautious:3` belongs to `simulated:cautious`; a name without colon is a group by itself."""
    return labeler.rpartition(":")[0] or labeler
