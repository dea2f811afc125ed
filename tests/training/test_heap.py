"""Freed tensors go back to the system, also where smaller ones that stay lie between them."""

import platform
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


def test_another_library_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not heap.give_back()
