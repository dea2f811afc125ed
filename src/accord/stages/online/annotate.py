"""Annotation: sampled replies → comparisons and safety judgements, by a labeler that is there at once.

Not a command: real labels come through files or `collect`. The gold world's people stand in for them where the truth
is known, a preference model or an AI labeler in the rounds of `online`.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from accord.data.rows import write_records
from accord.errors import BadInput
from accord.labelers.preferences import in_both_orders, prefers, soft_label
from accord.records import Comparison, Prompt, slice_names
from accord.run import RunFolder, decided
from accord.stages.online.config import Annotate
from accord.stages.shared import gold_values, open_run, replies_by_prompt

Sampled = tuple[Prompt, tuple[str, ...]]


def run(config: Annotate) -> RunFolder:
    """Label a sample run; leaves `comparisons-CRITERION.jsonl` and `judgements-CRITERION.jsonl`."""
    parents = {"samples": config.samples, **({"scorer": config.scorer} if config.scorer else {})}
    with open_run("annotate", config, parents) as run:
        if run.finished:
            return run
        sampled = list(replies_by_prompt(Path(config.samples)))
        if not config.scorer:
            refuse_strangers(sampled, config)
        run.finish(**LABEL[config.labeler](config, run.path, sampled))
        return run


def refuse_strangers(sampled: Sequence[Sampled], config: Annotate) -> None:
    """Raise BadInput for a prompt that the gold world cannot read: its people would answer at random."""
    from accord.world import parse

    for prompt, _ in sampled:
        if parse(prompt.turns).kind == "unknown":
            raise BadInput(
                f"{config.samples}: {prompt.turns[-1].content[:60]!r} is no prompt of the gold world, so labeler "
                f"{config.labeler} cannot tell which reply is better; sample on world:prompts, or let a preference "
                "model label"
            )


def label_by_people(config: Annotate, folder: Path, sampled: Sequence[Sampled]) -> dict[str, float]:
    """The gold world's simulated people compare and judge. Returns how many records each file holds."""
    from accord.world import people

    annotator = people(
        config.group,
        config.seed,
        temperature=config.temperature,
        flips=config.flips,
        length_bias=config.length_bias,
        position_bias=config.position_bias,
        equal_ties=config.equal_ties,
    )
    counts: dict[str, float] = {}
    for criterion in config.criteria:
        comparisons = [annotator.compare(*both, criterion) for both in comparable(config, sampled, criterion)]
        counts[f"comparisons-{criterion}"] = write_records(folder / f"comparisons-{criterion}.jsonl", comparisons)
    for criterion in config.judged:
        judgements = [
            annotator.judge(prompt, reply, criterion)
            for prompt, replies in of_slices(config.judged_slices, sampled, criterion)
            for reply in dict.fromkeys(replies)
        ]
        counts[f"judgements-{criterion}"] = write_records(folder / f"judgements-{criterion}.jsonl", judgements)
    return counts


def label_by_score(config: Annotate, folder: Path, sampled: Sequence[Sampled]) -> dict[str, float]:
    """Replies ranked by a number each, equal numbers tying; the strength is what lies between best and worst."""
    counts: dict[str, float] = {}
    for criterion in config.criteria:
        chosen = list(comparable(config, sampled, criterion))
        gold = (value for prompt, replies in chosen for value in gold_values(prompt, replies, criterion))
        scores = iter(model_scores(config, chosen)) if config.scorer else gold
        comparisons = []
        for prompt, replies in chosen:
            own = [next(scores) for _ in replies]
            ranks = tuple(1 + sum(other > score for other in own) for score in own)
            strength, shown = max(own) - min(own), tuple(range(len(replies)))
            comparisons.append(Comparison(prompt, replies, ranks, criterion, config.labeler, strength, shown))
        counts[f"comparisons-{criterion}"] = write_records(folder / f"comparisons-{criterion}.jsonl", comparisons)
    return counts


def label_by_ai(config: Annotate, folder: Path, sampled: Sequence[Sampled]) -> dict[str, float]:
    """A language model is asked about every two replies to a prompt; how sure it is becomes a soft label."""
    from accord.labelers.backends import Labelers
    from accord.labelers.journal import Journal
    from accord.training import distributed

    counts: dict[str, float] = {}
    with Journal(folder / "journal.jsonl") as journal:
        labelers = Labelers(config, distributed.start(decided(config, "threads")), journal)
        labeler = labelers.named(config.scorer)
        for criterion in config.criteria:
            pairs = [
                (prompt, *pair)
                for prompt, replies in comparable(config, sampled, criterion)
                for pair in combinations(dict.fromkeys(replies), 2)
            ]
            said = prefers(labeler, [[in_both_orders(*pair, criterion)] for pair in pairs])
            said.tell(criterion, config.scorer)
            made = [
                soft_label(*pair, criterion, first, f"ai:{labeler.name}:{method}")
                for pair, first, method in zip(pairs, said.first, said.methods, strict=True)
                if first is not None
            ]
            counts[f"comparisons-{criterion}"] = write_records(folder / f"comparisons-{criterion}.jsonl", made)
            counts[f"same_place-{criterion}"] = said.same_place
    return counts


def model_scores(config: Annotate, sampled: Sequence[Sampled]) -> list[float]:
    """The preference model's score of each reply."""
    from accord.engine.packing import MICRO_TOKENS
    from accord.engine.texts import text_group
    from accord.models.scalar import Scorer
    from accord.models.tokenizer import load_renderer
    from accord.training import distributed

    scorer = Scorer(config.scorer, role="preference", device=distributed.start(decided(config, "threads")).device)
    renderer = load_renderer(config.scorer)
    groups = [text_group(renderer, prompt, replies) for prompt, replies in sampled]
    return [float(score) for score in scorer.scores(groups, micro_tokens=MICRO_TOKENS)]


def of_slices(slices: Mapping[str, str], sampled: Sequence[Sampled], criterion: str) -> Iterator[Sampled]:
    wanted = slice_names(slices[criterion]) if criterion in slices else None
    return (both for both in sampled if wanted is None or both[0].slice in wanted)


def comparable(config: Annotate, sampled: Sequence[Sampled], criterion: str) -> Iterator[Sampled]:
    """Prompts whose replies are not all the same."""
    return (both for both in of_slices(config.slices, sampled, criterion) if len(set(both[1])) > 1)


LABEL = {"simulated": label_by_people, "gold": label_by_score, "preference": label_by_score, "ai": label_by_ai}
