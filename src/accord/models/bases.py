"""One set of base weights for every role that has the same ones.

A LoRA policy, its reference, its critics, preference and cost models are adapters and heads on one base. Each role is a
module of its own, so nothing has to be switched before a forward pass or the backward pass of another; but a frozen
parameter that equals one of another role is that one, and is in memory once.
"""

from collections import defaultdict

import torch
from torch import Tensor, nn

Key = tuple[tuple[int, ...], torch.dtype, torch.device, float]


class BaseWeights:
    """The frozen parameters of a run, each kept once."""

    def __init__(self) -> None:
        self._known: dict[Key, list[nn.Parameter]] = defaultdict(list)

    def share(self, model: nn.Module) -> nn.Module:
        """The model itself: frozen parameters that are known in another role become those, others become known.

        What is trained is never shared. Nothing may write into a frozen parameter afterwards.
        """
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None and not parameter.requires_grad:
                    module._parameters[name] = self._same(parameter)
        return model

    def _same(self, parameter: nn.Parameter) -> nn.Parameter:
        alike = self._known[_key(parameter)]
        for known in alike:
            if known is parameter or torch.equal(known, parameter):
                return known
        alike.append(parameter)
        return parameter


@torch.no_grad()
def _key(parameter: Tensor) -> Key:
    """What equal parameters have in common, told from a few numbers."""
    few = float(parameter.flatten()[:64].float().sum())
    return tuple(parameter.shape), parameter.dtype, parameter.device, few
