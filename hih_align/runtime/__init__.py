"""Runtimes: one module per runtime. Each takes crops and gives points and scores.

`inference` is the module that all of them run. `pytorch` (on a CUDA GPU `cuda`), `onnxruntime` and `openvino` run it.
A runtime is imported when it is asked for. The last two are extras; they run an exported file without PyTorch.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..hub.checkpoints import exported_for
from ..hub.config import CheckpointError, Config
from . import fork
from .backend import Backend, Photograph, Runtime, faces_at_once
from .metadata import FILES, check

if TYPE_CHECKING:
    from ..method.network import HIHNet
    from .onnxruntime import OnnxRuntimeBackend
    from .openvino import OpenVINOBackend

__all__ = ["AUTO", "Backend", "Photograph", "Runtime", "choose", "make"]

#: The order of ``backend="auto"`` on a CPU: the first that is installed is used. On other devices it is "torch".
AUTO: tuple[Runtime, ...] = ("openvino", "onnxruntime", "torch")

#: What installs the package of each runtime.
_INSTALL = {"openvino": "'hih-align[openvino]'", "onnxruntime": "'hih-align[onnx]'", "torch": "torch"}

#: The package that converts a network to another runtime. An exported file does not need it.
_CONVERTER = "onnx"


def choose(backend: str, device: str, exported: Path | None = None, *, converts: bool = True) -> Runtime:
    """The name of the runtime. "auto" prefers a runtime whose file lies in the folder ``exported``.

    ``converts``: a network without such a file is converted, which needs a package more. False: this is not known yet.

    Raises:
        ValueError: the runtime is unknown, or does not run on the device.
        ImportError: the runtime is not installed; the message names the extra.
    """
    held = [] if exported is None else exported_for(exported)
    if backend == "auto":
        possible = [n for n in AUTO if not _missing(n, converts and n not in held)] if device == "cpu" else []
        name: Runtime = next((name for name in possible if name in held), (*possible, "torch")[0])
    elif backend in (known := get_args(Runtime)):
        name = backend  # type: ignore[assignment]  # it was looked up
    else:
        raise ValueError(f"backend is {backend!r}, expected one of {[*known, 'auto']}")
    if missing := _missing(name, converts and name not in held):
        other = (
            f", or pass backend={held[0]!r}, whose file {str(exported)!r} holds" if held and name not in held else ""
        )
        needs = f"{', '.join(missing)}: pip install {_INSTALL[name]}"
        raise ImportError(f"backend is {backend!r}, which needs {needs}{other}")
    if name != "torch" and device != "cpu":
        raise ValueError(f"device is '{device}', but backend {name!r} runs only on the CPU: use backend 'torch'")
    return name


def _missing(name: Runtime, converts: bool) -> list[str]:
    """The packages that a runtime needs and that are not installed. ``converts``: there is no exported file to run."""
    needed = [name, _CONVERTER] if converts and name != "torch" else [name]
    return [module for module in needed if find_spec(module) is None]


def make(
    name: Runtime,
    network: HIHNet | None,
    config: Config,
    device: str,
    dtype: str | None,
    folder: Path | None = None,
) -> Backend:
    """Make a private copy of the network that is ready to run.

    Args:
        name: see `choose`.
        network: the network; it is not changed. None: an exported file is run, and PyTorch is not imported.
        config: the config, with decoder and calibration.
        device: the device of the copy.
        dtype: the precision; None: float32, or that of the exported file.
        folder: the folder of the checkpoint, which may hold an exported file for this runtime.

    Raises:
        ValueError: the runtime does not have the precision; the exported file has other weights or another decoder, or
            its results are not finite; or there is neither a network nor an exported file for this runtime.
    """
    fork.prepare()
    path = None if folder is None or name == "torch" or not (folder / FILES[name]).is_file() else folder / FILES[name]
    if path is not None:
        backend = _loaded(name, path, config, dtype)
        if backend.description is not None:
            check(backend.description, path, network, config)
        _check_finite(backend, path, config)
        return backend
    if network is None:
        raise ValueError(f"network is None, and {folder} holds no exported file for backend {name!r}")
    return fork.run(_of_network, name, network, config, device, dtype)


def _check_finite(backend: Backend, path: Path, config: Config) -> None:
    """Run a black crop. Only the result shows whether the weights in an exported file are finite."""
    points, scores = backend(np.zeros((1, config.input_size, config.input_size, 3), np.uint8))
    if not (np.isfinite(points).all() and np.isfinite(scores).all()):
        raise CheckpointError(f"{path} returns NaN or infinity: its weights are not finite. Export the network again")


def _of_network(name: Runtime, network: HIHNet, config: Config, device: str, dtype: str | None) -> Backend:
    import torch

    if name == "torch":
        from .cuda import CudaBackend
        from .pytorch import TorchBackend

        place = torch.device(device)
        kind = CudaBackend if place.type == "cuda" else TorchBackend
        return kind(network, config, place, getattr(torch, dtype or "float32"))
    from .convert import to_onnx, to_openvino
    from .inference import InferenceNet

    convert: Any = to_openvino if name == "openvino" else to_onnx
    _kind(name).check_dtype(dtype)  # before the conversion, which takes seconds
    return _loaded(name, convert(InferenceNet(network, config)), config, dtype)


def _loaded(name: Runtime, model: Any, config: Config, dtype: str | None) -> Backend:
    """A backend other than PyTorch, for an exported file or a graph."""
    return _kind(name)(model, dtype, faces_at_once(config.size))


def _kind(name: Runtime) -> type[OpenVINOBackend] | type[OnnxRuntimeBackend]:
    if name == "openvino":
        from .openvino import OpenVINOBackend

        return OpenVINOBackend
    from .onnxruntime import OnnxRuntimeBackend

    return OnnxRuntimeBackend
