"""Snapshots that draw replies in this process, one call at a time: for questions, and live for conversations."""

import json
import random
import threading
from collections.abc import Sequence
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
from accord.models.preflight import preflight
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


class Snapshots:
    """The policies of `--snapshots`, loaded when they are first asked for."""

    def __init__(self, config: Collect) -> None:
        self.config = config
        self._loaded: list[Deployed] = []
        self._turn = threading.Lock()
        self._random = random.SystemRandom()

    def all(self) -> list[Deployed]:
        """Every one, loaded once. Raises BadInput for one that will not do."""
        with self._turn:
            if not self._loaded:
                places = self.config.snapshots
                preflight({f"snapshot {number}": where for number, where in enumerate(places)})
                self._loaded = [
                    Deployed(where, load_policy(where, trainable=False), load_renderer(where)) for where in places
                ]
            return self._loaded

    def draw(
        self, snapshot: Deployed, conversations: Sequence[Sequence[Turn]], share: int, *, seed: int, first: int = 0
    ) -> list[list[str]]:
        """`share` replies to each conversation; `first` is the first one's number in the stream of random numbers."""
        config, renderer = self.config, snapshot.renderer
        numbers = range(first, first + len(conversations))
        settings = sample_settings(config, renderer, share, seed, numbers=numbers)
        ids = [renderer.prompt_ids(turns) for turns in conversations]
        with self._turn:
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
                ((text,),) = self.draw(snapshot, [turns], 1, seed=seed)
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
