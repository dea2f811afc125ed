"""From the items of a micro-batch to the loss of a preference or cost model.

scores of every reply, read at its last token → ranking term + labels, signs, ratings + regularisers
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, tensor

from accord.engine.packing import Group, pack
from accord.models.learner import PreferenceLearner
from accord.objectives.likelihood import likelihood_loss
from accord.objectives.preference import (
    bradley_terry_loss,
    centring_loss,
    davidson_loss,
    order_metrics,
    rating_loss,
    score_regularizer,
    sign_loss,
    smooth_labels,
)
from accord.objectives.ranking import plackett_luce_values
from accord.stages.preference.config import Preference
from accord.stages.preference.items import Label, PreferenceItem
from accord.training.fit import Losses
from accord.training.precision import lowered


class Totals(NamedTuple):
    """Denominators of a whole optimizer batch: sums of weights, and tokens of the best replies."""

    ranked: float
    ordered: float
    signed: float
    rated: float
    replies: int
    tokens: int


class PairTargets(NamedTuple):
    """Ordered pairs (N,) of a micro-batch: raw scores, weights (an item's add up to its own) and what was said."""

    better: Tensor
    worse: Tensor
    weights: Tensor
    margin: Tensor
    probability: Tensor
    labeler: Tensor


class ScoredItems(NamedTuple):
    """Items of a micro-batch with the raw scores of all their replies (R,), and their ordered pairs."""

    items: Sequence[PreferenceItem]
    scores: Tensor
    pairs: PairTargets


def totals(items: Sequence[PreferenceItem]) -> Totals:
    signed = [label.weight * item.weight for item in items for label in item.labels if label.kind != "rating"]
    rated = [label.weight * item.weight for item in items for label in item.labels if label.kind == "rating"]
    return Totals(
        sum(item.weight for item in items if item.ranks),
        sum(item.weight for item in items if item.pairs),
        sum(signed),
        sum(rated),
        sum(len(item.texts) for item in items),
        sum(len(ids) for item in items if item.pairs for ids in best_group(item).replies),
    )


def best_group(item: PreferenceItem) -> Group:
    """The prompt with the best replies alone."""
    best = [ids for ids, rank in zip(item.group.replies, item.ranks, strict=True) if rank == min(item.ranks)]
    return Group(item.group.prefix, tuple(best), tuple((True,) * len(ids) for ids in best))


def item_loss(
    learner: PreferenceLearner, items: Sequence[PreferenceItem], whole: Totals, config: Preference, device: torch.device
) -> Losses:
    """The loss of some items over the whole batch's totals. Of a cost model, a fully labelled pair weighs its two signs
    as Safe RLHF does; `label_weight` is a factor beside."""
    packing = pack([item.group for item in items], rows="last").to(device)
    with lowered(config.precision, device):
        table = learner.scores(packing)
    scores = own_scores(learner, items, table)
    loss = score_regularizer(scores, weight=config.score_weight, count=whole.replies)
    metrics: dict[str, Tensor] = {}

    def add(part: Losses, weight: float = 1.0) -> None:
        nonlocal loss, metrics
        loss, metrics = loss + weight * part[0], metrics | part[1]

    pairs = pairs_of(learner, items, scores)
    if any(item.ranks for item in items):
        add(RANKING[ranking_of(config)](learner, ScoredItems(items, scores, pairs), whole, config))
    if config.centring_weight and len(pairs.better):
        centred = centring_loss(pairs.better, pairs.worse, weights=pairs.weights, count=whole.ordered)
        add(centred, config.centring_weight)
    signs = labels_of(learner, items, scores, ("above", "below"))
    if signs:
        at, labels, weights, _ = signs
        above = tensor([label.kind == "above" for label in labels], device=device)
        name, factor = ("sign", 2.0) if config.role == "cost" else ("label", 1.0)
        add(sign_loss(at, above, weights=weights, count=whole.signed, name=name), factor * config.label_weight)
    ratings = labels_of(learner, items, scores, ("rating",))
    if ratings:
        at, labels, weights, heads = ratings
        said = tensor([label.value for label in labels], device=device)
        gain, bias = learner.gain[heads], learner.bias[heads]
        add(rating_loss(at, said, gain=gain, bias=bias, weights=weights, count=whole.rated), config.label_weight)
    ranked = [item for item in items if item.pairs]
    if config.lm_weight and ranked:
        best = pack([best_group(item) for item in ranked]).to(device)
        spoken, _ = likelihood_loss(learner.token_logprobs(best), count=whole.tokens)
        add((spoken, {"loss/lm": spoken.detach()}), config.lm_weight)
    return loss, metrics | {"loss": loss.detach()}


def own_scores(learner: PreferenceLearner, items: Sequence[PreferenceItem], table: Tensor) -> Tensor:
    """Of every reply (R,) the score by the head that its item is about."""
    heads = [learner.heads.index(item.head) for item in items for _ in item.texts]
    return table[torch.arange(len(heads), device=table.device), tensor(heads, device=table.device)]


def pairs_of(learner: PreferenceLearner, items: Sequence[PreferenceItem], scores: Tensor) -> PairTargets:
    """Every ordered pair; an item counts once."""
    better: list[int] = []
    worse: list[int] = []
    said: list[tuple[float, float, float, int]] = []
    for item, first in zip(items, starts(items), strict=True):
        labeler = learner.labelers.index(item.labeler) if item.pairs else 0
        for i, j in item.pairs:
            better.append(first + i)
            worse.append(first + j)
            said.append((item.weight / len(item.pairs), item.margin, item.probability, labeler))
    weights, margin, probability, labelers = (
        torch.tensor([row[k] for row in said], device=scores.device) for k in range(4)
    )
    return PairTargets(scores[better], scores[worse], weights, margin, probability, labelers.long())


def starts(items: Sequence[PreferenceItem]) -> list[int]:
    """The place of each item's first reply among all."""
    out, first = [], 0
    for item in items:
        out.append(first)
        first += len(item.texts)
    return out


def labels_of(
    learner: PreferenceLearner, items: Sequence[PreferenceItem], scores: Tensor, kinds: tuple[str, ...]
) -> tuple[Tensor, list[Label], Tensor, Tensor] | None:
    """Scores (N,) of the replies that have labels of these kinds, the labels, their weights and heads; None if none."""
    found = [
        (first + label.reply, label, label.weight * item.weight, learner.heads.index(item.head))
        for item, first in zip(items, starts(items), strict=True)
        for label in item.labels
        if label.kind in kinds
    ]
    if not found:
        return None
    at, labels, weights, heads = zip(*found, strict=True)
    device = scores.device
    return scores[list(at)], list(labels), tensor(weights, device=device), tensor(heads, device=device)


def ranking_of(config: Preference) -> str:
    """The likelihood of the ranking term."""
    return "davidson" if config.ties == "davidson" else config.ranking


def by_pairs(learner: PreferenceLearner, part: ScoredItems, whole: Totals, config: Preference) -> Losses:
    pairs = part.pairs
    reliability = learner.reliability[pairs.labeler] if config.reliability else None
    return bradley_terry_loss(
        pairs.better,
        pairs.worse,
        weights=pairs.weights,
        margin=pairs.margin,
        probability=smooth_labels(pairs.probability, config.label_smoothing),
        reliability=reliability,
        count=whole.ordered,
    )


def by_davidson(learner: PreferenceLearner, part: ScoredItems, whole: Totals, config: Preference) -> Losses:
    """Ordered and tied pairs of an item count once together."""
    items, scores, pairs = part
    first, second, outcome, weights, heads = [], [], [], [], []
    for item, start in zip(items, starts(items), strict=True):
        asked = [(i, j, item.probability) for i, j in item.pairs] + [(i, j, math.nan) for i, j in item.ties]
        for i, j, said in asked:
            first.append(start + i)
            second.append(start + j)
            outcome.append(said)
            weights.append(item.weight / len(asked))
            heads.append(learner.heads.index(item.head))
    answers = smooth_labels(tensor(outcome, device=scores.device), config.label_smoothing)
    loss, metrics = davidson_loss(
        scores[first],
        scores[second],
        answers,
        log_ties=learner.log_ties[heads],
        weights=tensor(weights, device=scores.device),
        count=whole.ranked,
    )
    if len(pairs.better):
        metrics |= order_metrics(pairs.better - pairs.worse, pairs.weights, whole.ordered)
    return loss, metrics


def by_plackett_luce(learner: PreferenceLearner, part: ScoredItems, whole: Totals, config: Preference) -> Losses:
    items, scores, pairs = part
    widest = max(len(item.ranks) for item in items)
    values = []
    for item, start in zip(items, starts(items), strict=True):
        if item.ranks:
            row = torch.nn.functional.pad(scores[start : start + len(item.texts)], (0, widest - len(item.texts)))
            values.append((item.weight, row, [*item.ranks, *[0] * (widest - len(item.ranks))]))
    weights = tensor([weight for weight, _, _ in values], device=scores.device)
    ranks = tensor([ranks for _, _, ranks in values], device=scores.device)
    loss = (weights * plackett_luce_values(torch.stack([row for _, row, _ in values]), ranks)).sum() / whole.ranked
    metrics = order_metrics(pairs.better - pairs.worse, pairs.weights, whole.ordered)
    return loss, {"loss/ranking": loss.detach(), **metrics}


RANKING = {"pairs": by_pairs, "davidson": by_davidson, "plackett-luce": by_plackett_luce}
