"""The losses of some items, and what they need to know of their whole batch."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from accord.engine.packing import Packing, cut_by_tokens, pack
from accord.models.policy import compute_logprobs
from accord.models.reference import ReplyReference, reply_sums
from accord.objectives.direct import LOSSES, Pairs, match_ranks, weighted_losses
from accord.objectives.direct_unpaired import Rankings, Singles, kl_estimate, reward_shift
from accord.objectives.implicit import Reduction, reduce, sequence_logprobs, token_counts
from accord.stages.dpo.config import LISTWISE, PAIRED, UNPAIRED, Dpo
from accord.stages.dpo.items import DirectData, DirectItem
from accord.training.distributed import World
from accord.training.fit import Losses


@dataclass(frozen=True)
class Whole:
    """What is known of a whole optimizer batch before it is cut.

    `count` is the number of comparisons, rankings or labelled replies, `goods` that of good replies. `shifts` are
    KTO's z and BCO's δ by loss; `matched` are the reference's margins at the ranks of AOT by an item's number.
    """

    count: float
    goods: float = 0.0
    shifts: dict[str, Tensor] = field(default_factory=dict)
    matched: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class DirectRoles:
    """The policy and what it is compared with."""

    config: Dpo
    world: World
    policy: nn.Module
    reference: ReplyReference

    def logprobs(self, packing: Packing) -> Tensor:
        """Token log-probs of the policy."""
        return compute_logprobs(self.policy, packing, self.config.precision)

    def log_ratios(self, items: Sequence[DirectItem]) -> list[Tensor]:
        """log π / π_ref of each item's replies, summed over tokens; without gradient, on every rank."""
        parts = self.cut(items)
        groups = [item.group for item in items]
        ours = reply_sums(self.logprobs, groups, parts, self.world)
        theirs = self.reference.of([item.number for item in items], groups, parts, self.world)
        return [a - b for a, b in zip(ours, theirs, strict=True)]

    def cut(self, items: Sequence[DirectItem]) -> list[list[int]]:
        """Micro-batches, as places in `items`."""
        return cut_by_tokens(range(len(items)), lambda i: items[i].group.tokens, self.config.micro_tokens)


def look_over(actors: DirectRoles, data: DirectData, batch: Sequence[DirectItem]) -> Whole:
    """Denominators of the whole batch, and what its losses need to know of it, by a pass without gradient."""
    config = actors.config
    labels = [(item, k, good) for item in batch for k, good in item.labels]
    whole = Whole(float(len(batch)))
    if config.family == UNPAIRED:
        whole = Whole(float(len(labels)), float(sum(good for _, _, good in labels)))
    if "kto" in config.losses:
        partners = [data.mismatch_of(item) for item in batch]
        tokens = torch.tensor([len(item.group.replies[0]) for item in partners])
        ratios = reduce(torch.cat(actors.log_ratios(partners)), tokens, keywords(config, "kto")["reduction"])
        whole.shifts["kto"] = kl_estimate(ratios, len(partners))
    if "bco" in config.losses:
        known = keywords(config, "bco")
        ratios = torch.cat([r[[k for k, _ in i.labels]] for i, r in zip(batch, actors.log_ratios(batch), strict=True)])
        tokens = torch.tensor([len(item.group.replies[k]) for item, k, _ in labels])
        good = torch.tensor([good for _, _, good in labels])
        whole.shifts["bco"] = reward_shift(known["beta"] * reduce(ratios, tokens, known["reduction"]), good)
    if "aot" in config.losses:
        whole.matched.update(match_margins(actors, batch, keywords(config, "aot")["reduction"]))
    return whole


def match_margins(actors: DirectRoles, batch: Sequence[DirectItem], reduction: Reduction) -> dict[int, Tensor]:
    """AOT: for the pairs of each item, the reference's margin at the rank of the policy's in the whole batch."""
    groups, parts = [item.group for item in batch], actors.cut(batch)
    ours = reply_sums(actors.logprobs, groups, parts, actors.world)
    theirs = actors.reference.of([item.number for item in batch], groups, parts, actors.world)
    margins: list[list[Tensor]] = [[], []]
    for item, *both in zip(batch, ours, theirs, strict=True):
        tokens = torch.tensor([len(reply) for reply in item.group.replies])
        for column, sums in zip(margins, both, strict=True):
            logprobs = reduce(sums, tokens, reduction)
            column += [logprobs[i] - logprobs[j] for i, j in item.pairs]
    matched = match_ranks(torch.stack(margins[0]), torch.stack(margins[1]))
    sizes = [len(item.pairs) for item in batch]
    return {item.number: part for item, part in zip(batch, matched.split(sizes), strict=True)}


