"""The one clock and the one scale of memory of both sides."""

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import torch


def now(device: str) -> float:
    """CPU-seconds of this process, which a busy machine does not change; on a GPU, wall time once its work is done."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def steps(marks: Sequence[float], warm: int) -> list[float]:
    """Seconds between marks, without the first `warm`."""
    return [b - a for a, b in itertools.pairwise(marks)][warm:]


def peak_mib(device: str) -> float:
    """Largest memory so far: resident, or allocated on the GPU.

    Not `ru_maxrss`, which a process has from the one that started it.
    """
    if device == "cpu":
        said = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in said if line.startswith("VmHWM:"))
    return torch.cuda.max_memory_allocated() / 2**20
