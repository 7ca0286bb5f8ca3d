"""Conversion of the inference module to the graph of another runtime, with a batch of any size."""

from __future__ import annotations

import io
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

#: Version of the ONNX operators. All runtimes of `hih_align` know it.
OPSET = 18

# PyTorch's exporters cause these warnings by their own code
warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
warnings.filterwarnings("ignore", r"You are using the legacy TorchScript-based ONNX export", DeprecationWarning)
# PyTorch's tracer warns that it treats shapes as constants, but here they are constants
for module in (r"hih_align\.", r"torch\.utils\._device"):
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning, module=module)


def to_onnx(model: InferenceNet) -> bytes:
    """Convert for ONNX Runtime, and for files.

    PyTorch's older exporter, by tracing, takes a tenth of the time of the newer one. Both give the same points and are
    equally fast. The newer one is used where PyTorch no longer has the older one.

    Returns:
        The ONNX model, serialized.

    Raises:
        ValueError: the weights are not finite.
    """
    model.check()
    try:
        return _traced(model)
    except (AttributeError, ImportError, NotImplementedError, TypeError):  # as a removed function or option raises
        return _exported(model)


def to_openvino(model: InferenceNet) -> openvino.Model:
    """Convert for OpenVINO, by way of ONNX, which is faster than OpenVINO's own converter of PyTorch modules.

    Raises:
        ValueError: the weights are not finite.
    """
    from .openvino import core

    return core().read_model(to_onnx(model))


def _traced(model: InferenceNet) -> bytes:
    """Convert by tracing."""
    side = model.network.input_size
    file = io.BytesIO()
    with CONVERTING, plain_torch(), _single(), torch.inference_mode():
        example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
        torch.onnx.export(
            model,
            (example,),
            file,  # the older exporter takes files
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()


def _exported(model: InferenceNet) -> bytes:
    """Convert by `torch.export`."""
    with CONVERTING, plain_torch(), _single(), _quiet():
        exported = torch.onnx.export(
            program(model), input_names=[INPUT], output_names=list(OUTPUTS), dynamo=True, optimize=True, verbose=False
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned None")
    return bytes(exported.model_proto.SerializeToString())


@contextmanager
def _single() -> Iterator[None]:
    """Let constants of the graph be float32, whatever the caller's default dtype is: no runtime takes double ones.

    The default dtype is a setting of the process. So it is changed only if it is float64, and only while a network is
    converted.
    """
    before = torch.get_default_dtype()
    if before != torch.float64:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


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
