"""What is learned beside a scalar model's weights while it is trained: ties, reliabilities, the scale of ratings."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from accord.engine.forward.adapters import bare
from accord.engine.forward.causal import token_logprobs
from accord.engine.packing import Packing
from accord.models.loading import load_policy
from accord.models.scalar import values

# AdamW moves every number by about the learning rate in a step; these few are numbers about 1, not about 0.05
SPEED = 30.0
FIRST_RELIABILITY = 0.9


class PreferenceLearner(nn.Module):
    """A scalar model with the parameters of how people answer about its scores.

    `log_ties` (heads,) is log ν of Davidson's model; `gain` and `bias` (heads,) carry a score to the raters' scale;
    `reliability_logits` (labelers,). `language` shares the scorer's trunk and has the language-model head that it came
    with, for the likelihood of good replies; it is not saved.
    """

    def __init__(
        self, scorer: nn.Module, heads: Sequence[str], labelers: Sequence[str], *, tie_rate: float, start: str = ""
    ) -> None:
        super().__init__()
        self.scorer = scorer
        self.heads = list(heads)
        self.labelers = list(labelers)
        # between replies of equal score P(tie) = ν / (2 + ν)
        first = math.log(max(2 * tie_rate / max(1 - tie_rate, 1e-3), 1e-3))
        self._log_ties = nn.Parameter(torch.full((len(heads),), first / SPEED))
        self._gain = nn.Parameter(torch.full((len(heads),), 1.0 / SPEED))
        self._bias = nn.Parameter(torch.zeros(len(heads)))
        logit = math.log(FIRST_RELIABILITY / (1 - FIRST_RELIABILITY))
        self._reliability = nn.Parameter(torch.full((len(labelers),), logit / SPEED))
        self.language = language_model(start, scorer) if start else None

    @property
    def log_ties(self) -> Tensor:
        return SPEED * self._log_ties

    @property
    def gain(self) -> Tensor:
        return SPEED * self._gain

    @property
    def bias(self) -> Tensor:
        return SPEED * self._bias

    @property
    def reliability(self) -> Tensor:
        """(labelers,) in (0, 1): how often each says what they find."""
        return torch.sigmoid(SPEED * self._reliability).clamp(1e-4, 1 - 1e-4)

    def scores(self, packing: Packing) -> Tensor:
        """Raw scores (R, heads) at the packing's rows."""
        return values(self.scorer, packing).reshape(len(packing.rows), len(self.heads))

    def token_logprobs(self, packing: Packing) -> Tensor:
        """Log-probs (R,) of the packing's targets by the trunk under its language-model head."""
        assert self.language is not None
        return token_logprobs(self.language, packing)


def language_model(start: str, scorer: nn.Module) -> nn.Module:
    """The policy `start` with the scorer's trunk in the place of its own."""
    policy: Any = load_policy(start)
    setattr(policy, policy.base_model_prefix, bare(scorer).base_model)
    policy.tie_weights()
    result: nn.Module = policy
    return result
