"""OpenVINO, on the CPU: the fastest on Intel's and AMD's. It runs a file or a graph, and needs no PyTorch."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from ..hub.config import CheckpointError
from .backend import Found, Grouped, Runtime
from .metadata import DTYPES, KEY, parse
from .threads import thread_count

_HINTS = {"float32": "f32", "bfloat16": "bf16"}


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
                graph = ov.Core().read_model(model)
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
                self._compiled[faces] = ov.Core().compile_model(self._graph, "CPU", self._options)
            return self._compiled[faces]
