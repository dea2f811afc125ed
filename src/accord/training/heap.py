"""Where the C library keeps the tensors of a CPU, so that what is freed is given back."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
OWN_PAGES = 2**23  # bytes from which a tensor has pages of its own; smaller ones would be made anew too often
SPARE = 2**26  # bytes that stay free at the heap's end: as many as glibc itself would settle at


def give_back() -> bool:
    """Have glibc give every freed tensor of 8 MiB and more back to the system at once; False under another library.

    Once a large block was freed, glibc puts blocks of up to 32 MiB onto its heap. There a layer's freed activations lie
    between the few that are kept for backward, and stay: a text of 4,096 tokens whose layers are computed again
    took more than twice the memory. A threshold that is set is no longer moved, nor is that of what is kept free at the
    heap's end: at its first value, 128 KiB, every step would ask the system for its pages again.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, OWN_PAGES)) and bool(mallopt(M_TRIM_THRESHOLD, SPARE))


def trim() -> bool:
    """Have glibc give the free pages within its heap back, between two parts of a run; False under another library.

    What a micro-batch kept for backward leaves there is large, and of no use to a part whose tensors have other sizes:
    what drawing replies takes, or merging adapters at a run's end, would come on top of it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    ctypes.CDLL(None).malloc_trim(0)
    return True