def item_loss(actors: DirectRoles, items: Sequence[DirectItem], whole: Whole) -> Losses:
    """The losses of some items, over the whole batch's denominators, and their metrics."""
    config = actors.config
    packing = pack([item.group for item in items]).to(actors.world.device)
    sums = sequence_logprobs(actors.logprobs(packing), packing.owner, packing.replies, "sum")
    reference = actors.reference.sums([item.number for item in items], packing)
    tokens = token_counts(packing.owner, packing.replies)
    data = ASSEMBLE[config.family](config, items, sums, reference, tokens)
    options = {name: keywords(config, name) for name in config.losses}
    for name, shift in whole.shifts.items():
        options[name] |= {"shift": shift.to(sums.device), "goods": whole.goods}
    if whole.matched:
        options["aot"]["matched"] = torch.cat([whole.matched[item.number] for item in items]).to(sums.device)
    loss, metrics = weighted_losses(config.losses, data, options, count=whole.count)
    if isinstance(data, Pairs) and config.needs_reference:
        a_w, a_l = (a.detach() for a in data.log_ratios("sum"))
        metrics["logps/displaced"] = (data.weights * ((a_w < 0) & (a_w > a_l)).float()).sum() / whole.count
    if "kto" in whole.shifts:
        # the same in every micro-batch, and these are summed
        metrics["kto/kl"] = whole.shifts["kto"].to(sums.device) * sum(len(i.labels) for i in items) / whole.count
    return loss, metrics


def pairs_of(config: Dpo, items: Sequence[DirectItem], sums: Tensor, reference: Tensor, tokens: Tensor) -> Pairs:
    """Every ordered pair of the items' replies; an item counts once.

    A soft label p is its expectation: the pair with weight p and the same pair turned round with 1 − p.
    """
    chosen, rejected, weights, margins = [], [], [], []
    first = 0
    for item in items:
        for i, j, margin in item.choices:
            for better, worse, asked, chance in (
                (i, j, margin, item.probability),
                (j, i, -margin, 1 - item.probability),
            ):
                if chance > 0:
                    chosen.append(first + better)
                    rejected.append(first + worse)
                    weights.append(chance / len(item.pairs))
                    margins.append(asked)
        first += len(item.texts)
    of_pair = (torch.tensor(column, device=sums.device) for column in (weights, margins))
    a, b = chosen, rejected
    return Pairs(sums[a], sums[b], reference[a], reference[b], tokens[a], tokens[b], *of_pair)


def singles_of(config: Dpo, items: Sequence[DirectItem], sums: Tensor, reference: Tensor, tokens: Tensor) -> Singles:
    """Every labelled reply."""
    at, good = [], []
    first = 0
    for item in items:
        at += [first + k for k, _ in item.labels]
        good += [label for _, label in item.labels]
        first += len(item.texts)
    labels = torch.tensor(good, device=sums.device)
    return Singles(sums[at], reference[at], tokens[at], labels, torch.ones(len(at), device=sums.device))


def rankings_of(config: Dpo, items: Sequence[DirectItem], sums: Tensor, reference: Tensor, tokens: Tensor) -> Rankings:
    """Every item as a row, padded with rank 0."""
    sizes = [len(item.texts) for item in items]
    ranks = [torch.tensor(item.ranks, device=sums.device) for item in items]
    a, b, c = (pad_sequence(list(t.split(sizes)), batch_first=True) for t in (sums, reference, tokens))
    return Rankings(a, b, c, pad_sequence(ranks, batch_first=True), torch.ones(len(items), device=sums.device))


ASSEMBLE: dict[str, Callable[..., Any]] = {PAIRED: pairs_of, UNPAIRED: singles_of, LISTWISE: rankings_of}


def keywords(config: Dpo, name: str) -> dict[str, Any]:
    """What a loss is called with: the knobs that it reads, and its own defaults for those that were not given."""
    given: dict[str, Any] = {"beta": config.beta or None, **config.loss_options}
    given["reduction"] = None if config.reduction == "auto" else config.reduction
    known = inspect.signature(LOSSES[name]).parameters.values()
    return {
        p.name: p.default if given.get(p.name) is None else given[p.name] for p in known if p.default is not p.empty
    }
