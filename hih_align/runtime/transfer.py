"""Transfer of arrays to a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """Copy ``array`` (any strides) to ``device``. The CPU does not wait for a GPU."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    staged = staging(array.shape, dtype, device)
    np.copyto(staged.numpy(), array)
    return send(staged, device)


def staging(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate CPU memory that is to be filled and sent to ``device``. For a GPU it is pinned."""
    return torch.empty(shape, dtype=dtype, device="cpu", pin_memory=device.type == "cuda")


def send(staged: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of `staging` to ``device``. PyTorch keeps its pinned memory until the copy is done."""
    return staged.to(device, non_blocking=device.type == "cuda")
