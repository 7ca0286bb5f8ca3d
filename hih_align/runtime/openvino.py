"""OpenVINO, on the CPU: the fastest on Intel's and AMD's."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray

from ..hub.config import CheckpointError
from ..method.settings import plain_torch
from .inference import CONVERTING, InferenceNet, Runtime
from .metadata import DTYPES, INPUT, KEY, OUTPUTS, parse

if TYPE_CHECKING:
    from openvino import Model

# shapes that torch's tracer takes for constants are constants here
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"hih_align\.")  # type: ignore[attr-defined]

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}


class OpenVINOBackend:
    """See `Backend`. It compiles for one face: faces go through a CPU one by one, as they do in `pytorch`.

    Args:
        model: what to run: a network, or a file that `export.export` wrote.
        dtype: float32 or bfloat16; None is the file's, or float32. Of an int8 file it is the precision of the
            operations that are not quantized.

    Attributes:
        description: what a file says of itself; None of a network.

    Raises:
        ValueError: another dtype.
        CheckpointError: a file that OpenVINO cannot read, or that `export.export` has not written.
    """

    name: Runtime = "openvino"

    def __init__(self, model: InferenceNet | Path, dtype: torch.dtype | None) -> None:
        self.description: Mapping[str, Any] | None = None
        own = torch.float32
        if isinstance(model, Path):
            try:
                graph = ov.Core().read_model(model)
            except RuntimeError as error:
                raise CheckpointError(f"{model} cannot be read: {error}") from error
            self.description = parse(str(graph.get_rt_info(KEY).value) if graph.has_rt_info(KEY) else "", model)
            own = DTYPES[self.description["precision"]]
        else:
            graph = convert(model)
        compute = dtype or (torch.float32 if own in (torch.int8, torch.float16) else own)
        if compute not in _HINTS:
            raise ValueError(f"dtype is {compute}, expected float32 or bfloat16 with backend 'openvino'")
        self.dtype = torch.int8 if own is torch.int8 else compute
        crop = [side.get_length() for side in list(graph.inputs[0].get_partial_shape())[1:]]
        graph.reshape([1, *crop])
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINTS[compute],
            # without it: every core, whatever the program was told
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compiled = ov.Core().compile_model(graph, "CPU", options)
        self._local = threading.local()  # a request serves one thread

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Backend`."""
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        points, scores = [], []
        for crop in crops:
            found = request.infer({0: crop[None]}, share_inputs=True)  # copies what comes out, not what goes in
            points.append(found[0])
            scores.append(found[1])
        return np.concatenate(points), np.concatenate(scores)


def convert(model: InferenceNet) -> Model:
    """The network as OpenVINO's graph, with a batch of any size."""
    model.check()
    side = model.network.input_size
    with CONVERTING, plain_torch(), torch.inference_mode():
        example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        graph = ov.convert_model(model, example_input=example, input=[-1, side, side, 3])
    graph.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(graph.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    return graph
