"""Where the network runs: a module per runtime, and all of them take crops and give points and scores.

`inference` is what they run; `pytorch` (on a CUDA GPU `cuda`), `onnxruntime` and `openvino` run it. The last two are
extras, imported when they are asked for.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ..hub.checkpoints import exported_for
from ..hub.config import Config
from ..method.network import HIHNet
from . import fork
from .cuda import CudaBackend
from .inference import InferenceNet, Runtime
from .metadata import FILES, check
from .pytorch import TorchBackend

if TYPE_CHECKING:
    from .onnxruntime import OnnxRuntimeBackend
    from .openvino import OpenVINOBackend

__all__ = ["AUTO", "Backend", "CudaBackend", "Runtime", "TorchBackend", "choose", "make"]

#: What ``backend="auto"`` looks for on a CPU, the first that is installed; elsewhere it is "torch". Never timed.
AUTO: tuple[Runtime, ...] = ("openvino", "onnxruntime", "torch")

#: What each needs, to convert a network as well as to run it; the name of its extra.
_NEEDS: dict[str, tuple[str, ...]] = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnx", "onnxscript")}
_EXTRA = {"openvino": "openvino", "onnxruntime": "onnx"}


class Backend(Protocol):
    """A network that is ready to run, with its decoder; thread-safe.

    Attributes:
        name: of the runtime.
        dtype: in which the network runs.
    """

    name: Runtime
    dtype: torch.dtype

    def __call__(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Points and scores of faces.

        Args:
            crops: (B, S, S, 3) uint8 RGB, B at least 1, S the network's ``input_size``.

        Returns:
            points (B, K, 2), (x, y) in crop pixels, and scores (B, K).
        """
        ...


def choose(backend: str, device: torch.device, exported: Path | None = None) -> Runtime:
    """The runtime's name; what "auto" stands for, of a folder ``exported`` first those for which it holds a file.

    Raises:
        ValueError: an unknown one, or a device that it does not run on.
        ImportError: it is not installed; the message names the extra.
    """
    if backend == "auto":
        possible: list[Runtime] = [name for name in AUTO if _installed(name)] if device.type == "cpu" else ["torch"]
        held = [] if exported is None else exported_for(exported)
        return next((name for name in possible if name in held), possible[0])
    known = get_args(Runtime)
    if backend not in known:
        raise ValueError(f"backend is {backend!r}, expected one of {[*known, 'auto']}")
    name: Runtime = backend  # type: ignore[assignment]  # it was looked up
    if name == "openvino" and sys.flags.optimize > 1:
        raise ImportError(
            "backend is 'openvino', whose converter needs docstrings, which python -OO removes: run python -O, or "
            "take another backend"
        )
    if not _installed(name):
        missing = [module for module in _NEEDS[name] if find_spec(module) is None]
        raise ImportError(
            f"backend is {name!r}, which needs {', '.join(missing)}: pip install 'hih-align[{_EXTRA[name]}]'"
        )
    if name != "torch" and device.type != "cpu":
        raise ValueError(f"device is '{device}', but backend {name!r} runs on the CPU: take backend 'torch'")
    return name


def _installed(name: str) -> bool:
    if name == "openvino" and sys.flags.optimize > 1:
        return False
    return all(find_spec(module) is not None for module in _NEEDS.get(name, ()))


def make(
    name: Runtime,
    network: HIHNet | None,
    config: Config,
    device: torch.device,
    dtype: torch.dtype | None,
    folder: Path | None = None,
) -> Backend:
    """A private copy of the network, ready to run.

    Args:
        name: see `choose`.
        network: stays as it is; None runs an exported file whose weights are not here.
        config: whose decoder and calibration are used.
        device: where it runs.
        dtype: in which precision; None is float32, or that of the exported file.
        folder: of the checkpoint, in which `export.export` may have left a file for this runtime.

    Raises:
        ValueError: a precision that the runtime does not have; an exported file of other weights or another decoder;
            no network, and no exported file for this runtime.
    """
    fork.prepare()
    path = None if folder is None or name == "torch" or not (folder / FILES[name]).is_file() else folder / FILES[name]
    if network is None and path is None:
        raise ValueError(f"network is None, and {folder} holds no exported file for backend {name!r}")
    if name == "torch":
        assert network is not None
        kind = CudaBackend if device.type == "cuda" else TorchBackend
        return kind(network, config, device, dtype or torch.float32)
    model: Path | InferenceNet
    if path is not None:
        model = path
    else:
        assert network is not None
        model = InferenceNet(network, config)
    backend: OpenVINOBackend | OnnxRuntimeBackend
    if name == "openvino":
        from .openvino import OpenVINOBackend

        backend = OpenVINOBackend(model, dtype)
    else:
        from .onnxruntime import OnnxRuntimeBackend

        backend = OnnxRuntimeBackend(model, dtype)
    if path is not None and backend.description is not None:
        check(backend.description, path, network, config)
    return backend
