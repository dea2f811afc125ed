"""Weights, gradients and optimizer states divided over the ranks (`--shard`), by torch's FSDP2.

Every rank holds a part of each matrix. A layer's weights are gathered while it is computed, forward and backward, and
its gradient is added up over the ranks and divided again: per rank, memory for what is trained falls with the number of
ranks, and the numbers are those of whole replicas but for the order of sums. A step is a collective: every rank makes
as many passes, whether it has work or not.

What needs a whole model (drawing replies, saving) has `whole`: a twin of the module, with weights for as long as that.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from accord.engine.forward.causal import packs
from accord.engine.forward.within import GATHER
from accord.training.distributed import World, most

Item = TypeVar("Item")
TWIN = "_accord_twin"
PART = "_accord_part"  # on a frozen parameter: what this rank holds of it, for other models that have it too


def shard(module: nn.Module, world: World) -> None:
    """Divide every Hugging Face model in the module over the ranks, in place; nothing where there is one rank.

    A frozen parameter that several models have is divided once: all of them gather it from the same part. What stands
    beside the models (value heads, a few learned numbers) stays on every rank.
    """
    if not world.sharded or is_sharded(module):
        return
    models = list(_outermost(module))
    for model in models:
        packs(model)  # the way of a forward pass is tried on whole weights
    twin = _twin(module)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for model in models:
        frozen = {n: p for n, p in model.named_parameters(remove_duplicate=False) if not p.requires_grad}
        for part in [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)] + [model]:
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
            _sum_gradients(part)
            setattr(part, GATHER, _call)
            register_fsdp_forward_method(part, GATHER)
        _share_parts(model, frozen)
    vars(module)[TWIN] = twin  # not a part of the module: it is no second copy to train, save or move


def is_sharded(module: nn.Module) -> bool:
    return any(isinstance(part, FSDPModule) for part in module.modules())


@contextmanager
def whole(module: nn.Module) -> Iterator[nn.Module]:
    """The module with all of its weights on every rank, to read; itself where it is not sharded. Every rank calls it.

    Changes to the weights inside are lost.
    """
    twin: nn.Module | None = vars(module).get(TWIN)
    if twin is None:
        yield module
        return
    empty = dict(twin.named_parameters())
    _put(twin, {name: _full(source) for name, source in module.named_parameters()})
    try:
        yield twin
    finally:
        _put(twin, empty)


def gathered(module: nn.Module) -> nn.Module:
    """A whole module in the place of a sharded one that is trained no more; itself where it is not sharded."""
    twin: nn.Module | None = vars(module).get(TWIN)
    if twin is None:
        return module
    _put(twin, {name: _full(source) for name, source in module.named_parameters()})
    twin.train(module.training)
    return twin


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor; changing it changes the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor, like: Tensor) -> Tensor:
    """What this rank holds of a tensor that every rank has whole, where `like` is sharded; else all of it."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None).to_local()


def in_step(sharded: bool, parts: Sequence[list[Item]], filler: Item) -> Iterator[tuple[list[Item], bool]]:
    """This rank's parts of some work, each with whether it counts; where weights are sharded, as many on every rank.

    What does not count is `filler`, passed through the model for the others' sake.
    """
    passes = most(len(parts)) if sharded else len(parts)  # asked for before the first: a pass is every rank's
    for part in parts:
        yield part, True
    for _ in range(passes - len(parts)):
        yield [filler], False


def _share_parts(model: nn.Module, frozen: dict[str, nn.Parameter]) -> None:
    """Let a model that was just sharded hold the parts of other models for those `frozen` parameters that were theirs.

    FSDP takes up parameters that are assigned; nothing writes into them.
    """
    parts = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in frozen.items():
        parts[name] = vars(parameter).setdefault(PART, parts[name])
    model.load_state_dict({name: parts[name] for name in frozen}, strict=False, assign=True)


def _call(compute: Any, *inputs: Any) -> Any:
    return compute(*inputs)


def _outermost(module: nn.Module) -> Iterator[nn.Module]:
    """Hugging Face models in a module that stand in no other."""
    if isinstance(module, PreTrainedModel):
        yield module
        return
    for child in module.children():
        yield from _outermost(child)


def _sum_gradients(part: Any) -> None:
    """Losses are divided by the counts of all ranks already: gradients add up, and are no mean over ranks."""
    part.set_gradient_divide_factor(1.0)
    part.set_force_sum_reduction_for_comms(True)


def _twin(module: nn.Module) -> nn.Module:
    """A copy of the module without weights."""
    empty: dict[int, Any] = {
        id(p): nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for p in module.parameters()
    }
    return copy.deepcopy(module, empty)


def _full(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(whole_tensor(parameter).detach(), requires_grad=parameter.requires_grad)


def _put(module: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    """Set parameters by their names, tied ones wherever they stand."""
    new = {id(old): parameters[name] for name, old in module.named_parameters()}
    for part in module.modules():
        for name, old in part._parameters.items():
            if old is not None:
                part._parameters[name] = new[id(old)]
