"""How the process keeps memory."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep what it frees, for the next layer, instead of giving it back to the kernel page by page.

    For programs, not for libraries: the effect is permanent and process-wide. Without it, asking the kernel for memory
    takes a large part of a training step, or of a batch of faces, on the CPU. Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 << 20)):
            mallopt(option, value)


def raise_trim_threshold() -> None:
    """Have glibc keep up to some 60 MB of what it frees: the activations of one face.

    What a library may do: by default glibc's thresholds follow the largest block that was freed so far, up to 32 MB,
    and this frees such a block. Does nothing elsewhere.
    """
    bytearray(31 << 20)
