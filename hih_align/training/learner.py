"""`Learner`: a network with its loss and decoder, as the trainer needs it. HIH and other networks can be learners.

`train` takes a function that builds the learner. `reproduction/rivals.py` has learners of the paper's competitors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import scores
from ..method import heatmaps
from ..method.decoder import Decoder
from ..method.losses import Loss, LossSettings, hih_loss
from ..method.network import HIHNet
from ..method.sizes import SIZES, Size


class Output(NamedTuple):
    """The output of a learner.

    ``integer``: (B, stacks, K, h, w) heatmaps. ``subpixel``: the output of the subpixel head, which is the decimal
    heatmaps (B, K, n, n) for HIH; None without that head.
    """

    integer: Tensor
    subpixel: Tensor | None


class Learner(nn.Module):
    """A network with its loss and its decoder, which `train` trains.

    Points are (B, K, 2) in heatmap pixels, weights are (B, K); see `losses.hih_loss`.
    """

    def forward(self, images: Tensor, subpixel: bool = True) -> Output:
        """Compute the `Output` of normalised crops (B, 3, H, W). ``subpixel=False`` leaves out the subpixel head."""
        raise NotImplementedError

    def loss(
        self, output: Output, points: Tensor, weights: Tensor, settings: LossSettings, count: float | Tensor | None
    ) -> Loss:
        """The loss to minimise. Without ``output.subpixel`` it is the integer loss alone."""
        raise NotImplementedError

    def decode(self, output: Output, decoder: Decoder) -> Tensor:
        """(B, K, 2) landmarks in heatmap pixels. ``decoder`` is HIH's; another learner may have its own rule."""
        raise NotImplementedError

    def heights(self, output: Output) -> Tensor:
        """(B, K) float32 clamped heights of the integer heatmaps. They serve as scores."""
        return scores.score(output.integer[:, -1], None)


class HIH(Learner):
    """`HIHNet` as a learner.

    If the input has another size than the network's ``input_size``, the decimal heatmaps have another size than their
    targets. Then they are interpolated to ``decimal_size``.
    """

    def __init__(self, network: HIHNet) -> None:
        super().__init__()
        self.network = network

    def settled(self) -> HIHNet:
        """The network to save, with all trained weights."""
        return self.network

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
        if output.subpixel is None:  # without decimal heatmaps, a landmark is at the centre of its pixel
            maps = integer.float()
            argmax = decoder.method == "argmax"
            return 0.5 + (heatmaps.peak(maps) if argmax else heatmaps.centroid(maps, decoder.radius, decoder.power))
        return heatmaps.decode(integer, output.subpixel, decoder)


#: Builds a learner with random weights from a number of landmarks and a `Size`.
Build = Callable[[int, Size], Learner]


def build_hih(landmarks: int, size: Size) -> HIH:
    """A learner of `HIHNet` with random weights. Raises `ValueError` for dimensions that `HIHNet` refuses."""
    return HIH(HIHNet(landmarks, *size))


def compiled(learner: Learner, how: bool | str) -> Learner:
    """A learner by `torch.compile`, or itself; see `Recipe.compile`."""
    if how is False:
        return learner
    if how == "cudagraphs":
        return cast("Learner", torch.compile(learner, backend="cudagraphs"))
    return cast("Learner", torch.compile(learner, mode=None if how is True else str(how)))


def size_of(size: str) -> Size:
    """The `Size` of a name: "N", "T", "S", "B", or "HIH_N", ...

    Raises:
        ValueError: the name is unknown.
    """
    name = size.upper()
    name = name if name.startswith("HIH_") else f"HIH_{name}"
    if name not in SIZES:
        raise ValueError(f"size is {size!r}, expected one of {[key.removeprefix('HIH_') for key in SIZES]}")
    return SIZES[name]
