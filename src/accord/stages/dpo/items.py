"""What the direct family learns from: comparisons, rankings and labelled replies as items of one kind."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from accord.data.chat import Renderer
from accord.data.sources import few_openings, read_comparisons, read_judgements
from accord.engine.packing import reply_group
from accord.engine.texts import RankedReplies, text_group
from accord.errors import BadInput
from accord.objectives.ranking import ranked_pairs
from accord.records import Comparison, Judgement
from accord.run import RunFolder
from accord.stages.dpo.config import UNPAIRED, Dpo
from accord.stages.shared import (
    drop_alike,
    drop_long,
    drop_ties,
    load_all,
    load_criterion,
    measures,
    refuse_unranked,
)


class Choice(NamedTuple):
    """An ordered pair, as places in an item's `texts`, and the margin that is asked for in it."""

    better: int
    worse: int
    margin: float


@dataclass(frozen=True, kw_only=True)
class DirectItem(RankedReplies):
    """Replies to one prompt with what is known about them; `number` is its place among all that a run looks at.

    `choices` are what pairs are learned from, those of the ranks unless safety labels turned some round; `labels` are
    (reply, good) for unpaired losses.
    """

    number: int = -1
    id: str
    choices: tuple[Choice, ...] = ()
    labels: tuple[tuple[int, bool], ...] = ()

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """(better, worse) of every choice."""
        return tuple((choice.better, choice.worse) for choice in self.choices)


@dataclass(frozen=True)
class DirectData:
    """What is trained on, what is measured on, and for KTO each trained prompt with the reply to another."""

    items: list[DirectItem]
    held_out: list[DirectItem]
    mismatched: list[DirectItem]

    @property
    def everything(self) -> list[DirectItem]:
        """In the order of their numbers."""
        return [*self.items, *self.held_out, *self.mismatched]

    def mismatch_of(self, item: DirectItem) -> DirectItem:
        return self.mismatched[item.number]


def read_direct_data(config: Dpo, run: RunFolder, renderer: Renderer) -> DirectData:
    """Read and render everything; the prompts held out are those that `accord preference` holds out."""
    items, held_out = read_comparison_items(config, run, renderer)
    openings = {item.prompt.opening for item in held_out} if config.eval_data else set()

    def trained(item: DirectItem) -> bool:
        if config.eval_data:
            return item.prompt.opening not in openings
        return not measures(item.prompt, config.eval_share)

    singles = read_single_items(config, run, renderer)
    if config.family == UNPAIRED:
        refuse_one_sided(config, [*items, *singles])
    if not config.eval_data:
        held_out = [item for item in items if not trained(item)]
    items = [item for item in [*items, *singles] if trained(item)]
    if not items or not (held_out or config.unpaired_data):
        alike = few_openings(item.prompt for item in [*items, *held_out])
        raise BadInput(
            f"too few prompts to hold some out{alike}; raise --eval_share, give --eval_data or give more data"
        )
    _, items = drop_long([item.group for item in items], items, config.max_length, run)
    if held_out:
        _, held_out = drop_long([item.group for item in held_out], held_out, config.max_length, run, "eval_data")
    else:
        print("no comparisons to measure the implicit reward on; give --eval_data")
    if config.family == UNPAIRED:  # what is held out or too long may have been all of one side
        refuse_one_sided(config, items)
    mismatched: list[DirectItem] = []
    if "kto" in config.losses:
        items, mismatched = mismatch(items, config.max_length)
    if config.safety_data:
        labels = load_all(
            read_judgements,
            config.safety_data,
            config,
            run,
            config.criterion,
            split=config.split,
            what="safety_data",
            renderers=[renderer],
        )
        items = prefer_safe(items, labels, config.safety_margin)
    numbered = [replace(item, number=number) for number, item in enumerate([*items, *held_out, *mismatched])]
    return DirectData(
        numbered[: len(items)], numbered[len(items) :][: len(held_out)], numbered[len(items + held_out) :]
    )


def refuse_one_sided(config: Dpo, items: Sequence[DirectItem]) -> None:
    """Losses of single replies set good ones against bad ones: of one kind alone they have no baseline."""
    labels = [good for item in items for _, good in item.labels]
    if len(set(labels)) < 2:
        found = (
            f"all {len(labels)} are {'good' if labels[0] else 'bad'}" if len(labels) > 1 else f"there is {len(labels)}"
        )
        raise BadInput(
            f"{config.loss_names} needs replies labelled good and bad; {found}. Add the other side to --unpaired_data"
            + (", or learn from the good ones with accord sft" if labels and all(labels) else "")
        )


def read_comparison_items(config: Dpo, run: RunFolder, renderer: Renderer) -> tuple[list[DirectItem], list[DirectItem]]:
    """Items of --data and of --eval_data; what ranks nothing is dropped and counted."""
    found: list[list[DirectItem]] = []
    for what, sources, split, weights in (
        ("data", config.data, config.split, config.weights),
        ("eval_data", config.eval_data, "", None),
    ):
        read: list[Comparison] = []
        if sources:
            read = load_criterion(
                read_comparisons,
                sources,
                config,
                run,
                config.criterion,
                split=split,
                what=what,
                weights=weights,
                renderers=[renderer],
            )
        kept = drop_ties(drop_alike([comparison_item(renderer, c, config) for c in read]))
        soft = sum(item.probability < 1 for item in kept)
        if soft and not config.takes_soft_labels:
            print(f"{', '.join(config.losses)} has no soft labels: {soft} of {len(kept)} are taken as plain answers")
            kept = [replace(item, probability=1.0) for item in kept]
        if sources:
            refuse_unranked(kept, config.criterion)
        found.append(kept)
    return found[0], found[1]


