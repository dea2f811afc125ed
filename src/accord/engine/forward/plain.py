"""What GPU kernels of attention over a packing are compared with before their first use."""

from collections.abc import Callable

import torch
from torch import Tensor

from accord.engine.packing import Attention, pack, reply_group

# queries (Q, heads, d), keys and values (T, heads, d) → (Q, heads, d)
Attend = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]


def agrees(attend: Attend, device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Whether `attend` and plain products give the same outputs and gradients, for heads of `size` of this type.

    Of the texts some are longer than a block of 128, and some have fewer queries than keys. A kernel that cannot be run
    here does not agree.
    """
    packing = pack([reply_group(range(140), range(5), range(7)), reply_group((), range(6))]).to(device)
    asked = packing.attention, packing.ending[0]
    return all(_agrees(attend, attention, len(packing.ids), device, dtype, size) for attention in asked)


def _agrees(
    attend: Attend, attention: Attention, tokens: int, device: torch.device, dtype: torch.dtype, size: int
) -> bool:
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        q, k, v = (
            torch.randn(count, heads, size, generator=generator).to(device, dtype).requires_grad_()
            for count, heads in ((len(attention.at), 4), (tokens, 2), (tokens, 2))
        )
        expected = masked(attention, q, k, v)
        try:
            found = attend(attention, q, k, v)
            grads = torch.autograd.grad(found.float().square().sum(), (q, k, v))
        except (ImportError, AttributeError, RuntimeError, TypeError):
            return False
        theirs = torch.autograd.grad(expected.square().sum(), (q, k, v))
    near = 5e-2 if dtype in (torch.bfloat16, torch.float16) else 1e-4
    pairs = [(found, expected), *zip(grads, theirs, strict=True)]
    return all(torch.allclose(a.float(), b.float(), rtol=near, atol=near) for a, b in pairs)


def masked(attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention to a flat row in f32 by one product under a mask of all pairs."""
    seen = torch.zeros(len(query), len(key), dtype=torch.bool, device=query.device)
    for segment in attention.segments:
        for start, stop in segment.keys[:-1]:
            seen[segment.start : segment.stop, start:stop] = True
        start, stop = segment.keys[-1]
        own = torch.ones(segment.stop - segment.start, stop - start, dtype=torch.bool, device=query.device)
        seen[segment.start : segment.stop, start:stop] = own.tril()
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    q, k, v = (t.float().transpose(0, 1) for t in (query, key, value))
    scores = (q @ k.transpose(1, 2) * query.shape[-1] ** -0.5).masked_fill(~seen, float("-inf"))
    return (scores.softmax(-1) @ v).transpose(0, 1)
