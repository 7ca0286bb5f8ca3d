"""`Readout.points` in PyTorch: landmarks from the points of a network's heads, for runtimes and for training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .readout import TINY, Readout


class Reading(nn.Module):
    """A readout as a module without trainable weights. (B, H, 2) points of the heads -> (B, K, 2) landmarks.

    There is no matrix product: some runtimes compute products in bfloat16, which is too inaccurate for coordinates.

    Args:
        readout: the readout.
        heads: (U,) the heads whose points the module gets, in this order. None: all heads.
        middle: a coordinate in the middle of the points. They are taken relative to it, which is more accurate.
        dtype: the dtype of the weights. Points are computed in this dtype, too.
    """

    # buffers; `get_buffer` cannot be exported by PyTorch before 2.7
    weights: Tensor
    mirrored: Tensor
    upright: Tensor

    def __init__(
        self,
        readout: Readout,
        heads: NDArray[np.intp] | None = None,
        middle: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        some = slice(None) if heads is None else heads
        self.middle = middle
        self.turns = bool(readout.mirrored)
        rows = (readout.weights[:, some], readout.mirrored_weights[:, some], readout.upright_weights[None, some])
        for name, row in zip(("weights", "mirrored", "upright"), rows, strict=True):
            parts = torch.from_numpy(np.stack((row.real, row.imag)))
            self.register_buffer(name, parts.to(dtype)[:, :, :, None])

    def forward(self, points: Tensor) -> Tensor:
        """The landmarks."""
        x, y = torch.split((points - self.middle)[:, None], 1, -1)
        found = torch.cat(_sums(self.weights, x, y), -1)
        if self.turns:
            real, imaginary = _sums(self.upright, x, y)
            square = (real * real + imaginary * imaginary).clamp(min=TINY)
            # the square of the number, divided by its absolute value: twice the angle
            cosine, sine = (real * real - imaginary * imaginary) / square, 2 * real * imaginary / square
            a, b = _sums(self.mirrored, x, -y)
            found = found + torch.cat((cosine * a - sine * b, sine * a + cosine * b), -1)
        return found + self.middle


def _sums(weights: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Real and imaginary parts (B, K, 1) of sums of x + iy, which are (B, 1, U, 1), with weights (2, K, U, 1)."""
    real, imaginary = weights.unbind(0)
    return (x * real - y * imaginary).sum(2), (x * imaginary + y * real).sum(2)
