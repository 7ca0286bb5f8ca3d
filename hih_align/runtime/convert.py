"""Conversion of the inference module to the graph of another runtime, with a batch of any size."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..method.settings import plain_torch
from .inference import CONVERTING, InferenceNet, program
from .metadata import INPUT, OUTPUTS

if TYPE_CHECKING:
    import openvino
    from onnx import ModelProto

# PyTorch's exporter causes this warning by its own code
warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
# PyTorch's tracer warns that it treats shapes as constants, but here they are constants
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=r"hih_align\.")  # type: ignore[attr-defined]


def to_onnx(model: InferenceNet) -> ModelProto:
    """Convert for ONNX Runtime.

    Raises:
        ValueError: the weights are not finite.
    """
    with CONVERTING, plain_torch(), _quiet():
        exported = torch.onnx.export(
            program(model), input_names=[INPUT], output_names=list(OUTPUTS), dynamo=True, optimize=True, verbose=False
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned None")
    return exported.model_proto


def to_openvino(model: InferenceNet) -> openvino.Model:
    """Convert for OpenVINO.

    Raises:
        ValueError: the weights are not finite.
    """
    import openvino

    model.check()
    side = model.network.input_size
    with CONVERTING, plain_torch(), torch.inference_mode():
        example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        graph = openvino.convert_model(model, example_input=example, input=[-1, side, side, 3])
    graph.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(graph.outputs, OUTPUTS, strict=True):
        output.get_tensor().set_names({name})
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's log about packages that it could use, for this thread only."""
    logger, thread = logging.getLogger("torch.onnx._internal.exporter._registration"), threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)
