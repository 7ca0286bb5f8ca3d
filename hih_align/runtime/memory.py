"""Settings of the process's memory allocator (glibc)."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next layer, instead of returning it to the kernel page by page.

    This is for programs and not for libraries, because the effect is permanent and process-wide. Without it, requests
    for memory take a large part of a training step, or of a batch of faces, on the CPU. Without glibc the function does
    nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 << 20)):
            mallopt(option, value)


@cache  # the effect lasts
def raise_trim_threshold() -> None:
    """Let glibc keep up to about 60 MB of freed memory, which is enough for the activations of one face.

    A library may do this: glibc's thresholds follow the largest block that was freed so far, up to 32 MB, and this
    function frees such a block. Without glibc it has no effect.
    """
    bytearray(31 << 20)
