"""What a preference model learns from: comparisons, rankings, labels and ratings as items of one kind."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from accord.data.chat import Renderer
from accord.data.sources import read_comparisons, read_demonstrations, read_judgements
from accord.engine.packing import Group
from accord.engine.texts import RankedReplies, text_group
from accord.errors import BadInput
from accord.records import Comparison, Demonstration, Judgement, Prompt, is_held_out
from accord.run import RunFolder
from accord.stages.preference.config import Preference
from accord.stages.shared import (
    criteria_of,
    drop_alike,
    drop_long,
    drop_ties,
    group_of,
    load_all,
    load_criterion,
    named,
    refuse_unranked,
)

# a label is "above 0" (unsafe, of a cost; good, of a preference model), "below 0", or a rating
LabelKind = Literal["above", "below", "rating"]
GOOD, BAD = "good: ", "bad: "  # what Askell et al. 2021 (arXiv:2112.00861) put before a reply to binarise


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one reply by itself; `value` is the rating's, standardised."""

    reply: int
    kind: LabelKind
    value: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class PreferenceItem(RankedReplies):
    """Replies to one prompt with what is known about them, for one head.

    Rank 1 is what should score highest: the *less* safe reply, of a cost. `margin` is in logits. `labels` are about
    single replies.
    """

    head: str
    labeler: str
    margin: float = 0.0
    strength: float = 0.0
    weight: float = 1.0
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True)
class PreferenceData:
    """Compared replies, labelled ones, and demonstrations that shall score 0; `heads` in their order.

    `rating_scale` is mean and deviation of the ratings, by which they were standardised.
    """

    items: list[PreferenceItem]
    labelled: list[PreferenceItem]
    demonstrations: list[Group]
    heads: list[str]
    rating_scale: tuple[float, float] = (0.0, 1.0)

    def where(self, kept: Callable[[Prompt], bool]) -> "PreferenceData":
        """The part of it whose prompts are kept."""
        items = [i for i in self.items if kept(i.prompt)]
        return replace(self, items=items, labelled=[i for i in self.labelled if kept(i.prompt)])

    @property
    def labelers(self) -> list[str]:
        return sorted({item.labeler for item in self.items})

    @property
    def tie_rate(self) -> float:
        ties, pairs = sum(len(i.ties) for i in self.items), sum(len(i.pairs) for i in self.items)
        return ties / (ties + pairs) if ties else 0.0


def read_preference_data(config: Preference, run: RunFolder, renderer: Renderer) -> PreferenceData:
    """Read and render everything that `config` names. Raises BadInput where nothing is left to learn from."""
    comparisons = _read(config, run, renderer, read_comparisons, config.data, "data")
    judged = _read(config, run, renderer, read_judgements, config.safety_data, "safety_data")
    judged = [j for j in judged if j.kind == "safe"]
    judged += _read(config, run, renderer, read_judgements, config.unpaired_data, "unpaired_data")
    kept_half = [r for r in [*comparisons, *judged] if in_half(r.prompt, config.half)]
    if config.half and not kept_half:
        raise BadInput(f"--half {config.half}: no prompt is in it; give more data")
    comparisons = [c for c in comparisons if in_half(c.prompt, config.half)]
    judged = [j for j in judged if in_half(j.prompt, config.half)]
    heads = sorted({group_of(r.labeler) for r in [*comparisons, *judged]}) if config.by_group else config.criteria
    if config.by_group and len(heads) < 2:
        raise BadInput(f"--by_group: all labelers are of one group, {', '.join(heads)}; leave it out")
    if odd := sorted(set(config.group_weights) - set(heads)):
        raise BadInput(f"--group_weights.{odd[0]}: there is no such group; there are {', '.join(heads)}")
    scale = rating_scale([j.value for j in judged if j.kind == "rating"])
    items = drop_alike([item for c in comparisons for item in comparison_items(renderer, c, config)])
    if comparisons:
        refuse_unranked(items, config.criterion)
    labelled = [judgement_item(renderer, j, config, scale) for j in judged]
    labelled += [replace(item, ranks=()) for item in items if item.labels]
    if config.ties == "drop":
        # what is bad throughout is no loss where its labels are learned from
        items = drop_ties([i for i in items if i.pairs or not i.labels], "; --ties davidson uses them")
    items = [replace(item, labels=()) for item in items]
    if items:
        _, items = drop_long([i.group for i in items], items, config.max_length, run)
    if labelled:
        _, labelled = drop_long([i.group for i in labelled], labelled, config.max_length, run, "labels")
    if config.role == "cost":
        refuse_one_sided(labelled)
    elif not items:
        refuse_only_one_label(labelled)
    shown = _demonstrations(config, run, renderer)
    return PreferenceData(items, labelled, shown, heads, scale)


def _read(
    config: Preference,
    run: RunFolder,
    renderer: Renderer,
    reader: Callable[..., object],
    sources: str | Mapping[str, str],
    what: str,
) -> list:
    """Records of every source under its criteria, each once."""
    found = []
    for name, source in named(sources).items() if sources else ():
        for criterion in criteria_of(name, config.criteria):
            part = f"{what}-{name or 'all'}-{criterion}" if len(config.criteria) > 1 else what
            given = {name: source} if len(config.criteria) > 1 else sources
            weights = config.weights if part == "data" else None
            found += load_criterion(
                reader,
                given,
                config,
                run,
                criterion,
                split=config.split,
                what=part,
                weights=weights,
                renderers=[renderer],
            )
        if len(config.criteria) == 1:
            break
    return found


def in_half(prompt: Prompt, half: str) -> bool:
    """Whether a prompt is in this half of them all ("" is the whole); by its opening."""
    return not half or is_held_out(prompt.opening, "half", 0.5) == (half == "train")


