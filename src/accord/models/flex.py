"""Attention over a packed plan by FlexAttention, compiled: on GPUs, for what `models.varlen` does not take.

That is f32, heads of other sizes, scores with a cap (Gemma 2), and torch without `torch.nn.attention.varlen`. Before
its first use the kernel is compared with plain products, gradients included.
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from accord.data.batches import Plan
from accord.models import kernels

if TYPE_CHECKING:  # it brings torch's compiler with it, which a CPU does without
    from torch.nn.attention.flex_attention import BlockMask

BLOCK = 128  # queries, and keys, that the kernel takes or leaves together


def attend(
    plan: Plan, query: Tensor, key: Tensor, value: Tensor, *, scaling: float | None = None, cap: float = 0.0
) -> Tensor:
    """Queries, keys and values (T, heads, d) of the plan's flat row to what each query's segment lets it see.

    With `cap`, scores are cap·tanh(score / cap).
    """
    low = kernels.computed_in(query)
    q, k, v = (t.to(low).transpose(0, 1).unsqueeze(0) for t in (query, key, value))
    out = _kernel(query.device.type)(
        q,
        k,
        v,
        score_mod=_capped(cap) if cap else None,
        block_mask=mask_of(plan),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out[0].transpose(0, 1)


def serves(query: Tensor) -> bool:
    """Whether the kernel computes attention of queries like these: on a GPU, and rightly."""
    return query.device.type == "cuda" and agrees(query.device, kernels.computed_in(query), query.shape[-1])


@functools.cache
def agrees(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether kernel and plain products give the same for heads of `size` of this type; tried once."""
    return kernels.agrees(attend, device, dtype, size)


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


@functools.lru_cache(maxsize=1)  # all layers of a forward pass ask for the same plan's
def mask_of(plan: Plan) -> "BlockMask":
    """Which keys each query sees: blocks that any query of a block sees, and inside them a test by position."""
    from torch.nn.attention.flex_attention import BlockMask

    device, length = plan.ids.device, len(plan.ids)
    own, first, behind = spans(plan).to(device)

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        itself = (own[query] <= key) & (key <= query)
        return itself | ((first[query] <= key) & (key < behind[query]))

    seen = blocks_seen(plan)
    counts = torch.from_numpy(seen.sum(1, dtype=np.int32)).view(1, 1, -1).to(device)
    order = np.argsort(~seen, axis=1, kind="stable").astype(np.int32)
    indices = torch.from_numpy(order).view(1, 1, *order.shape).to(device)
    return BlockMask.from_kv_blocks(counts, indices, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(length, length))


def spans(plan: Plan) -> Tensor:
    """(3, T): where a position's segment begins, and the range of the prompt that it sees besides (0, 0: none)."""
    out = np.zeros((3, len(plan.ids)), dtype=np.int64)
    for segment in plan.segments:
        *prompt, (own, _) = segment.keys
        first, behind = prompt[0] if prompt else (0, 0)
        out[:, segment.start : segment.stop] = np.array([[own], [first], [behind]])
    return torch.from_numpy(out)


def blocks_seen(plan: Plan) -> np.ndarray:
    """(blocks, blocks) True where some query of the one block may see some key of the other."""
    count = -(-len(plan.ids) // BLOCK)
    seen = np.zeros((count, count), dtype=bool)
    for segment in plan.segments:
        queries = slice(segment.start // BLOCK, (segment.stop - 1) // BLOCK + 1)
        for start, stop in segment.keys:
            seen[queries, start // BLOCK : (stop - 1) // BLOCK + 1] = True
    return np.tril(seen)  # no query sees a key behind it
