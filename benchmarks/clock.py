"""The one clock and the one scale of memory of both sides."""

import itertools
import resource
import time
from collections.abc import Sequence

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
    """Largest memory so far: resident, or allocated on the GPU."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20
