"""Where weights are read: a module's own, or, of one that is sharded over ranks, gathered for as long as it takes.

The hooks of `torch.distributed.fsdp.fully_shard` gather a module's weights before its forward and free them after it,
and do both again around its gradient. Here layers and heads are computed without a call of a forward, so whatever reads
weights does it inside of `within`. Of a module that is whole it is a plain call.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Out = TypeVar("Out")
GATHER = "_accord_gather"  # what `training.shards` leaves on a module that it shards


def within(module: nn.Module, compute: Callable[..., Out], *inputs: Any) -> Out:
    """`compute(*inputs)` while the weights that the module holds itself are there.

    The gradients of what stands in `inputs` tell when those of the weights are whole: a layer is given its input here,
    and what reads weights that are read elsewhere too (tied ones) is not. No call may stand inside another of the same
    module, and every rank makes the same calls in the same order.
    """
    gather: Callable[..., Out] | None = vars(module).get(GATHER)
    return compute(*inputs) if gather is None else gather(compute, *inputs)
