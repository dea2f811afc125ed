"""A language model of this machine as labeler: it writes nothing, it is read how likely each answer is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accord.engine.forward.causal import token_logprobs
from accord.engine.forward.dtype import exact
from accord.engine.packing import Group, cut_by_tokens, reply_group
from accord.errors import BadInput
from accord.labelers.questions import ANSWERS, which_is_better
from accord.models.loading import load_policy
from accord.models.places import describe
from accord.models.reference import reply_sums
from accord.models.tokenizer import load_renderer
from accord.records import Prompt, Turn
from accord.training.distributed import World

Pair = tuple[Prompt, str, str]


@dataclass(frozen=True)
class Preferences:
    """Of N pairs that were asked about: `first[i]` is the probability that the first reply is better.

    It is the mean over both orders of showing, so that a liking for a place cancels. `same_place` is the share of pairs
    in which the likelier answer named the same place in both orders: such a labeler saw the place, not the replies
    (Lee et al. 2023, RLAIF, arXiv:2309.00267, section on position bias).
    """

    first: list[float]
    same_place: float


class PolicyLabeler:
    """Any causal language model. Raises BadInput for a model with another head."""

    def __init__(self, snapshot: str, world: World) -> None:
        if (role := describe(snapshot)["role"]) != "policy":
            raise BadInput(f"{snapshot}: a {role} model gives scores and no answers; use --labeler preference")
        self._renderer = load_renderer(snapshot)
        self._model = load_policy(snapshot, trainable=False).to(world.device)
        self._world = world
        self.context = int(getattr(self._model.config, "max_position_embeddings", 0)) or 2**31

    def prefers(self, pairs: Sequence[Pair], criterion: str, *, micro_tokens: int) -> Preferences:
        """Ask about every pair in both orders."""
        orders = [
            [self._group(which_is_better(prompt.turns, first, second, criterion)) for prompt, first, second in asked]
            for asked in (pairs, [(prompt, b, a) for prompt, a, b in pairs])
        ]
        shown_first, shown_second = (self._answers(groups, micro_tokens)[:, 0] for groups in orders)
        same = ((shown_first > 0.5) == (shown_second > 0.5)).float().mean()
        return Preferences(((shown_first + 1 - shown_second) / 2).tolist(), float(same))

    def fits(self, pair: Pair, criterion: str) -> bool:
        """Whether the question is no longer than what the model can read."""
        prompt, first, second = pair
        return self._group(which_is_better(prompt.turns, first, second, criterion)).tokens <= self.context

    def _group(self, question: Sequence[Turn]) -> Group:
        """The question once and its answers, without the end of the turn: what matters is which answer begins."""
        answers = (self._renderer.reply_ids(answer, question)[:-1] for answer in ANSWERS)
        return reply_group(self._renderer.prompt_ids(question), *answers)

    def _answers(self, groups: Sequence[Group], micro_tokens: int) -> Tensor:
        """(N, answers): π(answer | question), normalised over the answers."""
        parts = cut_by_tokens(range(len(groups)), lambda i: groups[i].tokens, micro_tokens)
        sums = reply_sums(lambda packing: token_logprobs(self._model, packing), groups, parts, self._world)
        return exact(torch.stack(sums)).softmax(1)
