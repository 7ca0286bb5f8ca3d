"""Shared functions of the effects: numbers on the device of the images, and effects on some of the samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.transfer import upload
from .dice import Bools, Floats


def numbers(values: Floats, device: torch.device) -> Tensor:
    return upload(values.astype(np.float32), device)


def apply(x: Tensor, drew: Bools, effect: Callable[..., Tensor], *arrays: NDArray[np.generic]) -> Tensor:
    """Apply ``effect`` to the samples that drew it, with their rows of ``arrays``. It may write into ``x``."""
    if not drew.any():
        return x
    if drew.all():
        return effect(x, *arrays)
    rows = np.flatnonzero(drew)
    index = upload(rows, x.device)
    x[index] = effect(x[index], *(array[rows] for array in arrays))
    return x


def places(size: int, device: torch.device) -> Tensor:
    """(size,) pixel centres along a side, in [0, 1]."""
    return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size


def affine_grid(backward: Tensor, width: int, height: int, left: int = 0, top: int = 0) -> Tensor:
    """Map the indices of a part of the pixels by affines (B, 2, 3): (B, height, width, 2)."""
    across = torch.arange(left, left + width, device=backward.device, dtype=torch.float32)
    down = torch.arange(top, top + height, device=backward.device, dtype=torch.float32)
    grid = backward.new_empty(len(backward), height, width, 2)
    for n in (0, 1):
        row, column = backward[:, n, 0, None] * across, backward[:, n, 1, None] * down + backward[:, n, 2, None]
        torch.add(row[:, None, :], column[:, :, None], out=grid[..., n])
    return grid
