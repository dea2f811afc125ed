"""Freed tensors go back to the system, also where smaller ones that stay lie between them."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from accord.training import heap

MIB = 2**20


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has a heap of another make")
def test_what_is_freed_between_what_is_kept_goes_back_to_the_system():
    torch.ones(31 * MIB, dtype=torch.uint8)  # freed at once: from here on glibc would put 16 MiB onto its heap
    assert heap.give_back()
    before, freed, kept = resident(), [], []
    for _ in range(12):
        freed.append(torch.ones(16 * MIB, dtype=torch.uint8))
        kept.append(torch.ones(MIB // 8, dtype=torch.uint8))
    assert resident() - before > 150 * MIB
    freed.clear()
    assert resident() - before < 40 * MIB
    assert all(part.all() for part in kept)


# the last blocks lie at the heap's end: no gap is left to put them in
STEPS = """
import ctypes
from pathlib import Path
from accord.training import heap

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

assert heap.give_back()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes, library.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
blocks = [library.malloc(2**20) for _ in range(256)]
for block in blocks:
    ctypes.memset(block, 1, 2**20)
before = resident()
for block in reversed(blocks[-32:]):
    library.free(block)
print(before - resident())
"""

BETWEEN = """
for block in blocks[:-32:2]:
    library.free(block)
before = resident()
assert heap.trim()
print(before - resident())
"""


def printed(program):
    """By a process of its own: glibc moves its thresholds once a large block was freed."""
    return int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has a heap of another make")
def test_the_pages_of_a_step_stay_for_the_next_one():
    assert printed(STEPS) < 2 * MIB


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has a heap of another make")
def test_what_lies_free_within_the_heap_goes_back_when_it_is_trimmed():
    assert printed(STEPS.partition("before =")[0] + BETWEEN) > 100 * MIB


def test_another_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not heap.give_back() and not heap.trim()


@pytest.mark.parametrize(("stage", "changes", "times"), [("limited", {"steps": 2}, 4), ("dpo", {}, 3)])
def test_a_run_gives_back_between_its_parts(commands, tmp_path, monkeypatch, stage, changes, times):
    """Once the machine is settled, before replies are drawn, before the snapshot."""
    trims = []
    monkeypatch.setattr(heap, "trim", lambda: trims.append(1))
    assert commands.run(stage, tmp_path / "run", **changes) == 0
    assert len(trims) == times
