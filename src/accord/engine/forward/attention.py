"""Attention over a packing, through transformers' attention interface.

Models are loaded with `attn_implementation="accord"`. Inside `packed(packing)` a flat row of tokens attends by the
packing's segments; outside it the same model computes ordinary (padded, cached) attention, so one module serves
training and decoding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from accord.engine.forward import flex, varlen
from accord.engine.forward.dtype import computed_in
from accord.engine.packing import Attention, Packing
from accord.errors import BadInput

IMPLEMENTATION = "accord"
# Arguments beside queries, keys and values that are no part of what attention computes here. A window is: the mask has
# it, and packed rows longer than it are not computed by packing.
_BESIDE = frozenset(
    {
        "dropout",
        "sliding_window",
        "position_ids",
        "cache_position",
        "use_cache",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "num_items_in_batch",
    }
)
_active: list[Packing] = []


class UnknownArgument(BadInput):
    """A model's attention takes something that is not computed here; to leave it out would give other numbers."""


@contextmanager
def own_attention(model: Any) -> Iterator[None]:
    """Let a model of transformers attend by its own eager code, as if it had been loaded apart with it."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def packed(packing: Packing) -> Iterator[None]:
    """Let models that were loaded with this implementation attend by the packing's segments."""
    _active.append(packing)
    try:
        yield
    finally:
        _active.pop()


def current_packing() -> Packing | None:
    """The packing that models attend by at this moment, if any."""
    return _active[-1] if _active else None


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Queries, keys and values (1, heads, T, d) of one flat row to (1, T, heads, d)."""
    cap = float(kwargs.get("softcap") or 0.0)
    _refuse_unknown(module, kwargs)
    if _active:
        flat = (t[0].transpose(0, 1) for t in (query, key, value))
        return attend_packed(_active[-1].attention, *flat, scaling=scaling, cap=cap).unsqueeze(0), None
    if cap:
        out = explicit_attention(query, key, value, attention_mask, scaling=scaling, cap=cap)
        return out.transpose(1, 2).contiguous(), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def _refuse_unknown(module: torch.nn.Module, given: dict[str, Any]) -> None:
    known = {*_BESIDE, "softcap"} | ({"is_causal"} if given.get("is_causal") else set())
    unknown = sorted(name for name, value in given.items() if value is not None and name not in known)
    if unknown:
        raise UnknownArgument(f"{type(module).__name__} attends with {', '.join(unknown)}, which is not known here")


def attend_packed(
    attention: Attention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None = None,
    cap: float = 0.0,
) -> Tensor:
    """Queries (Q, heads, d), keys and values (T, heads, d) of a flat row to what each query's segment lets it see."""
    if not cap and varlen.serves(query):
        return varlen.attend(attention, query, key, value, scaling=scaling)
    if flex.serves(query):
        return flex.attend(attention, query, key, value, scaling=scaling, cap=cap)
    table = attention.table
    grouped = query.shape[1] != key.shape[1]
    # one gather for all blocks: a gather by block has a gradient of the whole row's size in each
    queries = query.index_select(0, table.queries).split([block.queries for block in table.blocks])
    keys, values = (t.index_select(0, table.keys).split([block.keys for block in table.blocks]) for t in (key, value))
    parts = []
    for block, *flat in zip(table.blocks, queries, keys, values, strict=True):
        q, k, v = (t.unflatten(0, (block.segments, -1)).transpose(1, 2) for t in flat)
        if cap or _explicit_is_faster(k):
            out = explicit_attention(q, k, v, block.mask, scaling=scaling, cap=cap)
        else:
            out = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=block.bias if q.dtype == torch.float32 and computed_in(q) == q.dtype else block.mask,
                is_causal=block.mask is None,
                scale=scaling,
                enable_gqa=grouped,
            )
        parts.append(out.transpose(1, 2).flatten(0, 1))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined.index_select(0, table.place)


def _explicit_is_faster(key: Tensor) -> bool:
    """On a CPU the fused kernel's bf16 backward costs several products of short segments."""
    if key.device.type != "cpu" or key.shape[2] > 512:
        return False
    return computed_in(key) == torch.bfloat16


def explicit_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float | None = None,
    cap: float = 0.0,
) -> Tensor:
    """softmax(q kᵀ · scaling) v of (B, heads, T, d), product by product; `mask` True is seen, None is causal.

    With `cap`, scores are cap·tanh(score / cap), which the fused kernels cannot do (Gemma 2).
    """
    key, value = (repeat_kv(t, query.shape[1] // t.shape[1]) for t in (key, value))
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if mask is None:
        queries, keys = scores.shape[-2:]
        mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    out: Tensor = scores.float().softmax(-1).to(query.dtype) @ value
    return out


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """A packed row needs no mask: its blocks carry their own."""
    return None if _active else sdpa_mask(*args, **kwargs)


AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)
