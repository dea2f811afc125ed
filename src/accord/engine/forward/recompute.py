"""Activations computed twice instead of kept: a layer keeps what enters it, and runs again in the backward pass.

Chen et al. 2016 (arXiv:1604.06174). Memory per token falls from what all layers keep to their inputs and what one layer
keeps, for one forward pass more. The second run is the first one, so no result changes: rates of dropout are 0
(`models.loading`), the precision is restored, and a packed row attends by its own packing again.
"""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from accord.engine.forward.attention import current_packing, packed


def recompute_layers(modules: Iterable[nn.Module], on: bool) -> int:
    """Whether the layers of these modules compute their activations again from now on; returns how many layers do.

    0 where `on` is False, and where a model's layers are of a make that cannot.
    """
    layers = [m for module in modules for m in module.modules() if isinstance(m, GradientCheckpointingLayer)]
    for layer in layers:
        layer.gradient_checkpointing = on
        # transformers calls it while the module is in training mode, `engine.forward.trunk` by `again`
        layer._gradient_checkpointing_func = again
    return len(layers) if on else 0


def again(function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, of which the graph keeps the inputs alone."""
    packing = current_packing()

    def contexts() -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
        # the backward pass runs outside of `packed`
        return contextlib.nullcontext(), contextlib.nullcontext() if packing is None else packed(packing)

    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
