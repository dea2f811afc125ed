"""One step off policy: replies to the next iteration's prompts, which servers draw while this process learns.

They are drawn by the weights from before the update that runs meanwhile, as Noukhovitch et al. 2024 do
(arXiv:2410.18252), and learned from with truncated ratios (`objectives/policy_gradient.py:truncated_ratios`).
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from threading import Thread
from typing import Any

from accord.records import Rollout
from accord.training.distributed import World

Drawing = Callable[[], list[Rollout]]


class InFlight:
    """This rank's replies of one iteration: being drawn, drawn, or brought back by a checkpoint; or none."""

    def __init__(self) -> None:
        self._step = -1
        self._drawn: Future[list[Rollout]] | None = None

    def start(self, step: int, draw: Drawing) -> None:
        """Have the replies of iteration `step` drawn beside what this thread does."""
        drawn: Future[list[Rollout]] = Future()

        def work() -> None:
            try:
                drawn.set_result(draw())
            except BaseException as error:  # raised where the replies are asked for
                drawn.set_exception(error)

        self._step, self._drawn = step, drawn
        Thread(target=work, daemon=True).start()  # a run that ends does not wait for it

    def take(self, step: int) -> list[Rollout] | None:
        """The replies of iteration `step`, waited for; None where none were begun. Raises what drawing raised."""
        drawn, self._drawn = self._drawn, None
        return drawn.result() if drawn is not None and self._step == step else None

    def saved(self, world: World, samples: int) -> dict[str, Any]:
        """What a checkpoint keeps, waited for: all ranks' replies, prompt by prompt. Every rank calls it."""
        if self._drawn is None:
            return {}
        own = self._drawn.result()
        prompts = world.interleave([own[i : i + samples] for i in range(0, len(own), samples)])
        return {"in_flight": {"step": self._step, "replies": [[asdict(r) for r in replies] for replies in prompts]}}

    def restore(self, state: Mapping[str, Any], world: World) -> None:
        """This rank's share of what a checkpoint kept."""
        if (kept := state.get("in_flight")) is None:
            return
        self._step, self._drawn = kept["step"], Future()
        self._drawn.set_result([_rollout(row) for replies in world.share(kept["replies"]) for row in replies])


def _rollout(row: Mapping[str, Any]) -> Rollout:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    return Rollout(**fields)
