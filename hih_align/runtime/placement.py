"""The choice of device and precision, by name: "cuda:0", "float32". PyTorch is imported only if it is necessary."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .precision import fastest_dtype

if TYPE_CHECKING:
    import torch

_DTYPES = ("float32", "bfloat16", "float16")


def choose_device(device: str | torch.device | None, backend: str = "torch") -> str:
    """The name of the device. None: CUDA if ``backend`` can use it and there is a GPU, else the CPU.

    Without PyTorch it is the CPU.

    Raises:
        ValueError: PyTorch does not know the device, or cannot use it.
    """
    if device is None and (backend not in ("torch", "auto") or find_spec("torch") is None):
        return "cpu"
    if device is not None and str(device) == "cpu":
        return "cpu"
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()  # fails on the meta device
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device is {device!r}, which this PyTorch cannot use: {str(error).splitlines()[0]}"
        ) from error
    return str(place)


def choose_dtype(dtype: str | torch.dtype | None, device: str, runtime: str) -> str | None:
    """The name of the dtype. None: that of the checkpoint or of the exported file.

    Raises:
        ValueError: a network cannot run in this dtype.
    """
    if dtype is None or (dtype == "auto" and runtime == "onnxruntime"):  # ONNX Runtime has only one
        return None
    if dtype == "auto":
        on_cpu = device.partition(":")[0] == "cpu"
        return fastest_dtype(device, ["bfloat16"] if on_cpu else ["float16"], runtime)
    name: Any = dtype if isinstance(dtype, str) else str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected 'auto', 'float32', 'bfloat16', 'float16' or such a torch.dtype")
    return str(name)
