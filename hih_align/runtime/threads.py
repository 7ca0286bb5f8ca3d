"""How many threads a runtime may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def thread_count() -> int:
    """As many as the program was told: by ``torch.set_num_threads`` where PyTorch is imported, else by the environment
    variable ``OMP_NUM_THREADS``, else one for each core that the process may use."""
    if (torch := sys.modules.get("torch")) is not None:
        return int(torch.get_num_threads())
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # of several the first is the outer level
    if told.isdigit() and int(told) > 0:
        return int(told)
    return usable_cores()


def usable_cores() -> int:
    """Cores that the process may use: two threads of a core count once, where Linux tells."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cores = set()
    for cpu in os.sched_getaffinity(0):
        path = Path(_SIBLINGS.format(cpu))
        cores.add(path.read_text().strip() if path.is_file() else str(cpu))
    return len(cores)
