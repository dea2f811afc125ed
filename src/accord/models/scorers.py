"""Scores from anywhere: models with heads, Python functions, HTTP services. All see the conversation, none foreign ids.

    DIRECTORY or OWNER/NAME   a preference or cost model, own or any `…ForSequenceClassification` with one label; where
                              its tokenizer is another, the conversation is rendered anew by its own chat template
    MODULE:FUNCTION           function(conversations) → one number each; a conversation is a list of
                              {"role", "content"} that ends with the reply
    http://…, https://…       a server, or several with commas (`accord.engine.remote.scores`)

What else there is, SCHEME:WHERE, is opened by `accord.stages.rewards`.

Higher is better for a reward; for a cost above 0 is unsafe.
"""

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from accord.config import is_server, scheme_of
from accord.data.chat import Renderer
from accord.engine.packing import Group, reply_group
from accord.errors import BadInput
from accord.models.scalar import Normalizer, Scorer
from accord.models.text_scorers import Conversation, RemoteScorer, TextScorer
from accord.models.tokenizer import load_renderer
from accord.records import Prompt
from accord.training.shards import is_sharded

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ReplyScorer(Protocol):
    """What gives every reply a number. `renderer` is None where it reads the policy's own ids.

    A reply's score is `normalizer` of its raw score; limits are held on raw costs, by what `measured` says of them.
    To ask one that is `remote` costs this process nothing but waiting, and may be done in another thread.
    """

    where: str
    role: str
    renderer: Renderer | None
    remote: bool
    normalizer: Normalizer

    @property
    def collective(self) -> bool:
        """Whether every rank must ask it at once, and as often as the others."""

    @property
    def measured(self) -> Mapping[str, Any]:
        """`deviation` of the raw costs of its training replies, and `calibration` of σ(cost), where they are known."""

    @property
    def spent(self) -> Mapping[str, float]:
        """What asking it has taken so far, by name (`calls`, `cost`, …); nothing where that is not counted."""

    def raw_scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One raw score (B,) per reply; `groups` hold the same replies in the policy's ids."""

    def scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """The same, normalised."""


def open_scorer(
    where: str, role: str, renderer: Renderer | None, device: torch.device, head: str = "", *, on: str = ""
) -> ReplyScorer:
    """The scorer that `where` names; `role` is preference or cost. BadInput if there is none, before it is called.

    `renderer` is that of the groups it will be given; None is a model's own.
    `head` names the criterion that is read of a model with a head for each of several. Adapters on the model `on` are
    not merged, so that its weights can be shared.
    """
    if scheme := scheme_of(where):
        raise BadInput(f"{where}: {scheme} gives rewards of `accord ppo` alone; name a model, MODULE:FUNCTION or a URL")
    if is_address(where):
        return RemoteScorer(where, role, renderer, head)
    if FUNCTION.fullmatch(where):
        return TextScorer(where, role, renderer, load_function(where))
    return ConversationScorer(where, role, renderer or load_renderer(where), device, head, on=on)


def is_address(where: str) -> bool:
    return where.startswith(("http://", "https://"))


def is_elsewhere(where: str) -> bool:
    """Whether a scorer is no model that is read here: a service, a function, a server of questions, SCHEME:WHERE."""
    return is_address(where) or is_server(where) or bool(scheme_of(where)) or FUNCTION.fullmatch(where) is not None


def load_function(where: str) -> Callable[[list[Conversation]], Any]:
    """The function MODULE:FUNCTION; modules of the working directory are found too."""
    module, _, name = where.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise
        raise BadInput(f"{where}: there is no module {error.name}; name one that Python can import") from None
    except AttributeError:
        raise BadInput(f"{where}: {module} has no {name}") from None
    if not callable(found):
        raise BadInput(f"{where}: {name} is no function")
    result: Callable[[list[Conversation]], Any] = found
    return result


class ConversationScorer(Scorer):
    """Scores rollouts: by their own ids where it shares the policy's tokenizer, else by the conversation anew."""

    remote = False
    spent: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self, where: str, role: str, renderer: Renderer, device: torch.device, head: str = "", *, on: str = ""
    ) -> None:
        super().__init__(where, role=role, device=device, head=head, on=on)
        own = load_renderer(where, clock=renderer.ask_time)
        self._stops = renderer.stops
        self.renderer = own if own.tells_apart(renderer) else None

    @property
    def collective(self) -> bool:
        return any(is_sharded(model) for model in self.models)

    def scores(  # type: ignore[override]
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One normalised score (B,) per reply; `groups` hold the same replies in the policy's ids."""
        return self.normalizer(self.raw_scores(prompts, replies, groups, micro_tokens=micro_tokens))

    def raw_scores(  # type: ignore[override]
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One score (B,) in logits per reply.

        A finished reply is read at its end of turn, a cut one at its last token, whoever's ids they are.
        """
        if self.renderer is not None:
            drawn = [ids for group in groups for ids in group.replies]
            groups = [
                reply_group(self.renderer.prompt_ids(prompt.turns), self._own_ids(self.renderer, prompt, reply, ids))
                for prompt, reply, ids in zip(prompts, replies, drawn, strict=True)
            ]
        return super().raw_scores(groups, micro_tokens=micro_tokens)

    def _own_ids(self, renderer: Renderer, prompt: Prompt, reply: str, drawn: Sequence[int]) -> Sequence[int]:
        ids = renderer.drawn_ids(reply, prompt.turns)
        return ids if drawn and drawn[-1] in self._stops else ids[:-1]
