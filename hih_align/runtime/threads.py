"""The number of threads that a runtime may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def thread_count() -> int:
    """The number of threads.

    It is that of ``torch.set_num_threads`` if PyTorch is imported, else the environment variable ``OMP_NUM_THREADS``,
    else the number of cores that the process may use.
    """
    if (torch := sys.modules.get("torch")) is not None:
        return int(torch.get_num_threads())
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of several the first is the outer level
    if told.isdigit() and int(told) > 0:
        return int(told)
    return usable_cores()


def usable_cores() -> int:
    """The number of cores that the process may use. On Linux two threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        path = Path(_SIBLINGS.format(cpu))
        cores.add(path.read_text().strip() if path.is_file() else str(cpu))
    return len(cores)
