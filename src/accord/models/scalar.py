"""Scalar heads: preference and cost models (one score per reply) and critics (one value per token).

A preference or cost model is a `…ForSequenceClassification` with one label, read at the reply's EOS, the last
token, in training, in PPO and by that class alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from accord.data.batches import Group, Plan, build_plan, cut_by_tokens
from accord.models.attention import IMPLEMENTATION
from accord.models.loading import bare, base_of, describe, load_policy, load_scalar, switch_dropout_off
from accord.models.policy import hidden_states


def new_scalar(snapshot: str, criterion: str, seed: int) -> nn.Module:
    """A policy snapshot's trunk under a fresh scalar head; seeded before the head is drawn.

    The adapter of an adapted snapshot is merged into the trunk.
    """
    base = base_of(snapshot)
    config = AutoConfig.from_pretrained(base or snapshot)
    config.num_labels = 1
    config.id2label, config.label2id = {0: criterion}, {criterion: 0}
    torch.manual_seed(seed)
    with _quiet():
        model: Any = AutoModelForSequenceClassification.from_pretrained(
            base or snapshot, config=config, attn_implementation=IMPLEMENTATION, dtype=torch.float32
        )
    if base:
        merged: Any = load_policy(snapshot)
        model.base_model.load_state_dict(merged.merge_and_unload().base_model.state_dict())
    torch.manual_seed(seed)
    nn.init.normal_(model.score.weight, std=1.0 / (config.hidden_size + 1) ** 0.5)
    switch_dropout_off(model)
    result: nn.Module = model
    return result


def _quiet() -> Any:
    """Silence the loader's report that the new head is new."""
    import contextlib

    from transformers.utils import logging

    @contextlib.contextmanager
    def context() -> Any:
        level = logging.get_verbosity()
        logging.set_verbosity_error()
        try:
            yield
        finally:
            logging.set_verbosity(level)

    return context()


def values(model: nn.Module, plan: Plan) -> Tensor:
    """The scalar head at every row of the plan: (R,)."""
    scores: Tensor = bare(model).score(hidden_states(model, plan))
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


class Scorer:
    """A frozen preference or cost model with its normaliser. It scores ids that its own tokenizer rendered."""

    def __init__(self, where: str, *, role: str, device: torch.device) -> None:
        self.where = where
        self.role = role
        self.description = describe(where)
        self.model = load_scalar(where, role=role).to(device)
        self.normalizer = Normalizer(**self.description["normalizer"])
        self._device = device

    @torch.no_grad()
    def scores(self, groups: Sequence[Group], *, micro_tokens: int) -> Tensor:
        """One normalised score per reply of the groups, in their order, on the CPU."""
        return self.normalizer(self.raw_scores(groups, micro_tokens=micro_tokens))

    @torch.no_grad()
    def raw_scores(self, groups: Sequence[Group], *, micro_tokens: int) -> Tensor:
        """One raw score per reply, read at its last token."""
        parts = [
            values(self.model, build_plan(part, rows="last").to(self._device)).cpu()
            for part in cut_by_tokens(groups, lambda g: g.tokens, micro_tokens)
        ]
        return torch.cat(parts) if parts else torch.zeros(0)
