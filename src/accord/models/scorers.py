"""Scores from anywhere: models with heads, Python functions, HTTP services. All see the conversation, none foreign ids.

    DIRECTORY or OWNER/NAME   a preference or cost model, own or any `…ForSequenceClassification` with one label; where
                              its tokenizer is another, the conversation is rendered anew by its own chat template
    MODULE:FUNCTION           function(conversations) → one number each; a conversation is a list of
                              {"role", "content"} that ends with the reply
    http://…, https://…       POST {"conversations": […]} → {"scores": […]}

What else there is, SCHEME:WHERE, is opened by `accord.stages.rewards`.

Higher is better for a reward; for a cost above 0 is unsafe. What a function or a service answers is a raw score. 0.0 is
a score. An exception, a score too few, or one that is no finite number ends the run: a reward that is made up for a
scorer that failed would be learned from.
"""

import importlib
import math
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
from accord.engine.remote.http import CallFailed, call_json
from accord.errors import BadInput
from accord.models.scalar import Normalizer, Scorer
from accord.models.tokenizer import load_renderer
from accord.records import Prompt

FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
AT_ONCE = 64  # conversations in one call
ATTEMPTS = 3  # of an HTTP call that fails in passing: connection, 429, 5xx
TIMEOUT = 60.0  # seconds for one HTTP call

Conversation = list[dict[str, str]]


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


class ScorerFailed(RuntimeError):
    """A scorer gave no usable score."""


class TextScorer:
    """A scorer that is a function of texts. A critic cannot start from it and starts from the policy."""

    normalizer = Normalizer()
    measured: Mapping[str, Any] = MappingProxyType({})
    spent: Mapping[str, float] = MappingProxyType({})

    def __init__(
        self,
        where: str,
        role: str,
        renderer: Renderer | None,
        call: Callable[[list[Conversation]], Any],
        *,
        remote: bool = False,
    ) -> None:
        self.where, self.role, self.remote = where, role, remote
        self.renderer = renderer
        self._call = call

    def raw_scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One score (B,) per reply; raises ScorerFailed where there is none."""
        conversations = [
            [*({"role": turn.role, "content": turn.content} for turn in prompt.turns), _said(reply)]
            for prompt, reply in zip(prompts, replies, strict=True)
        ]
        found: list[float] = []
        for start in range(0, len(conversations), AT_ONCE):
            part = conversations[start : start + AT_ONCE]
            found += _checked(self.where, self._call(part), len(part))
        return torch.tensor(found, dtype=torch.float32)

    scores = raw_scores


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
        return TextScorer(where, role, renderer, lambda conversations: _post(where, conversations), remote=True)
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


def _said(reply: str) -> dict[str, str]:
    return {"role": "assistant", "content": reply}


def _checked(where: str, found: Any, expected: int) -> list[float]:
    values = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(values, list | tuple) or len(values) != expected:
        size = f"{len(values)} scores" if isinstance(values, list | tuple) else f"a {type(values).__name__}"
        raise ScorerFailed(f"{where} gave {size} for {expected} replies")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ScorerFailed(f"{where} gave {value!r}, which is no finite number")
    return [float(value) for value in values]


def _post(url: str, conversations: list[Conversation]) -> Any:
    try:
        answer: Any = call_json(url, {"conversations": conversations}, timeout=TIMEOUT, attempts=ATTEMPTS)
    except CallFailed as error:
        tried = f", {ATTEMPTS} times" if error.passing else ""
        raise ScorerFailed(f"{url} {error}{tried}") from None
    if not isinstance(answer, dict) or "scores" not in answer:
        raise ScorerFailed(f"{url} answered no JSON object with scores: {str(answer)[:80]}")
    return answer["scores"]


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
