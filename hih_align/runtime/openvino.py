"""OpenVINO on the CPU, the fastest runtime on Intel and AMD CPUs. It runs a file or a graph, without PyTorch."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..hub.config import CheckpointError
from . import fork
from .backend import Found, Grouped, Runtime
from .metadata import DTYPES, KEY, parse
from .precision import computed_dtype
from .threads import thread_count

#: A batch of at least so many parts is large. After so many faces in large batches, the cores compute different faces
#: (`OpenVINOBackend.run_parts`), for which the graph is compiled once more. For the faces of one photograph this would
#: take longer than it saves, and a live video would stop for a moment.
LARGE, MANY = 8, 100

_HINTS = {"float32": "f32", "bfloat16": "bf16"}

_held: dict[str, ov.Core] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # the parent's Core has no threads in the child


def core() -> ov.Core:
    """The only OpenVINO Core of the process. It is never destroyed.

    A Core loads the CPU plugin. The plugin sets an alternate signal stack for the thread that loads it
    (``SigAltStackSetup`` in OpenVINO's intel_cpu/src/sigstack_manager.cpp). When the plugin is destroyed, it unmaps
    this stack. In two cases the thread keeps the unmapped stack: if another thread releases the last reference, or if a
    plugin that was loaded later is destroyed later. Python's signal handlers run on the alternate stack. Then the next
    Ctrl-C or SIGTERM would end the process with a segmentation fault. Also, in a forked child the destruction of a Core
    waits forever for threads that do not exist.
    """
    if "core" not in _held:
        new = ov.Core()
        if (
            _held.setdefault("core", new) is new
        ):  # another thread may have been faster; the Core that loses has no plugin
            fork.immortal(new)
    return _held["core"]


class OpenVINOBackend(Grouped):
    """See `Grouped`. The graph is compiled for one face at the start, and for a group when it is first needed.

    All cores compute one face, or one group, together. In long work with large batches, each core computes another one,
    so that no core waits for the others after each layer.

    Args:
        model: a graph (`convert.to_openvino`), or a file that `export.export` wrote.
        dtype: "float32" or "bfloat16". None: bfloat16 for a bf16 file, else float32. For an int8 file it is the
            precision of the operations that are not quantized. On a CPU on which OpenVINO has no bfloat16, it is
            float32.
        group: see `Grouped`.

    Raises:
        ValueError: the dtype is not supported.
        CheckpointError: OpenVINO cannot read the file, or `export.export` did not write it.
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
        self.wanted = dtype or ("float32" if own in ("int8", "float16") else own)
        self.check_dtype(self.wanted)
        compute = computed_dtype(self.wanted, self.name)
        self.dtype = "int8" if own == "int8" else compute
        self._graph = graph
        self._threads = thread_count()
        self._options = {
            "INFERENCE_PRECISION_HINT": _HINTS[compute],
            # by default OpenVINO uses all cores and ignores the limits of the program
            "INFERENCE_NUM_THREADS": self._threads,
        }
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._done = 0  # number of faces in large batches
        self._compiled: dict[tuple[int, int], ov.CompiledModel] = {}
        self._local = threading.local()  # each thread needs its own request
        self._compile(1)

    @staticmethod
    def check_dtype(dtype: str | None) -> None:
        """Raise a ValueError if a model cannot run in a dtype."""
        if dtype not in (None, *_HINTS):
            raise ValueError(f"dtype is {dtype!r}, expected 'float32' or 'bfloat16' with backend 'openvino'")

    def run(self, crops: NDArray[np.uint8]) -> Found:
        """See `Grouped`."""
        requests = vars(self._local).setdefault("requests", {})
        request = requests.get(len(crops))
        if request is None:
            request = requests[len(crops)] = self._compile(len(crops)).create_infer_request()
        found = request.infer({0: crops}, share_inputs=True)  # copies the outputs, but not the input
        return found[0], found[1]

    def run_parts(self, parts: Sequence[NDArray[np.uint8]]) -> list[Found]:
        """See `Grouped`. In long work with large batches each core computes another part."""
        if len(parts) < LARGE:
            return super().run_parts(parts)
        self._done += sum(map(len, parts))
        groups = sum(len(part) == self.group for part in parts)  # they come first
        shared = groups - groups % self._threads  # as many as keep all cores busy to the end
        # a forked child has no threads but its own, so it computes one part after the other
        if self._threads == 1 or not shared or self._done < MANY or self._process != os.getpid():
            return super().run_parts(parts)
        found: list[Any] = [None] * shared
        queue = vars(self._local).get("queue")
        if queue is None:
            queue = self._local.queue = ov.AsyncInferQueue(self._compile(self.group, self._threads), self._threads)
            queue.set_callback(_keep)
            fork.spare(queue)
        try:
            for index, part in enumerate(parts[:shared]):
                queue.start_async({0: part}, (found, index), share_inputs=True)
        finally:  # the parts must stay until they are computed
            queue.wait_all()
        return found + super().run_parts(parts[shared:])

    def _compile(self, faces: int, streams: int = 1) -> ov.CompiledModel:
        """The graph for a number of faces, of which ``streams`` are computed at the same time. It is compiled once."""
        with self._lock:
            if (faces, streams) not in self._compiled:
                crop = [side.get_length() for side in list(self._graph.inputs[0].get_partial_shape())[1:]]
                self._graph.reshape([faces, *crop])
                how = {"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}
                compiled = core().compile_model(self._graph, "CPU", self._options | how)
                fork.spare(compiled)
                self._compiled[faces, streams] = compiled
            return self._compiled[faces, streams]


def _keep(request: ov.InferRequest, place: tuple[list[Any], int]) -> None:
    """Copy the result of a request to its place in a list. The next run of the request overwrites it."""
    found, index = place
    found[index] = request.get_output_tensor(0).data.copy(), request.get_output_tensor(1).data.copy()
