"""What stages read and leave behind in the same way: records with their drops, snapshots with their card."""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from accord import __version__
from accord.config import Config, Reading, Sampling, to_plain
from accord.data.chat import Renderer
from accord.data.sources import Loaded, prompt_of, read_many, refuse_overlap, select_split
from accord.engine.decode.draw import SampleSettings
from accord.engine.engines import Engine
from accord.engine.packing import Group, pack, reply_group
from accord.engine.texts import RankedReplies
from accord.errors import BadInput
from accord.evaluation.safety import with_fit
from accord.evaluation.statistics import limit_verdict, mean_interval
from accord.models.limits import Limit
from accord.models.loading import describe
from accord.models.policy import compute_logprobs
from accord.models.saving import save_model
from accord.objectives.likelihood import likelihood_loss
from accord.records import Comparison, Demonstration, Judgement, Prompt, Rollout, is_held_out, is_in_slices
from accord.run import RunFolder
from accord.training.distributed import World
from accord.training.fit import Losses
from accord.training.machine import C, settle
from accord.training.progress import Progress

CHUNK = 1024  # replies between two writes: what an interruption can lose

Drawn = list[tuple[Prompt, list[Rollout]]]


R = TypeVar("R")
Item = TypeVar("Item", bound=RankedReplies)
TRAINED_PROMPTS = "trained_prompts.txt"
LABELLED_PROMPTS = "labelled_prompts.txt"


def open_run(stage: str, config: Config, parents: Mapping[str, str | Path] | None = None) -> RunFolder:
    """The run folder of a stage, whose lineage names the gold world where the run reads from it."""
    return RunFolder(stage, config, parents, origin=lambda: world_of(config))


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
) -> list[Any]:
    """Read every source, print and save what was dropped, keep one split; records in the order of the sources.

    `weights` are the sources' shares of the mixture, by size where there are none.
    Raises BadInput when nothing is left, or where a resumed run finds other rows than it began with.
    """
    parts: dict[str, Loaded[Any]] = read_many(
        reader,
        named(sources),
        *args,
        weights=weights,
        columns=reading.columns,
        max_rows=reading.max_rows,
    )
    records = []
    report = []
    for name, part in parts.items():
        kept = select_split(part.records, split) if split else part.records
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
                "drops": part.drops,
                "duplicates": part.duplicates,
            }
        )
        dropped = ", ".join(f"{count} {reason}" for reason, count in part.drops.items())
        print(
            f"{part.source}: {part.rows} rows, {len(kept)} used"
            + (f" of split {split}" if split else "")
            + (f"; dropped {dropped}" if dropped else "")
        )
    if not records:
        raise BadInput(
            f"nothing is left of {', '.join(named(sources).values())}"
            + (f" in split {split}; give more data, or leave --split out" if split else "; give more data")
        )
    run.keep_sources(what, report)
    return records


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


def known_prompts(snapshot: str, *, labelled: bool = False) -> set[str]:
    """The ids of the prompts that a snapshot or an ancestor of it learned from; of a model elsewhere none are known.

    `labelled`: of a scorer, those alone whose replies it has labels of.
    """
    for name in (LABELLED_PROMPTS, TRAINED_PROMPTS) if labelled else (TRAINED_PROMPTS,):
        if (listed := Path(snapshot) / name).is_file():
            return set(listed.read_text(encoding="utf-8").split())
    return set()


def remember_prompts(
    run: RunFolder, folder: Path, records: Iterable[Prompt | Demonstration | Comparison | Judgement]
) -> None:
    """Write the ids of the prompts a model was trained on into its snapshot, with those of all its ancestors."""
    ids = {prompt_of(record).id for record in records}.union(*map(known_prompts, run.parents.values()))
    write_ids(folder / TRAINED_PROMPTS, ids)


def remember_labelled(run: RunFolder, folder: Path, prompts: Iterable[Prompt], start: str) -> None:
    """The same of a scorer, and beside it the prompts that it has labels of: `start` knows some if it was a scorer.

    The prompts that its trunk alone learned from are no leak where it scores other replies to them.
    """
    prompts = list(prompts)
    remember_prompts(run, folder, prompts)
    before = set() if describe(start)["role"] == "policy" else known_prompts(start, labelled=True)
    write_ids(folder / LABELLED_PROMPTS, {prompt.id for prompt in prompts} | before)


def write_ids(path: Path, ids: Iterable[str]) -> None:
    """One id a line, sorted; no file for none."""
    if lines := "".join(f"{i}\n" for i in sorted(ids)):
        path.write_text(lines, encoding="utf-8")


def refuse_trained_prompts(
    prompts: Iterable[Prompt], snapshots: Iterable[str], what: str, *, labelled: bool = False
) -> None:
    """Refuse prompts that a snapshot or an ancestor of it was trained on, or that a scorer has labels of (`labelled`).

    What is measured on them says nothing.
    """
    ids = {prompt.id for prompt in prompts}
    for snapshot in snapshots:
        known = known_prompts(snapshot, labelled=labelled)
        refuse_overlap(ids, known, what, f"the training data of {snapshot} (use --split)")


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


def gold_values(prompt: Prompt, replies: Sequence[str], criterion: str) -> list[float]:
    """What each reply to a prompt of the gold world is truly worth, to someone who notices every false claim."""
    from accord.world import judge, parse, value

    harmful = parse(prompt.turns).harmful
    return [value(judge(prompt.turns, reply), harmful, criterion) for reply in replies]


