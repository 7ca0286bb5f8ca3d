"""OpenVINO, on the CPU: the fastest on Intel's and AMD's. It runs a file or a graph, and needs no PyTorch."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..hub.config import CheckpointError
from . import fork
from .backend import Found, Grouped, Runtime
from .metadata import DTYPES, KEY, parse
from .threads import thread_count

_HINTS = {"float32": "f32", "bfloat16": "bf16"}

_held: dict[str, ov.Core] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # the parent's Core has no threads in the child


def core() -> ov.Core:
    """OpenVINO's entry point: one for the process, and never destroyed.

    A Core loads the CPU plugin, and the plugin gives the thread that loads it an alternate signal stack
    (``SigAltStackSetup`` in OpenVINO's intel_cpu/src/sigstack_manager.cpp). When the plugin goes, it unmaps that stack.
    But the stack stays the thread's if another thread drops the last reference, or if a plugin that was loaded later
    goes after it. Python's signal handlers run on the alternate stack: the next Ctrl-C or SIGTERM would end the process
    by a segmentation fault. And in a forked child a Core that goes waits without end for threads.
    """
    if "core" not in _held:
        new = ov.Core()
        if _held.setdefault("core", new) is new:  # one that loses this race has loaded no plugin
            fork.immortal(new)
    return _held["core"]


class OpenVINOBackend(Grouped):
    """See `Grouped`. The graph is compiled for one face at once, and for a group when one first comes.

    Args:
        model: what to run: a graph (`convert.to_openvino`), or a file that `export.export` wrote.
        dtype: "float32" or "bfloat16"; None is the file's, or float32. Of an int8 file it is the precision of the
            operations that are not quantized.
        group: see `Grouped`.

    Raises:
        ValueError: another dtype.
        CheckpointError: a file that OpenVINO cannot read, or that `export.export` has not written.
    """

    name: Runtime = "openvino"

    def __init__(self, model: ov.Model | Path, dtype: str | None, group: int) -> None:
        self.group = group
        own = "float32"
        if isinstance(model, Path):
            try:
                graph = core().read_model(model)
            except RuntimeError as error:
                raise CheckpointError(f"{model} cannot be read: {error}") from error
            self.description = parse(str(graph.get_rt_info(KEY).value) if graph.has_rt_info(KEY) else "", model)
            own = DTYPES[self.description["precision"]]
        else:
            graph = model
        compute = dtype or ("float32" if own in ("int8", "float16") else own)
        if compute not in _HINTS:
            raise ValueError(f"dtype is {compute!r}, expected 'float32' or 'bfloat16' with backend 'openvino'")
        self.dtype = "int8" if own == "int8" else compute
        self._graph = graph
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[compute],
            # without it: every core, whatever the program was told
            "INFERENCE_NUM_THREADS": thread_count(),
        }
        self._lock = threading.Lock()
        self._compiled: dict[int, ov.CompiledModel] = {}
        self._local = threading.local()  # a request serves one thread
        self._compile(1)

    def run(self, crops: NDArray[np.uint8]) -> Found:
        """See `Grouped`."""
        requests = vars(self._local).setdefault("requests", {})
        request = requests.get(len(crops))
        if request is None:
            request = requests[len(crops)] = self._compile(len(crops)).create_infer_request()
        found = request.infer({0: crops}, share_inputs=True)  # copies what comes out, not what goes in
        return found[0], found[1]

    def _compile(self, faces: int) -> ov.CompiledModel:
        """The graph for so many faces; compiled once."""
        with self._lock:
            if faces not in self._compiled:
                crop = [side.get_length() for side in list(self._graph.inputs[0].get_partial_shape())[1:]]
                self._graph.reshape([faces, *crop])
                self._compiled[faces] = core().compile_model(self._graph, "CPU", self._options)
            return self._compiled[faces]
