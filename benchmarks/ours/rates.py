"""What this machine does at best, measured in the process that is judged by it."""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.clock import now


def rates(device: str) -> dict[str, float]:
    """FLOP/s of a large bf16 matrix product, bytes per second of a large copy (read and written)."""
    side = 8192 if device != "cpu" else 256
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(side * side * 4, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    product = best_seconds(lambda: a @ b, device)
    copy = best_seconds(lambda: target.copy_(source), device)
    return {"gemm": 2 * side**3 / product, "copy": 2 * source.numel() * 2 / copy}


def best_seconds(work: Callable[[], object], device: str, *, repeats: int = 10) -> float:
    """Seconds of one call, the mean of the best of three runs of `repeats`."""
    found = []
    for _ in range(3):
        started = now(device)
        for _ in range(repeats):
            work()
        found.append((now(device) - started) / repeats)
    return max(min(found), 1e-9)


def cache_bytes(config: Any) -> int:
    """Bytes of keys and values of one token, in bf16."""
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    return 2 * 2 * config.num_hidden_layers * heads * size
