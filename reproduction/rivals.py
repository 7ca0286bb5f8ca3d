"""The paper's competitors of HIH for the subpixel part, on the same trunk (Appendix, Tab. V and VI).

Each one is a `Learner`, which `hih_align.training.train` takes as ``build``:

* ``baseline``: integer heatmaps alone. Its trunk has 280 channels, to make up for the missing head. It is decoded with
  half a pixel added (``baseline``), with the second-maximal shift (``wsm``) or with DARK (``dark``)
* ``wov``: offset values from a fully connected layer (Eq. 9)
* ``wom``: one pair of offset maps, read at the maximum of each landmark (Eq. 8)

The paper does not describe the layers of WOV and WOM. Here they have the widths of the decimal head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hih_align.hub.checkpoints import WEIGHTS_FILE
from hih_align.hub.config import RUN_FILE
from hih_align.method import heatmaps
from hih_align.method.decoder import Decoder
from hih_align.method.losses import Loss, LossSettings, hih_loss, integer_parts, weighted_mean
from hih_align.method.network import DownBlock, StackedHourglass, Unit, down_steps, scaled
from hih_align.method.sizes import Size
from hih_align.schemes import scheme_from_dict
from hih_align.training.learner import Learner, Output, build_hih
from hih_align.training.run_folder import stored_size
from hih_align.training.warmstart import Start

RivalName = Literal["baseline", "wsm", "dark", "wov", "wom"]

#: Number of channels of the baseline's trunk at width 1 (Sec. IV-D).
BASELINE_CHANNELS = 280

#: Number of channels of the other trunks, and of HIH's, at width 1.
CHANNELS = 256


class Baseline(Learner):
    """Integer heatmaps alone. WSM and DARK decode the same network, so ``rule`` can be changed after training."""

    def __init__(
        self,
        landmarks: int,
        size: Size,
        rule: Literal["baseline", "wsm", "dark"] = "baseline",
        channels: int = BASELINE_CHANNELS,
    ) -> None:
        super().__init__()
        self.trunk = _trunk(landmarks, size, channels)
        self.rule = rule

    def forward(self, images: Tensor, subpixel: bool = True) -> Output:
        return Output(torch.stack(self.trunk(images)[0], 1), None)

    def loss(
        self, output: Output, points: Tensor, weights: Tensor, settings: LossSettings, count: float | Tensor | None
    ) -> Loss:
        return hih_loss(output.integer, None, points, weights, settings, count)

    def decode(self, output: Output, decoder: Decoder) -> Tensor:
        maps = output.integer[:, -1].float()
        if self.rule == "wsm":
            return second_maximal(maps) + 0.5
        return (dark(maps) if self.rule == "dark" else heatmaps.peak(maps)) + 0.5


class _OffsetVariant(Learner):
    """The trunk of HIH with a head for offsets in [0, 1), trained by smooth L1 with HIH's alpha."""

    def __init__(self, landmarks: int, size: Size) -> None:
        super().__init__()
        self.trunk = _trunk(landmarks, size)
        self.head: nn.Module

    def forward(self, images: Tensor, subpixel: bool = True) -> Output:
        integer, features = self.trunk(images)
        return Output(torch.stack(integer, 1), self.head(features) if subpixel else None)

    def offsets(self, subpixel: Tensor, pixels: Tensor) -> Tensor:
        """The offsets (B, K, 2) that the head gives for landmarks in the given pixels (B, K, 2)."""
        raise NotImplementedError

    def loss(
        self, output: Output, points: Tensor, weights: Tensor, settings: LossSettings, count: float | Tensor | None
    ) -> Loss:
        if count is None:
            count = (weights > 0).sum().clamp(min=1)
        total, _, weights = integer_parts(output.integer, points, weights, settings, 8, count)
        parts = {"integer": total.detach()}
        if output.subpixel is None:
            return Loss(total, parts)
        points = torch.where((weights > 0)[..., None], points, 0)
        pixels = points.floor()
        predicted = self.offsets(output.subpixel.float(), pixels)
        error = F.smooth_l1_loss(predicted, points - pixels, reduction="none").mean(-1)
        offset = weighted_mean(error, weights, count)
        return Loss(total + settings.alpha * offset, parts | {"offset": offset.detach()})

    def decode(self, output: Output, decoder: Decoder) -> Tensor:
        pixels = heatmaps.peak(output.integer[:, -1].float())
        if output.subpixel is None:
            return pixels + 0.5
        return pixels + self.offsets(output.subpixel.float(), pixels)


class OffsetValue(_OffsetVariant):
    """WOV: the layers of the decimal head, ending in a fully connected layer with two values per landmark."""

    def __init__(self, landmarks: int, size: Size) -> None:
        super().__init__(landmarks, size)
        width = scaled(size.head_channels, size.width)
        self.head = nn.Sequential(
            Unit(scaled(CHANNELS, size.width), width, 1),
            nn.MaxPool2d(3, stride=2),
            *(DownBlock(width) for _ in range(down_steps(8, size.input_size))),
            nn.AdaptiveAvgPool2d(8),  # the identity at the size's own input
            nn.Flatten(),
            nn.Linear(width * 64, 2 * landmarks),
            nn.Unflatten(-1, (landmarks, 2)),
        )

    def offsets(self, subpixel: Tensor, pixels: Tensor) -> Tensor:
        return subpixel


