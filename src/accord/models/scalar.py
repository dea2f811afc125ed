"""Scalar heads: preference and cost models (one score per reply) and critics (one value per token).

A preference or cost model is a `…ForSequenceClassification` with one label for each criterion (or group of
labelers), read at the reply's EOS, the last token, in training, in PPO and by that class alike. An ensemble is such a
snapshot with further ones below it, in `members/`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from accord.engine.forward.adapters import bare
from accord.engine.forward.causal import hidden_states
from accord.engine.forward.within import within
from accord.engine.packing import Group, Packing, cut_by_tokens, pack, reply_group
from accord.errors import BadInput
from accord.models.ensemble import Combination, combine
from accord.models.loading import load_policy, load_scalar, pretrained
from accord.models.places import (
    KNOWLEDGE,
    base_of,
    describe,
    heads_of,
    most_positions,
    read_config,
    reading,
    whole_name,
)
from accord.training.shards import in_step, is_sharded


def new_scalar(snapshot: str, criterion: str | Sequence[str], seed: int) -> nn.Module:
    """A policy snapshot's trunk under fresh scalar heads, one per name; seeded before they are drawn.

    The adapter of an adapted snapshot is merged into the trunk.
    """
    base = base_of(snapshot)
    config = read_config(snapshot)
    _name_heads(config, [criterion] if isinstance(criterion, str) else criterion)
    torch.manual_seed(seed)
    with reading(snapshot, "a model"):
        model = pretrained(AutoModelForSequenceClassification, base or snapshot, config=config, new_head=True)
    if base:
        whole: Any = load_policy(snapshot)
        model.base_model.load_state_dict(whole.base_model.state_dict())
        model.name_or_path = whole_name(snapshot)
    _draw_head(model, seed)
    result: nn.Module = model
    return result


def start_scalar(snapshot: str, heads: Sequence[str], *, role: str, seed: int) -> nn.Module:
    """What training starts from: a policy's trunk under new heads, or a preference or cost model itself.

    A model of the same role and heads goes on with them (preference-model pretraining); of another, its trunk is
    taken.
    """
    described = describe(snapshot)
    if described["role"] == "policy":
        return new_scalar(snapshot, heads, seed)
    model = load_scalar(snapshot, role=described["role"], trainable=True)
    if (described["role"], heads_of(described)) == (role, list(heads)):
        return model
    inner = bare(model)
    _name_heads(inner.config, heads)
    inner.num_labels = len(heads)
    inner.score = nn.Linear(inner.config.hidden_size, len(heads), bias=False)
    _draw_head(inner, seed)
    return model


def _name_heads(config: Any, heads: Sequence[str]) -> None:
    config.num_labels = len(heads)
    config.id2label = dict(enumerate(heads))
    config.label2id = {name: i for i, name in enumerate(heads)}


def _draw_head(model: Any, seed: int) -> None:
    torch.manual_seed(seed)
    nn.init.normal_(model.score.weight, std=1.0 / (model.config.hidden_size + 1) ** 0.5)


def keep_head(model: nn.Module, head: int) -> nn.Module:
    """The model with one of its heads alone, as a critic needs it."""
    inner = bare(model)
    weight = inner.score.weight
    if weight.shape[0] > 1:
        inner.score = nn.Linear(weight.shape[1], 1, bias=False, dtype=weight.dtype, device=weight.device)
        inner.score.weight = nn.Parameter(weight[head : head + 1].detach().clone(), weight.requires_grad)
    return model


def values(model: nn.Module, packing: Packing) -> Tensor:
    """The scalar head at every row of the packing: (R,); several heads: (R, heads)."""
    inner, hidden = bare(model), hidden_states(model, packing)
    scores: Tensor = within(inner, lambda: inner.score(hidden))
    return scores.squeeze(-1).float()


@dataclass(frozen=True, slots=True)
class Normalizer:
    """From a model's raw score to the score that stages use.

    `standard`: (score − shift) / scale. `sign-probability`: 2σ(C) − 1, the expected sign of harm, in (−1, 1): it
    keeps the zero, which is all that a cost model may do. `none`: as it is.
    """

    kind: str = "none"
    shift: float = 0.0
    scale: float = 1.0

    def __call__(self, raw: Tensor) -> Tensor:
        if self.kind == "sign-probability":
            return torch.tanh(raw / 2)
        return (raw - self.shift) / self.scale

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "shift": self.shift, "scale": self.scale}


def normalizers_of(described: dict[str, Any]) -> dict[str, Normalizer]:
    """The normaliser of every head."""
    stored = described["normalizer"]
    if isinstance(stored.get("kind"), str):  # a criterion may have that name
        return {head: Normalizer(**stored) for head in heads_of(described)}
    return {head: Normalizer(**stored[head]) for head in heads_of(described)}


class Scorer:
    """A frozen preference or cost model, or an ensemble of them, with its normaliser.

    It scores ids that its own tokenizer rendered. Of a model with a head for each criterion, `head` names the one that
    is read; heads of groups and members of an ensemble are combined as the snapshot says. Members are aligned at their
    own zeros first (a cost has no shift, and stays as it is), so that what is combined are logits. Models that were
    trained as adapters on the model `on` stay adapters on it.
    """

    def __init__(self, where: str, *, role: str, device: torch.device, head: str = "", on: str = "") -> None:
        self.where, self.role, self.on = where, role, on
        if role == KNOWLEDGE:
            raise BadInput(f"{where} is a P(IK) head: it reads prompts and no replies; ask it by `evaluate honesty`")
        self.description = describe(where)
        ensemble = self.description.get("ensemble", {})
        folders = [where, *(str(Path(where) / member) for member in ensemble.get("members", []))]
        self.models = [load_scalar(folder, role=role, on=on).to(device) for folder in folders]
        self.model = self.models[0]
        self.heads = heads_of(self.description)
        self.members = [normalizers_of(describe(folder)) for folder in folders]
        self._how = Combination(**ensemble.get("combine", {})), Combination(**self.description.get("groups", {}))
        self._device = device
        self._read_at(head)

    def _read_at(self, head: str) -> None:
        self.read = self._read(head)
        used = [member[name] for member in self.members for name in self.read]
        scale = sum(normalizer.scale for normalizer in used) / len(used)
        self.normalizer = used[0] if self.is_plain else Normalizer(used[0].kind, 0.0, scale)

    def reading(self, head: str) -> "Scorer":
        """The same models, read at another head (all of them combined where heads are groups' and this is none)."""
        other = copy.copy(self)
        other._read_at(head)
        return other

    def _read(self, head: str) -> list[str]:
        if head in self.heads:
            return [head]
        if len(self.heads) == 1 or "groups" in self.description:
            return self.heads
        named = f"{head!r} is none of them" if head else "none was named"
        raise BadInput(
            f"{self.where} has a head for each of {', '.join(self.heads)}, and {named}; use one as the model's NAME"
        )

    @property
    def is_plain(self) -> bool:
        """Whether one head of one model is read."""
        return len(self.models) == len(self.read) == 1

    @property
    def measured(self) -> dict[str, Any]:
        """What its training found out about the raw scores (`deviation`, `calibration`); nothing about one head of
        several, of which that does not hold."""
        return self.description if len(self.read) == len(self.heads) else {}

    @torch.no_grad()
    def scores(self, groups: Sequence[Group], *, micro_tokens: int) -> Tensor:
        """One normalised score per reply of the groups, in their order, on the CPU."""
        return self.normalizer(self.raw_scores(groups, micro_tokens=micro_tokens))

    @torch.no_grad()
    def raw_scores(self, groups: Sequence[Group], *, micro_tokens: int) -> Tensor:
        """One score in logits per reply, read at its last token."""
        table = self.table(groups, micro_tokens=micro_tokens)
        if self.is_plain:
            return table[:, 0, self.heads.index(self.read[0])]
        return self.combined(table)

    def combined(self, table: Tensor) -> Tensor:
        """What `table` (R, members, heads) says together, (R,) in logits about the members' own zeros."""
        shifts = torch.tensor([[normalizers[head].shift for head in self.heads] for normalizers in self.members])
        at = [self.heads.index(head) for head in self.read]
        aligned = (table - shifts)[:, :, at]
        better = self.role == "preference"
        by_member, by_group = self._how
        per_head = torch.stack(
            [combine(aligned[:, :, i], by_member, higher_is_better=better) for i in range(len(at))], dim=1
        )
        return combine(per_head, by_group, names=self.read, higher_is_better=better)

    @torch.no_grad()
    def table(self, groups: Sequence[Group], *, micro_tokens: int) -> Tensor:
        """Raw scores (R, members, heads) of every head in one forward pass of each member."""
        parts = self._cut(groups, micro_tokens)
        return torch.stack([self._scored(model, parts) for model in self.models], dim=1)

    def _scored(self, model: nn.Module, parts: Sequence[list[Group]]) -> Tensor:
        """Raw scores (R, heads) by one member."""
        found = [torch.zeros(0, len(self.heads))]
        for part, counts in in_step(is_sharded(model), parts, reply_group((0,), (0,))):
            scores = head_scores(model, part, self._device)
            found += [scores] if counts else []
        return torch.cat(found)

    @torch.no_grad()
    def features(self, groups: Sequence[Group], *, micro_tokens: int) -> Tensor:
        """What the first member's heads read: last hidden states (R, d) at the replies' last tokens."""
        parts = [
            hidden_states(self.model, pack(part, rows="last").to(self._device)).float().cpu()
            for part in self._cut(groups, micro_tokens)
        ]
        return torch.cat(parts)

    def _cut(self, groups: Sequence[Group], micro_tokens: int) -> list[list[Group]]:
        # in the ids of a tokenizer of its own a text may be longer than --max_length says
        longest = max((len(g.prefix) + len(reply) for g in groups for reply in g.replies), default=0)
        limit = most_positions(bare(self.model).config)
        if limit and longest > limit:
            raise BadInput(f"{self.where} reads {limit} tokens, and a conversation has {longest} of its; give shorter")
        return cut_by_tokens(groups, lambda g: g.tokens, micro_tokens)


def head_scores(model: nn.Module, groups: Sequence[Group], device: torch.device) -> Tensor:
    """Raw scores (R, heads) of the groups' replies, on the CPU."""
    packing = pack(groups, rows="last").to(device)
    return values(model, packing).reshape(packing.replies, -1).cpu()
