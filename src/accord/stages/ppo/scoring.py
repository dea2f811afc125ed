"""The scores of an iteration's replies, asked for while others are still being drawn."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from accord.config import Ppo
from accord.engine.packing import Group, reply_group
from accord.models.scorers import AT_ONCE
from accord.records import Prompt, Rollout
from accord.stages.ppo.actors import Actors


class Scoring:
    """Scores of `--samples` rollouts to each prompt, by every scorer.

    A remote scorer is asked about some replies as soon as they have ended, in a thread of its own, while this process
    draws others and evaluates. A scorer of this process would take its cores from an engine that draws here, and waits
    for the last reply; beside a remote engine it too scores as they come. It is called in this thread, which a Python
    function may need (signals, event loops).
    """

    def __init__(self, config: Ppo, actors: Actors, prompts: Sequence[Prompt], device: torch.device) -> None:
        self._config, self._actors, self._prompts, self._device = config, actors, prompts, device
        self._pools = {n: ThreadPoolExecutor(1, f"scorer-{n}") for n, s in actors.scorers.items() if s.remote}
        here = [name for name in actors.scorers if name not in self._pools]
        # remote ones first: they answer while this process scores
        self._early, self._late = ([*self._pools, *here], []) if actors.engine.remote else (list(self._pools), here)
        self._asked: list[tuple[str, list[int], Future[Tensor]]] = []
        self._replies: dict[int, tuple[list[str], Group]] = {}
        self._unasked: list[int] = []
        self._scores = {name: torch.zeros(len(prompts), config.samples) for name in actors.scorers}

    def __enter__(self) -> "Scoring":
        return self

    def __exit__(self, *_: Any) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def add(self, place: int, rollouts: list[Rollout]) -> None:
        """All rollouts to the prompt at `place`. Raises what a scorer has raised by now."""
        texts = [self._actors.renderer.text(rollout.ids) for rollout in rollouts]
        self._replies[place] = texts, reply_group(rollouts[0].prompt_ids, *(rollout.ids for rollout in rollouts))
        self._unasked.append(place)
        for _, _, asked in self._asked:
            if asked.done():
                asked.result()
        if len(self._unasked) * self._config.samples >= AT_ONCE:
            self._ask(self._early, self._unasked)
            self._unasked = []

    @property
    def groups(self) -> list[Group]:
        """Every prompt with its replies, which share its tokens."""
        return [self._replies[place][1] for place in range(len(self._prompts))]

    def result(self) -> dict[str, Tensor]:
        """Scores (B,) by scorer, prompt by prompt; raises what a scorer raised."""
        self._ask(self._early, self._unasked)
        self._ask(self._late, list(range(len(self._prompts))))
        for name, places, asked in self._asked:
            self._scores[name][places] = asked.result()
        return {name: scores.flatten() for name, scores in self._scores.items()}

    def _ask(self, names: Sequence[str], places: list[int]) -> None:
        if not names or not places:
            return
        prompts = [self._prompts[place] for place in places for _ in range(self._config.samples)]
        texts = [text for place in places for text in self._replies[place][0]]
        groups = [self._replies[place][1] for place in places]
        for name in names:
            if pool := self._pools.get(name):
                self._asked.append((name, places, pool.submit(self._score, name, prompts, texts, groups)))
            else:
                self._scores[name][places] = self._score(name, prompts, texts, groups)

    def _score(self, name: str, prompts: list[Prompt], texts: list[str], groups: list[Group]) -> Tensor:
        scorer = self._actors.scorers[name]
        with torch.autocast(self._device.type, enabled=False):  # the sampler's precision is not the scorers'
            scores = scorer.scores(prompts, texts, groups, micro_tokens=self._config.micro_tokens)
        return scores.view(len(groups), self._config.samples)
