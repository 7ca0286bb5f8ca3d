"""ONNX Runtime on the CPU. It runs a file or a graph, and does not need PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..hub.config import CheckpointError
from . import fork
from .backend import Found, Grouped, Runtime
from .metadata import DTYPES, INPUT, KEY, OUTPUTS, parse
from .threads import thread_count


class OnnxRuntimeBackend(Grouped):
    """See `Grouped`.

    Args:
        model: a graph (`convert.to_onnx`), or a file that `export.export` wrote.
        dtype: None, or the dtype of the model: "float32" for a graph, and that of its description for a file.
        group: see `Grouped`.

    Raises:
        ValueError: the model has another dtype.
        CheckpointError: ONNX Runtime cannot read the file, or `export.export` did not write it.
    """

    name: Runtime = "onnxruntime"

    def __init__(self, model: bytes | Path, dtype: str | None, group: int) -> None:
        self.group = group
        options = ort.SessionOptions()
        # by default ONNX Runtime uses all cores and ignores the limits of the program
        options.intra_op_num_threads = thread_count()
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the errors of ONNX Runtime have no common base class
            what = model if isinstance(model, Path) else "the graph"
            raise CheckpointError(f"{what} cannot be read: {error}") from error
        fork.spare(self._session)
        self.dtype = "float32"
        if isinstance(model, Path):
            self.description = parse(self._session.get_modelmeta().custom_metadata_map.get(KEY, ""), model)
            self.dtype = DTYPES[self.description["precision"]]
        self.check_dtype(dtype, self.dtype)

    @staticmethod
    def check_dtype(dtype: str | None, own: str = "float32") -> None:
        """Raise a ValueError if a model of the dtype ``own`` cannot run in a dtype."""
        if dtype not in (None, own):
            raise ValueError(f"dtype is {dtype!r}, expected {own!r} with backend 'onnxruntime'")

    def run(self, crops: NDArray[np.uint8]) -> Found:
        """See `Grouped`."""
        points, scores = self._session.run(OUTPUTS, {INPUT: crops})
        return points, scores
