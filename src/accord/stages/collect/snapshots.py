"""Snapshots that draw replies in this process, one call at a time: for questions, and live for conversations."""

import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from accord.data.chat import Renderer
from accord.data.template import Refused
from accord.engine.decode.sampler import CACHED
from accord.engine.engines import InProcess
from accord.engine.texts import said
from accord.errors import BadInput
from accord.models.loading import load_policy
from accord.models.places import most_positions
from accord.models.preflight import preflight, refuse, role_finding
from accord.models.tokenizer import load_renderer
from accord.records import Turn
from accord.stages.collect.config import Collect
from accord.stages.shared import sample_settings

TRIES = 4  # how often two replies are drawn before a person is told that they do not differ


@dataclass(frozen=True)
class Deployed:
    """A policy and how conversations are written for it."""

    where: str
    model: nn.Module
    renderer: Renderer

    def fits(self, turns: Sequence[Turn], longest: int) -> bool:
        """Whether it reads the conversation and a reply of `longest` tokens."""
        room = most_positions(self.model.config) or 2**31
        return len(self.renderer.prompt_ids(turns)) + longest <= room


class Turns:
    """One draws at a time, and a person who waits in a conversation comes before questions that nobody has seen yet.

    A plain lock would go to the thread that draws questions again and again: it asks for it as soon as it let it go.
    """

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._taken = False
        self._waiting = 0  # conversations

    @contextmanager
    def take(self, *, live: bool) -> Iterator[None]:
        """Wait for a turn, and have it until the block ends."""
        with self._free:
            self._waiting += live
            self._free.wait_for(lambda: not self._taken and (live or not self._waiting))
            self._waiting -= live
            self._taken = True
        try:
            yield
        finally:
            with self._free:
                self._taken = False
                self._free.notify_all()


class Snapshots:
    """The policies of `--snapshots`, loaded when they are first asked for.

    Raises BadInput at once for one whose files say that it will not do.
    """

    def __init__(self, config: Collect) -> None:
        preflight({f"model.{number}": where for number, where in enumerate(config.snapshots)})
        refuse(role_finding(where, "policy") for where in config.snapshots)
        self.config = config
        self._loaded: list[Deployed] = []
        self._loading = threading.Lock()
        self._turns = Turns()
        self._random = random.SystemRandom()

    def all(self) -> list[Deployed]:
        """Every one, loaded once. Raises BadInput for one whose weights will not do."""
        with self._loading:
            if not self._loaded:
                self._loaded = [
                    Deployed(where, load_policy(where, trainable=False), load_renderer(where))
                    for where in self.config.snapshots
                ]
            return self._loaded

    def draw(
        self,
        snapshot: Deployed,
        conversations: Sequence[Sequence[Turn]],
        share: int,
        *,
        seed: int,
        first: int = 0,
        live: bool = False,
    ) -> list[list[str]]:
        """`share` replies to each conversation; `first` is the first one's number in the stream of random numbers.

        Somebody waits for those of a `live` one.
        """
        config, renderer = self.config, snapshot.renderer
        numbers = range(first, first + len(conversations))
        settings = sample_settings(config, renderer, share, seed, numbers=numbers)
        ids = [renderer.prompt_ids(turns) for turns in conversations]
        with self._turns.take(live=live):
            drawn = InProcess(snapshot.model, config.cache_tokens or CACHED).sample(ids, settings)
        texts = [said(renderer, (), rollout.ids) for rollout in drawn]
        return [texts[place : place + share] for place in range(0, len(texts), share)]

    def origin(self, where: str, seed: int) -> str:
        """Which snapshot and which settings a reply came from."""
        settings = {"temperature": self.config.temperature, "max_new_tokens": self.config.max_new_tokens, "seed": seed}
        return json.dumps({"snapshot": where, **settings})

    def replies(self, turns: Sequence[Turn]) -> list[tuple[str, str]]:
        """Two replies that differ, of two snapshots drawn at random where there are several. Raises BadInput."""
        everybody = self.all()
        asked = self._random.sample(everybody, 2) if len(everybody) > 1 else everybody * 2
        for snapshot in asked:
            refuse_unread(snapshot, turns, self.config.max_new_tokens)
        for _ in range(TRIES):
            found = []
            for snapshot in asked:
                seed = self._random.randrange(2**31)
                ((text,),) = self.draw(snapshot, [turns], 1, seed=seed, live=True)
                found.append((text, self.origin(snapshot.where, seed)))
            first, second = (text.strip() for text, _ in found)
            if first and second and first != second:
                return found
        raise BadInput("the model had no two replies that differ; say it in other words.")


def refuse_unread(snapshot: Deployed, turns: Sequence[Turn], longest: int) -> None:
    """Raise BadInput for a conversation that the template refuses, or that leaves no room for a reply."""
    try:
        snapshot.renderer.take(turns)
    except Refused as reason:
        raise BadInput(f"the model does not take this conversation ({reason}); end it and begin another.") from None
    if not snapshot.fits(turns, longest):
        raise BadInput("the conversation is longer than the model reads; write less, or end it and begin another.")