def read_single_items(config: Dpo, run: RunFolder, renderer: Renderer) -> list[DirectItem]:
    """Items of --unpaired_data; ratings say nothing about good and bad, and are dropped and counted."""
    if not config.unpaired_data:
        return []
    read: list[Judgement] = load_all(
        read_judgements,
        config.unpaired_data,
        config,
        run,
        config.criterion,
        split=config.split,
        what="unpaired_data",
        renderers=[renderer],
    )
    judged = [j for j in read if j.kind != "rating"]
    if len(judged) < len(read):
        print(f"dropped {len(read) - len(judged)} of {len(read)} judgements: ratings are neither good nor bad")
    return [judgement_item(renderer, j) for j in judged]


def comparison_item(renderer: Renderer, comparison: Comparison, config: Dpo) -> DirectItem:
    """A comparison or ranking; for unpaired losses the best replies are good, the last ones bad, others unlabelled."""
    best, last = min(comparison.ranks), max(comparison.ranks)
    labels = tuple((k, rank == best) for k, rank in enumerate(comparison.ranks) if rank in (best, last))
    c = comparison
    return DirectItem(
        c.prompt,
        c.replies,
        text_group(renderer, c.prompt, c.replies),
        c.ranks,
        c.probability,
        id=c.id,
        choices=tuple(Choice(*pair, config.strength_margin * c.strength) for pair in ranked_pairs(c.ranks)),
        labels=labels,
    )


def judgement_item(renderer: Renderer, judgement: Judgement) -> DirectItem:
    """One reply labelled good, or safe, or not."""
    prompt, texts = judgement.prompt, (judgement.reply,)
    group, labels = text_group(renderer, prompt, texts), ((0, judgement.value > 0),)
    return DirectItem(prompt, texts, group, (1,), id=judgement.id, labels=labels)


def prefer_safe(items: Sequence[DirectItem], labels: Sequence[Judgement], margin: float) -> list[DirectItem]:
    """SafeDPO's pairs: the safe reply wins whatever was chosen, two unsafe ones are no pair, and `margin` is asked for.

    Kim et al. 2025 (arXiv:2505.20065) section 4. Pairs of two safe replies, or without both labels, stay as they are.
    """
    unsafe = {(j.prompt.id, j.reply): j.value == 0 for j in labels if j.kind == "safe"}
    kept, turned, dropped, labelled = [], 0, 0, 0
    for item in items:
        choices, probability = [], item.probability
        for i, j, old in item.choices:
            u = [unsafe.get((item.prompt.id, item.texts[k])) for k in (i, j)]
            labelled += None not in u
            dropped += u == [True, True]
            turned += u == [True, False]
            if u != [True, True]:
                asked = old + (margin if set(u) == {True, False} else 0.0)
                choices.append(Choice(j, i, asked) if u == [True, False] else Choice(i, j, asked))
            if set(u) == {True, False}:
                probability = 1.0
        if choices:
            kept.append(replace(item, choices=tuple(choices), probability=probability))
    print(f"safety: {labelled} pairs with both labels; {turned} turned round, {dropped} of two unsafe replies dropped")
    if not labelled:
        raise BadInput("--safety_data labels no reply of --data; its prompts and replies must be the same texts")
    if not kept:
        raise BadInput("--safety_data: every pair is of two unsafe replies; nothing is left to learn from")
    return kept


def mismatch(items: Sequence[DirectItem], max_length: int) -> tuple[list[DirectItem], list[DirectItem]]:
    """For KTO: the items, and each one's prompt with the first reply of the next item that has another prompt.

    The partner is fixed by the data and not by the batch, so that the reference's log-probs can be kept and a batch
    may have one item. An item beside whose prompt no such reply fits into `max_length` is dropped and counted.
    """
    kept, mismatched = [], []
    for i, item in enumerate(items):
        others = (items[(i + distance) % len(items)] for distance in range(1, len(items)))
        fits = (
            other
            for other in others
            if other.prompt.opening != item.prompt.opening
            and len(item.group.prefix) + len(other.group.replies[0]) <= max_length
        )
        other = next(fits, None)
        if other is not None:
            kept.append(item)
            group = reply_group(item.group.prefix, other.group.replies[0])
            mismatched.append(DirectItem(item.prompt, other.texts[:1], group, (1,), id=f"{item.id} {other.id}"))
    if len(kept) < len(items):
        print(f"dropped {len(items) - len(kept)} of {len(items)}: no other prompt's reply fits beside their prompt")
    if not kept:
        raise BadInput("kto needs replies to two different prompts or more, within --max_length")
    return kept, mismatched