class OffsetMap(_OffsetVariant):
    """WOM: two offset maps of the heatmaps' size, shared by all landmarks and supervised at them (as CornerNet)."""

    def __init__(self, landmarks: int, size: Size) -> None:
        super().__init__(landmarks, size)
        channels = scaled(CHANNELS, size.width)
        self.head = nn.Sequential(Unit(channels, channels, 1), nn.Conv2d(channels, 2, 1))

    def offsets(self, subpixel: Tensor, pixels: Tensor) -> Tensor:
        height, width = subpixel.shape[-2:]
        x, y = pixels.long().unbind(-1)
        index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        return subpixel.flatten(-2).gather(-1, index[:, None].expand(-1, 2, -1)).transpose(1, 2)


def _trunk(landmarks: int, size: Size, channels: int = CHANNELS) -> StackedHourglass:
    """The trunk of `HIHNet`, with another number of channels at width 1."""
    first, second, channels = (scaled(count, size.width) for count in (64, 128, channels))
    return StackedHourglass(landmarks, size.stacks, channels, (first, second))


def second_maximal(maps: Tensor) -> Tensor:
    """The maximum of each map (..., h, w), moved by a quarter pixel per axis towards its larger neighbour (WSM).

    If one of the neighbours lies outside the map, the maximum is not moved on that axis. The result is (..., 2).
    """
    top = heatmaps.peak(maps)
    dx, dy, *_ = _derivatives(maps, top)
    return top + 0.25 * torch.stack((dx.sign(), dy.sign()), -1)


def dark(maps: Tensor, kernel: int = 11) -> Tensor:
    """DARK: a Newton step from the maximum of each map (..., h, w), on the logarithm of the smoothed map.

    Maps are smoothed with the Gaussian that OpenCV gives a kernel of ``kernel`` pixels, and scaled back to their former
    maximum. If the Hessian is singular, or the maximum lies within two pixels of the border, the result is the maximum.
    The result is (..., 2).
    """
    top = heatmaps.peak(maps)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    line = torch.arange(kernel, device=maps.device, dtype=maps.dtype) - (kernel - 1) / 2
    line = (-line.square() / (2 * sigma**2)).exp()
    line = line / line.sum()
    pad = kernel // 2
    smooth = F.conv2d(F.pad(flat, (pad, pad, 0, 0)), line.view(1, 1, 1, -1))
    smooth = F.conv2d(F.pad(smooth, (0, 0, pad, pad)), line.view(1, 1, -1, 1)).view_as(maps)
    peak = maps.amax((-2, -1), keepdim=True)
    smooth = smooth * peak / smooth.amax((-2, -1), keepdim=True).clamp(min=1e-10)
    dx, dy, dxx, dxy, dyy = _derivatives(smooth.clamp(min=1e-10).log(), top)
    determinant = dxx * dyy - dxy * dxy
    height, width = maps.shape[-2:]
    x, y = top.unbind(-1)
    valid = (determinant.abs() > 1e-12) & (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    safe = torch.where(valid, determinant, 1)
    step = -torch.stack((dyy * dx - dxy * dy, dxx * dy - dxy * dx), -1) / safe[..., None]
    return top + torch.where(valid[..., None], step, 0)


def _derivatives(maps: Tensor, at: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Central differences dx, dy, dxx, dxy, dyy (...) of maps (..., h, w) at integer pixels (..., 2).

    The second derivatives use DARK's step of two pixels. A difference that reaches outside the map is 0.
    """
    height, width = maps.shape[-2:]
    flat = maps.flatten(-2)
    x, y = at.long().unbind(-1)

    def value(i: int, j: int) -> Tensor:
        index = (y + j).clamp(0, height - 1) * width + (x + i).clamp(0, width - 1)
        return flat.gather(-1, index[..., None])[..., 0]

    def inside(i: int, j: int) -> Tensor:
        return (x >= i) & (x < width - i) & (y >= j) & (y < height - j)

    dx = 0.5 * (value(1, 0) - value(-1, 0)) * inside(1, 0)
    dy = 0.5 * (value(0, 1) - value(0, -1)) * inside(0, 1)
    dxx = 0.25 * (value(2, 0) - 2 * value(0, 0) + value(-2, 0)) * inside(2, 0)
    dyy = 0.25 * (value(0, 2) - 2 * value(0, 0) + value(0, -2)) * inside(0, 2)
    dxy = 0.25 * (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) * inside(1, 1)
    return dx, dy, dxx, dxy, dyy


def build(name: str, landmarks: int, size: Size) -> Learner:
    """A rival, or "hih" itself, by name, with random weights. Only HIH has a ``decimal_size``.

    Raises:
        ValueError: the name is unknown, or `HIHNet` refuses the size.
    """
    if name == "hih":
        return build_hih(landmarks, size)
    if name in ("baseline", "wsm", "dark"):
        return Baseline(landmarks, size, name)  # type: ignore[arg-type]
    if name == "wov":
        return OffsetValue(landmarks, size)
    if name == "wom":
        return OffsetMap(landmarks, size)
    raise ValueError(f"rival is {name!r}, expected 'hih' or one of {get_args(RivalName)}")


def load_rival(folder: Path, name: str) -> Start:
    """Load the ``best/`` or ``last/`` of a rival's run as start weights.

    Args:
        folder: the folder of the weights.
        name: the name of the rival, see `build`.

    Raises:
        FileNotFoundError: the run's ``run.json`` or the weights do not exist.
        RuntimeError: the weights belong to another network.
    """
    run = json.loads((folder.parent / RUN_FILE).read_text("utf-8"))
    scheme = scheme_from_dict(run["scheme"])
    learner = build(name, len(scheme), stored_size(run))
    learner.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    return Start(learner, scheme, str(folder))
