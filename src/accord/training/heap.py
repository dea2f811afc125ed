"""Where the C library keeps the tensors of a CPU, so that what backward does not keep is given back."""

import ctypes
import platform

M_MMAP_THRESHOLD = -3  # of mallopt(3)
OWN_PAGES = 2**23  # bytes from which a tensor has pages of its own; smaller ones would be made anew too often


def give_back() -> bool:
    """Have glibc give every freed tensor of 8 MiB and more back to the system at once; False under another library.

    Once a large block was freed, glibc puts blocks of up to 32 MiB onto its heap. There a layer's freed activations lie
    between the few that are kept for backward, and stay: a text of 4,096 tokens whose layers are computed again
    took more than twice the memory.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, OWN_PAGES))