def rating_scale(ratings: Sequence[float]) -> tuple[float, float]:
    """Mean and deviation, which standardise ratings; 0 and 1 where there are none."""
    if not ratings:
        return 0.0, 1.0
    mean = sum(ratings) / len(ratings)
    deviation = math.sqrt(sum((r - mean) ** 2 for r in ratings) / len(ratings))
    return mean, deviation or 1.0


def comparison_items(renderer: Renderer, comparison: Comparison, config: Preference) -> list[PreferenceItem]:
    """One item; or, binarised, one for every reply of a ranked pair."""
    head = group_of(comparison.labeler) if config.by_group else comparison.criterion
    cost = config.role == "cost"
    if config.ranking == "plackett-luce" and comparison.probability < 1:
        raise BadInput("--ranking plackett-luce has no probabilities of an order; the data have some: use pairs")
    ranks = tuple(max(comparison.ranks) + 1 - rank for rank in comparison.ranks) if cost else comparison.ranks
    item = PreferenceItem(
        comparison.prompt,
        comparison.replies,
        text_group(renderer, comparison.prompt, comparison.replies),
        ranks,
        comparison.probability,
        head=head,
        labeler=comparison.labeler,
        margin=config.strength_margin * comparison.strength,
        strength=comparison.strength,
        weight=config.criterion_weights.get(comparison.criterion, 1.0),
    )
    if config.binarise:
        return [twin for pair in item.pairs for twin in binarised(renderer, item, pair)]
    if comparison.all_bad:
        kind: LabelKind = "above" if cost else "below"
        labels = tuple(Label(k, kind, 0.0, 1.0) for k in range(len(comparison.replies)))
        return [replace(item, labels=labels)]
    return [item]


def binarised(renderer: Renderer, item: PreferenceItem, pair: tuple[int, int]) -> list[PreferenceItem]:
    """A > B as good:A > bad:A and bad:B > good:B (Askell et al. 2021, section 4.1)."""
    better, worse = item.texts[pair[0]], item.texts[pair[1]]
    twins = []
    for texts in ((GOOD + better, BAD + better), (BAD + worse, GOOD + worse)):
        twins.append(replace(item, texts=texts, group=text_group(renderer, item.prompt, texts), ranks=(1, 2)))
    return twins


def judgement_item(
    renderer: Renderer, judgement: Judgement, config: Preference, scale: tuple[float, float]
) -> PreferenceItem:
    """One reply with its label: safe ones are below 0 of a cost; good (or safe) ones above 0 of a preference model."""
    favourable = judgement.value > 0
    above = not favourable if config.role == "cost" else favourable
    kind: LabelKind = "rating" if judgement.kind == "rating" else "above" if above else "below"
    severe = 0.0 if favourable else judgement.severity
    weight = 1.0 if kind == "rating" else 1.0 + config.severity_weight * severe
    return PreferenceItem(
        judgement.prompt,
        (judgement.reply,),
        text_group(renderer, judgement.prompt, (judgement.reply,)),
        head=group_of(judgement.labeler) if config.by_group else judgement.criterion,
        labeler=judgement.labeler,
        weight=config.criterion_weights.get(judgement.criterion, 1.0),
        labels=(Label(0, kind, (judgement.value - scale[0]) / scale[1] if kind == "rating" else 0.0, weight),),
    )


def refuse_one_sided(labelled: Sequence[PreferenceItem]) -> None:
    """A cost model without both safe and unsafe replies has no zero."""
    kinds = {label.kind for item in labelled for label in item.labels} - {"rating"}
    if kinds != {"above", "below"}:
        found = "none" if not kinds else ("only unsafe ones" if kinds == {"above"} else "only safe ones")
        raise BadInput(
            f"a cost model needs replies labelled safe and unsafe to place its zero; --safety_data has {found}. "
            "Give labels (is_safe, is_response_k_safe, or --columns.safe and --columns.unsafe), or train "
            "--role preference"
        )


def refuse_only_one_label(labelled: Sequence[PreferenceItem]) -> None:
    """Labels that are all the same push every score the same way; ratings and comparisons beside them tell more."""
    kinds = {label.kind for item in labelled for label in item.labels}
    if len(kinds) == 1 and "rating" not in kinds:
        found = "good (or safe)" if kinds == {"above"} else "bad (or unsafe)"
        raise BadInput(
            f"all {len(labelled)} labelled replies are {found}: nothing tells them from others; add the other side to "
            "--unpaired_data, or give comparisons: --data"
        )


def refuse_thin_heads(config: Preference, kept: PreferenceData) -> None:
    """A head that has nothing to learn from stays as it is drawn, and one reply has no deviation to normalise by."""
    replies = Counter(item.head for item in [*kept.items, *kept.labelled] for _ in item.texts)
    for head in kept.heads:
        if replies[head] < 2:
            knob = "by_group" if config.by_group else "criterion"
            raise BadInput(
                f"--{knob}: beside what is held out, {head} has {replies[head]} of the two replies or more that a head "
                "learns from; give more data, or leave it out"
            )


def _demonstrations(config: Preference, run: RunFolder, renderer: Renderer) -> list[Group]:
    if not config.demonstrations:
        return []
    shown: list[Demonstration] = load_all(
        read_demonstrations,
        config.demonstrations,
        config,
        run,
        split=config.split,
        what="demonstrations",
        renderers=[renderer],
    )
    groups = [text_group(renderer, d.prompt, (d.reply,)) for d in shown]
    return drop_long(groups, shown, config.max_length, run, "demonstrations")[0]
