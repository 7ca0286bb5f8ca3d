"""Arrays on their way to a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def upload(array: NDArray[Any], device: torch.device) -> Tensor:
    """A copy of ``array``, with any strides, on ``device``; the CPU does not wait for a GPU."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    pinned = device.type == "cuda"
    staged = torch.empty(array.shape, dtype=dtype, device="cpu", pin_memory=pinned)
    np.copyto(staged.numpy(), array)
    return staged.to(device, non_blocking=pinned)  # torch keeps pinned memory until the copy is done
