"""Attention over a packing by FlexAttention, compiled: on GPUs, for what `engine.forward.varlen` does not take.

That is f32, heads of other sizes, scores with a cap (Gemma 2), and torch without `torch.nn.attention.varlen`. Before
its first use the kernel is compared with plain products, gradients included.
"""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from accord.engine.forward import plain
from accord.engine.forward.dtype import computed_in
from accord.engine.packing import Attention, Segment

if TYPE_CHECKING:  # it brings torch's compiler with it, which a CPU does without
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128  # queries, and keys, that the kernel takes or leaves together


def attend(
    attention: Attention, query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None = None, cap: float = 0.0
) -> Tensor:
    """Queries (Q, heads, d), keys and values (T, heads, d) of a flat row to what each query's segment lets it see.

    With `cap`, scores are cap·tanh(score / cap).
    """
    low = computed_in(query)
    q, k, v = (t.to(low).transpose(0, 1).unsqueeze(0) for t in (query, key, value))
    out = _kernel(query.device.type)(
        q,
        k,
        v,
        score_mod=_capped(cap) if cap else None,
        block_mask=mask_of(attention, len(key)),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out[0].transpose(0, 1)


def serves(query: Tensor) -> bool:
    """Whether the kernel computes attention of queries like these: on a GPU, rightly, and where `ACCORD_FLEX=1` asks.

    On an H100 it agrees with plain products; what compiling it costs where lengths change has not been measured.
    """
    asked = os.environ.get("ACCORD_FLEX") == "1"
    return asked and query.device.type == "cuda" and agrees(query.device, computed_in(query), query.shape[-1])


@functools.cache
def agrees(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether kernel and plain products give the same for heads of `size` of this type; tried once."""
    return plain.agrees(attend, device, dtype, size)


@functools.cache
def _kernel(device: str) -> Any:
    # uncompiled it holds every score at once; on a CPU, where tests alone come by, that does
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Any = flex_attention
    return kernel if device == "cpu" else torch.compile(kernel, dynamic=True)


@functools.cache
def _capped(cap: float) -> Callable[..., Tensor]:
    def score(value: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(value / cap)

    return score


@functools.lru_cache(maxsize=1)  # all layers of a forward pass but the last ask for the same
def mask_of(attention: Attention, tokens: int) -> "BlockMask":
    """Which of the row's tokens each query sees: blocks that any query of a block sees, inside them a test by place."""
    from torch.nn.attention.flex_attention import BlockMask

    device, queries = attention.at.device, len(attention.at)
    own, first, behind = spans(attention).to(device)
    at = attention.at

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        itself = (own[query] <= key) & (key <= at[query])
        return itself | ((first[query] <= key) & (key < behind[query]))

    seen = blocks_seen(attention, tokens)
    counts = torch.from_numpy(seen.sum(1, dtype=np.int32)).view(1, 1, -1).to(device)
    order = np.argsort(~seen, axis=1, kind="stable").astype(np.int32)
    indices = torch.from_numpy(order).view(1, 1, *order.shape).to(device)
    return BlockMask.from_kv_blocks(counts, indices, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(queries, tokens))


def ranges(segment: Segment) -> tuple[int, tuple[int, int]]:
    """Where the tokens begin that a segment's queries see up to themselves, and the range that they see besides."""
    own, _ = segment.keys[-1]
    others = list(segment.keys[:-1])
    while others and others[-1][1] == own:
        own = others.pop()[0]
    assert len(others) <= 1, segment
    return own, others[0] if others else (0, 0)


def spans(attention: Attention) -> Tensor:
    """(3, Q): where a query's own text begins, and the range of the prompt that it sees besides (0, 0: none)."""
    out = np.zeros((3, len(attention.at)), dtype=np.int64)
    for segment in attention.segments:
        own, (first, behind) = ranges(segment)
        out[:, segment.start : segment.stop] = np.array([[own], [first], [behind]])
    return torch.from_numpy(out)


def blocks_seen(attention: Attention, tokens: int) -> np.ndarray:
    """(blocks of queries, blocks of tokens) True where some query of the one may see some token of the other."""
    at = attention.at.cpu().numpy()
    seen = np.zeros((-(-len(at) // BLOCK), -(-tokens // BLOCK)), dtype=bool)
    for segment in attention.segments:
        own, (first, behind) = ranges(segment)
        for block in range(segment.start // BLOCK, (segment.stop - 1) // BLOCK + 1):
            last = at[min(segment.stop, (block + 1) * BLOCK) - 1]
            seen[block, own // BLOCK : last // BLOCK + 1] = True
            seen[block, first // BLOCK : -(-behind // BLOCK)] = True
    return seen
