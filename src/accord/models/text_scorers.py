"""Scorers that are given texts: Python functions, and servers, of which several are one scorer.

What a function or a service answers is a raw score. 0.0 is a score. An exception, a score too few, or one that is no
finite number ends the run: a reward that is made up for a scorer that failed would be learned from.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from accord.data.chat import Renderer
from accord.engine.packing import Group, cut_by_tokens
from accord.engine.remote.fleet import Fleet
from accord.engine.remote.scores import About, ScoreServer, ScoresRefused
from accord.errors import BadInput
from accord.models.scalar import Normalizer
from accord.records import Prompt, Turn, as_messages

AT_ONCE = 64  # replies in one call
IN_FLIGHT = 4  # calls to one server

Conversation = list[dict[str, str]]
Asked = tuple[dict[str, Any], int]  # a request, and of how many replies it asks for the score


class ScorerFailed(RuntimeError):
    """A scorer gave no usable score."""


class TextScorer:
    """A scorer that is a function of texts. A critic cannot start from it and starts from the policy."""

    normalizer = Normalizer()
    measured: Mapping[str, Any] = MappingProxyType({})
    spent: Mapping[str, float] = MappingProxyType({})
    collective = False

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
        conversations = conversations_of(prompts, replies)
        found: list[float] = []
        for start in range(0, len(conversations), AT_ONCE):
            part = conversations[start : start + AT_ONCE]
            found += checked(self.where, self._call(part), len(part))
        return torch.tensor(found, dtype=torch.float32)

    scores = raw_scores


class RemoteScorer:
    """Servers at addresses with commas between them, each of which scores a part.

    A server that says what it is is held to it: to the role and the criterion it is asked as, to the others, and to
    itself when it comes back after having been away. Where its tokenizer is the policy's it is sent the very ids that
    were drawn, a prompt once for all its replies, and its numbers are those of the model in this process. Any other is
    sent conversations. Raises BadInput where one is silent, at first or for good, or does not fit, ScorerFailed where
    there is no score.
    """

    remote, collective = True, False
    spent: Mapping[str, float] = MappingProxyType({})

    def __init__(self, where: str, role: str, renderer: Renderer | None, head: str = "") -> None:
        self.where, self.role, self.renderer = where, role, renderer
        servers = [ScoreServer(url.strip()) for url in where.split(",")]
        self.about = agreed(servers, role)
        self.normalizer, self._head = Normalizer(), ""
        self.measured: Mapping[str, Any] = MappingProxyType({})
        if self.about is None:
            print(f"note: {where} does not say what it is, so nothing holds it to that", flush=True)
        else:
            self._head = read_of(self.about, head, where)
            reading = self.about.readings[self._head]
            self.normalizer = Normalizer(**reading["normalizer"])
            self.measured = MappingProxyType(reading["measured"])
        self._takes_ids = self.about is not None and renderer is not None and self.about.tokenizer == renderer.identity
        self._fleet = Fleet(servers, self._recognise, at_once=IN_FLIGHT)

    def raw_scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """One score (B,) per reply."""
        size = max(1, min(AT_ONCE, -(-len(replies) // len(self._fleet.servers))))
        asked = self._in_ids(groups, size) if self._takes_ids else self._in_texts(prompts, replies, groups, size)
        kind = "scores" if self.about is None else "raw"

        def ask(server: ScoreServer, place: int) -> list[float]:
            body, count = asked[place]
            return checked(server.url, server.ask(body).get(kind), count)

        try:
            found = self._fleet.each(len(asked), ask)
        except ScoresRefused as error:
            raise ScorerFailed(str(error)) from None
        return torch.tensor([score for part in found for score in part], dtype=torch.float32)

    def scores(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], *, micro_tokens: int
    ) -> Tensor:
        """The same, normalised."""
        return self.normalizer(self.raw_scores(prompts, replies, groups, micro_tokens=micro_tokens))

    def _in_ids(self, groups: Sequence[Group], size: int) -> list[Asked]:
        return [
            (
                {"groups": [{"prefix": g.prefix, "replies": g.replies} for g in part], "head": self._head},
                sum(len(group.replies) for group in part),
            )
            for part in cut_by_tokens(groups, lambda group: len(group.replies), size)
        ]

    def _in_texts(
        self, prompts: Sequence[Prompt], replies: Sequence[str], groups: Sequence[Group], size: int
    ) -> list[Asked]:
        """Conversations; a server of ours is told which replies were cut, and reads these at their last token."""
        conversations = conversations_of(prompts, replies)
        ended: list[bool] = []
        if self.about is not None and self.renderer is not None:
            ended = [bool(ids) and ids[-1] in self.renderer.stops for group in groups for ids in group.replies]
        asked: list[Asked] = []
        for start in range(0, len(conversations), size):
            part = slice(start, start + size)
            body: dict[str, Any] = {"conversations": conversations[part]}
            if self.about is not None:
                body |= {"head": self._head, "ended": ended[part]}
            asked.append((body, len(conversations[part])))
        return asked

    def _recognise(self, server: ScoreServer) -> None:
        if server.about() != self.about:
            raise BadInput(f"{server.url} came back as another model; serve the one of before, and go on with --resume")


def agreed(servers: Sequence[ScoreServer], role: str) -> About | None:
    """What all of the servers say that they are. BadInput where one has another role, or is another model."""
    told = {server.url: server.about() for server in servers}
    (first, about), *others = told.items()
    for url, other in others:
        if other != about:
            raise BadInput(f"{url} serves another model than {first}; servers with commas between are one scorer")
    if about is not None and about.role != role:
        flag = "--costs" if about.role == "cost" else "--rewards"
        raise BadInput(f"{first} serves a {about.role} model, and a {role} model is needed; give it to {flag}")
    return about


def read_of(about: About, head: str, where: str) -> str:
    """Which criterion a server is asked for; BadInput where it has not the one that is wanted."""
    for name in (head, ""):
        if name in about.readings:
            return name
    raise BadInput(f"{where} has a head for each of {', '.join(about.readings)}; use one as the model's NAME")


def conversations_of(prompts: Sequence[Prompt], replies: Sequence[str]) -> list[Conversation]:
    """Each prompt's turns with its reply behind them."""
    return [
        as_messages((*prompt.turns, Turn("assistant", reply))) for prompt, reply in zip(prompts, replies, strict=True)
    ]


def checked(where: str, found: Any, expected: int) -> list[float]:
    """The scores of so many replies; ScorerFailed for anything else."""
    values = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(values, list | tuple) or len(values) != expected:
        size = f"{len(values)} scores" if isinstance(values, list | tuple) else f"a {type(values).__name__}"
        raise ScorerFailed(f"{where} gave {size} for {expected} replies")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ScorerFailed(f"{where} gave {value!r}, which is no finite number")
    return [float(value) for value in values]
