"""ONNX Runtime, on the CPU."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from ..hub.config import CheckpointError
from ..method.settings import plain_torch
from .inference import CONVERTING, InferenceNet, Runtime, program
from .metadata import DTYPES, INPUT, KEY, OUTPUTS, parse

if TYPE_CHECKING:
    from onnx import ModelProto


# torch's exporter to torch
warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)


class OnnxRuntimeBackend:
    """See `Backend`. Faces go through a CPU one by one, as they do in `pytorch`.

    Args:
        model: what to run: a network, or a file that `export.export` wrote.
        dtype: None, or float32 of a network; a file has its own.

    Attributes:
        description: what a file says of itself; None of a network.

    Raises:
        ValueError: another dtype.
        CheckpointError: a file that ONNX Runtime cannot read, or that `export.export` has not written.
    """

    name: Runtime = "onnxruntime"

    def __init__(self, model: InferenceNet | Path, dtype: torch.dtype | None) -> None:
        options = ort.SessionOptions()
        # without it: every core, whatever the program was told
        options.intra_op_num_threads = torch.get_num_threads()
        source = model if isinstance(model, Path) else convert(model).SerializeToString()
        try:
            self._session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base
            raise CheckpointError(f"{model} cannot be read: {error}") from error
        self.description: Mapping[str, Any] | None = None
        self.dtype = torch.float32
        if isinstance(model, Path):
            self.description = parse(self._session.get_modelmeta().custom_metadata_map.get(KEY, ""), model)
            self.dtype = DTYPES[self.description["precision"]]
        if dtype not in (None, self.dtype):
            raise ValueError(f"dtype is {dtype}, expected {self.dtype} with backend 'onnxruntime'")

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Backend`."""
        found = [self._session.run(OUTPUTS, {INPUT: crop[None]}) for crop in crops]
        points, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return points, scores


def convert(model: InferenceNet) -> ModelProto:
    """The network as an ONNX graph, with a batch of any size."""
    with CONVERTING, plain_torch(), _quiet():
        exported = torch.onnx.export(
            program(model), input_names=[INPUT], output_names=list(OUTPUTS), dynamo=True, optimize=True, verbose=False
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export gave nothing")
    return exported.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter logs about packages that it could use; of this thread alone."""
    logger, thread = logging.getLogger("torch.onnx._internal.exporter._registration"), threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)
