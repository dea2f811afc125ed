"""What the machine decides where a knob leaves it open: precision and micro-batch; once, written to config.yaml."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from accord.config import Training
from accord.engine.packing import Group
from accord.run import RunFolder
from accord.training.distributed import World
from accord.training.memory import MOST, free_bytes, measure, plan_micro_tokens
from accord.training.precision import choose_precision

C = TypeVar("C", bound=Training)


def settle(
    config: C,
    run: RunFolder,
    world: World,
    modules: Callable[[], Sequence[nn.Module]],
    groups: Sequence[Group],
    compute: Callable[[Sequence[Group], str], Tensor],
) -> C:
    """The config with what it leaves to the machine decided, the same on every rank.

    `compute(groups, precision)` is what a step keeps for backward: every one of `modules` that is trained on the same
    tokens.
    Raises BadInput where the longest group alone does not fit into memory.
    """
    precision = run.decide("precision", lambda: choose_precision(world))

    def plan() -> int:
        longest = max(groups, key=lambda group: group.tokens)
        need = measure(lambda some: compute(some, precision), longest, longest.tokens, modules())
        most = MOST.get(world.device.type, MOST["cpu"])
        found = plan_micro_tokens(need, free_bytes(world.device), longest=longest.tokens, most=most)
        return int(min(world.gather(found)))

    micro_tokens = run.decide("micro_tokens", plan)
    return config.model_copy(update={"precision": precision, "micro_tokens": micro_tokens, "threads": run.threads})
