"""Attention over a packing by a kernel that takes texts of various lengths: `torch.nn.attention.varlen`, on GPUs.

The kernel is FlashAttention as torch ships it, in bf16 and f16 alone. Its arguments have changed from version to
version, so they are looked up, and before its first use it is compared with plain products, gradients included, on
texts whose queries are fewer than their keys.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from accord.engine.forward import plain
from accord.engine.forward.dtype import computed_in
from accord.engine.packing import Attention

Kernel = Callable[..., Tensor]
LOW = (torch.bfloat16, torch.float16)


def attend(attention: Attention, query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None = None) -> Tensor:
    """Queries (Q, heads, d), keys and values (T, heads, d) of a flat row to what each query's segment lets it see."""
    kernel, low = _kernel(), computed_in(query)
    calls, place = attention.calls
    query, key, value = (t.to(low) for t in (query, key, value))
    parts = [
        kernel(
            query[call.queries],
            key[call.keys],
            value[call.keys],
            call.query_starts,
            call.key_starts,
            call.longest_query,
            call.longest_key,
            scaling,
        )
        for call in calls
    ]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[place]


def serves(query: Tensor) -> bool:
    """Whether the kernel computes attention of queries like these: on a GPU, in bf16 or f16, and rightly."""
    fits = query.shape[-1] % 8 == 0 and query.shape[-1] <= 256
    return query.device.type == "cuda" and fits and computed_in(query) in LOW and agrees(query.device)


@functools.cache
def _kernel() -> Kernel:
    from torch.nn.attention.varlen import varlen_attn

    return adapted(varlen_attn)


def adapted(kernel: Callable[..., Any]) -> Kernel:
    """(query, key, value, query starts, key starts, longest query, longest key, scale) → output, causal.

    Raises TypeError where this version's arguments are not known.
    """
    known = inspect.signature(kernel).parameters
    fixed: dict[str, Any] = {}
    if "window_size" in known:
        fixed["window_size"] = (-1, 0)
    elif "is_causal" in known:
        fixed["is_causal"] = True
    else:
        raise TypeError("varlen_attn has neither window_size nor is_causal")
    groups_itself = "enable_gqa" in known

    def call(query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> Tensor:
        *places, scaling = rest
        options = dict(fixed)
        if query.shape[1] != key.shape[1]:
            if groups_itself:
                options["enable_gqa"] = True
            else:
                key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], dim=1) for t in (key, value))
        if scaling is not None:
            if "scale" in known:
                options["scale"] = scaling
            else:
                query = query * (scaling * query.shape[-1] ** 0.5)
        out: Tensor = kernel(query, key, value, *places, **options)
        return out

    return call


@functools.cache
def agrees(device: torch.device) -> bool:
    """Whether kernel and plain products give the same outputs and gradients on this device; tried once."""
    return plain.agrees(attend, device, torch.bfloat16, 32)
