"""What roles take in memory: one set of base weights for all that have the same ones, and fewer bits.

A LoRA policy, its reference, its critics, preference and cost models are adapters and heads on one base. Each role is a
module of its own, so nothing has to be switched before a forward pass or the backward pass of another; but a frozen
parameter that equals one of another role is that one, and is in memory once.
"""

import copy
import functools
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from accord.engine.decode.decoder import decodes
from accord.engine.forward.adapters import WHOLE, bare, is_adapted
from accord.engine.forward.causal import packs
from accord.engine.forward.four_bits import Known, in_four_bits
from accord.errors import BadInput
from accord.models.loading import load_again

Key = tuple[tuple[int, ...], torch.dtype, torch.device, float]


class BaseWeights:
    """The frozen parameters of a run, each kept once."""

    def __init__(self) -> None:
        self._known: dict[Key, list[nn.Parameter]] = defaultdict(list)

    def share(self, model: nn.Module) -> nn.Module:
        """The model itself: frozen parameters that are known in another role become those, others become known.

        What is trained is never shared, nor is what is equal within the model, which a sharded one may not have twice.
        Nothing may write into a frozen parameter afterwards.
        """
        chosen: dict[int, nn.Parameter] = {}
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and not parameter.requires_grad:
                    if id(parameter) not in chosen:
                        chosen[id(parameter)] = self._same(parameter, {id(p) for p in chosen.values()})
                    module._parameters[name] = chosen[id(parameter)]
        return model

    def _same(self, parameter: nn.Parameter, taken: set[int]) -> nn.Parameter:
        alike = self._known[_key(parameter)]
        for known in alike:
            if id(known) not in taken and (known is parameter or torch.equal(known, parameter)):
                return known
        alike.append(parameter)
        return parameter


def copy_trained(model: nn.Module) -> nn.Module:
    """A copy of what is trained in a model, on the frozen weights of the model itself."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})


def lower_frozen(models: Sequence[nn.Module], precision: str, base_bits: int = 0) -> None:
    """Hold the matrices in the layers that nothing trains in bf16 where products are computed in it.

    Half the memory and no cast at each product, and the same products bit for bit. Norms, embeddings and heads stay
    f32. The base of a trained policy's adapters is among them: they are merged into its f32 weights, which are read
    again for that (`engine.forward.adapters.merged`). With `base_bits` 4 matrices under adapters are in 4 bits
    whatever is computed in; one that roles share is in memory once.
    """
    low = torch.bfloat16 if precision == "bf16" else torch.float32
    if low == torch.float32 and not base_bits:
        return
    for model in models:  # all of them before any: two may share what is lowered
        packs(model)  # how it computes packed rows, and draws, is found out once, by comparing f32 numbers
        if is_adapted(model):
            decodes(model, longest=0)
    if base_bits:
        hold_in_four_bits(models, low)
    for model in models:
        inner = bare(model)
        for module in inner.base_model.modules():
            if type(module) is nn.Linear and not module.weight.requires_grad:
                module.weight.data = module.weight.data.to(low)
        if is_adapted(model):
            setattr(inner, WHOLE, functools.partial(load_again, inner.name_or_path))


def hold_in_four_bits(models: Sequence[nn.Module], low: torch.dtype) -> None:
    """The matrices under adapters, each once; before any role that shares one has it rounded to `low`."""
    known: Known = {}
    for model in models:
        for layer in list(bare(model).base_model.modules()):
            if type(getattr(layer, "base_layer", None)) is nn.Linear:
                layer.base_layer = in_four_bits(layer.base_layer, low, known)
    if not known:
        raise BadInput("--base_bits 4: no layer under adapters is a plain linear one in this model; leave it out")


@torch.no_grad()
def _key(parameter: Tensor) -> Key:
    """What equal parameters have in common, told from a few numbers."""
    few = float(parameter.flatten()[:64].float().sum())
    return tuple(parameter.shape), parameter.dtype, parameter.device, few
