"""Where a network runs and in which precision."""

from __future__ import annotations

import torch

from .precision import fastest_dtype


def choose_device(device: str | torch.device | None, backend: str = "torch") -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() and backend in ("torch", "auto") else "cpu")
    try:
        place = torch.device(device)
        torch.zeros(1, device=place).item()  # which the meta device cannot
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"device is {device!r}, which this PyTorch cannot use: {str(error).splitlines()[0]}"
        ) from error
    return place


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device, runtime: str) -> torch.dtype | None:
    """None: what the checkpoint, or the exported file, has."""
    if dtype is None or (dtype == "auto" and runtime == "onnxruntime"):  # which has but one
        return None
    if dtype == "auto":
        preferred = [torch.bfloat16] if runtime == "openvino" or device.type == "cpu" else [torch.float16]
        return fastest_dtype(device, preferred)
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is {dtype!r}, expected 'auto', 'float32', 'bfloat16', 'float16' or such a torch.dtype")
    return found