def has_gold(prompt: Prompt, criterion: str) -> bool:
    """Whether `gold_values` knows the worth of replies to a prompt under a criterion."""
    if not prompt.source.startswith("world:"):
        return False
    from accord.world import CRITERIA

    return criterion in CRITERIA


def settle_language_model(
    config: C, run: RunFolder, world: World, model: torch.nn.Module, groups: Sequence[Group]
) -> C:
    """The config of a stage that trains on log-probs, with what the machine decides."""

    def compute(some: Sequence[Group], precision: str) -> torch.Tensor:
        return compute_logprobs(model, pack(some).to(world.device), precision).sum()

    return settle(config, run, world, lambda: [model], groups, compute)


def text_loss(model: nn.Module, world: World, precision: str) -> Callable[[Sequence[Group], int], Losses]:
    """Negative log-likelihood of groups of a batch that trains on `count` tokens in all, as `fit` asks for it."""

    def loss(groups: Sequence[Group], count: int) -> Losses:
        packing = pack(groups).to(world.device)
        return likelihood_loss(compute_logprobs(model, packing, precision), count=count)

    return loss


def sample_settings(
    sampling: Sampling, renderer: Renderer, n: int, seed: int, version: str = "", numbers: Sequence[int] | None = None
) -> SampleSettings:
    """`n` replies per prompt as the knobs say, each until its end of turn."""
    stops = frozenset({renderer.eos})
    return SampleSettings(n, sampling.temperature, sampling.max_new_tokens, stops, seed, version, numbers)


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

    A resumed run goes on after the last whole chunk of its `samples.jsonl`. Raises Interrupted after Ctrl-C.
    """
    size = max(1, CHUNK // samples)
    first = run.keep_samples(size * samples) // samples
    progress = Progress(run.stage, len(prompts), unit="prompt", first=first)
    while first < len(prompts):
        chunk = prompts[first : first + size]
        rollouts = engine.sample(
            [renderer.prompt_ids(p.turns) for p in chunk],
            sample_settings(sampling, renderer, samples, seed, numbers=range(first, first + len(chunk))),
        )
        yield [(prompt, rollouts[i * samples : (i + 1) * samples]) for i, prompt in enumerate(chunk)]
        first += len(chunk)
        progress.update(first, {})
        if run.stop_requested and first < len(prompts):
            raise run.interrupted(first, "prompt")


def criteria_of(source: str, criteria: Sequence[str]) -> list[str]:
    """The criteria that a source of this name is read under: its own, or all."""
    own = [c for c in criteria if source == c or source.startswith(f"{c}-")]
    return own or list(criteria)


def group_of(labeler: str) -> str:
    """`simulated:cautious:3` belongs to `simulated:cautious`; a name without colon is a group by itself."""
    return labeler.rpartition(":")[0] or labeler


def in_slices(prompts: Sequence[Prompt], slices: str) -> Tensor:
    """(B,) True where a prompt is in one of the slices, whose names stand with commas; in all where none is named."""
    return torch.tensor([is_in_slices(prompt, slices) for prompt in prompts], dtype=torch.bool)


def judge_limit(
    limit: Limit, costs: Tensor, prompts: Sequence[Prompt], slices: str = "", *, seed: int
) -> dict[str, Any]:
    """Interval of what is bounded and verdict, on the limit's `slices`; said aloud and returned as JSON.

    `costs` (N,) are raw, of one reply to each of the prompts (N). The interval is a bootstrap over prompts; of a share
    it includes the error of the calibration (`with_fit`). Beside them, always and for every slice of the prompts: mean
    raw cost and the share of replies with a cost above 0. BadInput where no prompt is in the slices.
    """
    inside = in_slices(prompts, slices)
    if not inside.any():
        raise BadInput(f"--limit_slices.{limit.name}: no held-out prompt of {slices}")
    held: list[Hashable] = [prompt.id for prompt, holds in zip(prompts, inside.tolist(), strict=True) if holds]
    values = limit.bounded(costs[inside]).tolist()
    interval = mean_interval(values, held, seed)
    said: dict[str, Any] = {"limit": limit.bound, "of": limit.of}
    if limit.calibration is not None:
        interval = with_fit(interval, values, limit.calibration.relative_error)
        said["calibration"] = limit.calibration.json()
    verdict = limit_verdict(interval, limit.bound)
    whole = _spread(costs[inside])
    what = "expected unsafe share" if limit.of == "unsafe" else "mean cost"
    print(
        f"limit {limit.name} {limit.bound:g}: {verdict}; {what} {interval.mean:+.3f} [{interval.low:+.3f}, "
        f"{interval.high:+.3f}], mean cost {whole['cost']:+.3f}, unsafe {whole['unsafe']:.0%} of {whole['n']} replies",
        flush=True,
    )
    by_slice = {name: _spread(costs[in_slices(prompts, name)]) for name in sorted({p.slice for p in prompts} - {""})}
    return {**interval.json(), **said, "verdict": verdict, **whole, "slices": by_slice}


def _spread(costs: Tensor) -> dict[str, float]:
    """Of raw costs (N,): number, mean and share above 0."""
    return {"n": len(costs), "cost": float(costs.mean()), "unsafe": int((costs > 0).sum()) / len(costs)}
