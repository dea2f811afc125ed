"""The scores of an iteration's replies, asked for while others are still being drawn."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from accord.config import Ppo
from accord.data.batches import Group, reply_group
from accord.models.scorers import AT_ONCE
from accord.records import Prompt, Rollout
from accord.stages.ppo_actors import Actors


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
        self._asked: list[tuple[str, list[int], Future[Tensor]]] = []
        self._drawn: dict[int, list[Rollout]] = {}
        self._unasked: list[int] = []
        self._scores = {name: torch.zeros(len(prompts), config.samples) for name in actors.scorers}

    def __enter__(self) -> "Scoring":
        return self

    def __exit__(self, *_: Any) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def add(self, place: int, rollouts: list[Rollout]) -> None:
        """All rollouts to the prompt at `place`. Raises what a scorer has raised by now."""
        self._drawn[place] = rollouts
        self._unasked.append(place)
        for _, _, asked in self._asked:
            if asked.done():
                asked.result()
        if len(self._unasked) * self._config.samples >= AT_ONCE:
            self._ask()

    def result(self) -> dict[str, Tensor]:
        """Scores (B,) by scorer, prompt by prompt; raises what a scorer raised."""
        self._ask()
        if not self._actors.engine.remote:
            self._score_here(range(len(self._prompts)))
        for name, places, asked in self._asked:
            self._scores[name][places] = asked.result()
        return {name: scores.flatten() for name, scores in self._scores.items()}

    def _ask(self) -> None:
        places, self._unasked = self._unasked, []
        if not places:
            return
        inputs = self._inputs(places)
        for name, pool in self._pools.items():
            self._asked.append((name, places, pool.submit(self._score, name, *inputs)))
        if self._actors.engine.remote:
            self._score_here(places)

    def _score_here(self, places: Sequence[int]) -> None:
        here = [name for name in self._actors.scorers if name not in self._pools]
        inputs = self._inputs(places)
        for name in here:
            self._scores[name][list(places)] = self._score(name, *inputs)

    def _score(self, name: str, prompts: list[Prompt], texts: list[str], groups: list[Group]) -> Tensor:
        scorer = self._actors.scorers[name]
        with torch.autocast(self._device.type, enabled=False):  # the sampler's precision is not the scorers'
            scores = scorer.scores(prompts, texts, groups, micro_tokens=self._config.micro_tokens)
        return scores.view(len(groups), self._config.samples)

    def _inputs(self, places: Iterable[int]) -> tuple[list[Prompt], list[str], list[Group]]:
        text = self._actors.renderer.text
        drawn = [(self._prompts[place], self._drawn[place]) for place in places]
        prompts = [prompt for prompt, rollouts in drawn for _ in rollouts]
        texts = [text(rollout.ids) for _, rollouts in drawn for rollout in rollouts]
        return prompts, texts, [rollout_group(rollouts) for _, rollouts in drawn]


def rollout_group(rollouts: Sequence[Rollout]) -> Group:
    """A prompt and its replies, which share its tokens."""
    return reply_group(rollouts[0].prompt_ids, *(rollout.ids for rollout in rollouts))
