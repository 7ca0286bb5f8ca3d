"""What the trainer trains: HIH with its loss, behind an interface that other networks can have, too.

`train` takes a function that builds the learner. `reproduction/rivals.py` has those of the paper's competitors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import scores
from ..method import heatmaps
from ..method.heatmaps import Decoder
from ..method.losses import Loss, LossSettings, hih_loss
from ..method.network import SIZES, HIHNet, Size


class Output(NamedTuple):
    """``integer`` (B, stacks, K, h, w) heatmaps and ``subpixel``, what the subpixel head adds to them, if there is one:
    decimal heatmaps (B, K, n, n) for HIH."""

    integer: Tensor
    subpixel: Tensor | None


class Learner(nn.Module):
    """What `train` trains: a network, its loss and its way back to landmarks.

    Points are (B, K, 2) heatmap pixels, weights (B, K); see `losses.hih_loss`.
    """

    def forward(self, images: Tensor, subpixel: bool = True) -> Output:
        """(B, 3, H, W) normalised crops -> `Output`; ``subpixel=False`` leaves the subpixel head out."""
        raise NotImplementedError

    def loss(
        self, output: Output, points: Tensor, weights: Tensor, settings: LossSettings, count: float | Tensor | None
    ) -> Loss:
        """What to minimise; without ``output.subpixel`` the integer loss alone."""
        raise NotImplementedError

    def decode(self, output: Output, decoder: Decoder) -> Tensor:
        """(B, K, 2) landmarks in heatmap pixels. ``decoder`` is HIH's; another learner may have a rule of its own."""
        raise NotImplementedError

    def heights(self, output: Output) -> Tensor:
        """(B, K) float32 clamped heights of the integer heatmaps, which stand for scores."""
        return scores.score(output.integer[:, -1], None)


class HIH(Learner):
    """`HIHNet`. At inputs of another side than its own its decimal heatmaps have another size than their targets: they
    are then interpolated to ``decimal_size``."""

    def __init__(self, network: HIHNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, subpixel: bool = True) -> Output:
        integer, features = self.network.trunk(images)
        maps = torch.stack(integer, 1)
        if not subpixel:
            return Output(maps, None)
        decimal = self.network.decimal_head(features)
        size = self.network.decimal_size
        if decimal.shape[-1] != size:
            decimal = F.interpolate(decimal, (size, size), mode="bilinear", align_corners=False)
        return Output(maps, decimal)

    def loss(
        self, output: Output, points: Tensor, weights: Tensor, settings: LossSettings, count: float | Tensor | None
    ) -> Loss:
        return hih_loss(output.integer, output.subpixel, points, weights, settings, count)

    def decode(self, output: Output, decoder: Decoder) -> Tensor:
        integer = output.integer[:, -1]
        if output.subpixel is None:  # floored labels stand for their pixel's middle
            maps = integer.float()
            argmax = decoder.method == "argmax"
            return 0.5 + (heatmaps.peak(maps) if argmax else heatmaps.centroid(maps, decoder.radius, decoder.power))
        return heatmaps.decode(integer, output.subpixel, decoder)


#: Number of landmarks and `Size` -> a learner with random weights.
Build = Callable[[int, Size], Learner]


def build_hih(landmarks: int, size: Size) -> HIH:
    """`HIHNet` with random weights. Raises `ValueError` for numbers that `HIHNet` refuses."""
    return HIH(HIHNet(landmarks, *size))


def size_of(size: str) -> Size:
    """The numbers of "N", "T", "S", "B" or "HIH_N", ...

    Raises:
        ValueError: for another name.
    """
    name = size.upper()
    name = name if name.startswith("HIH_") else f"HIH_{name}"
    if name not in SIZES:
        raise ValueError(f"size is {size!r}, expected one of {[key.removeprefix('HIH_') for key in SIZES]}")
    return SIZES[name]
