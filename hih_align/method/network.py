"""The HIH network: a stacked hourglass, an integer head per stack, and one decimal head (Sec. III-D, Fig. 2).

The layers are those of the authors' released checkpoints, without the weights that the checkpoints store but never use.
The input is images, the output is heatmaps. `heatmaps.py` encodes and decodes heatmaps, `crops.py` makes the images.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sizes import SIZES as SIZES  # the old path `hih_align.network` has it, until version 0.3
from .sizes import Size

#: Possible sides of the decimal heatmaps (Tab. IX).
DECIMAL_SIZES = (4, 8, 16)


def scaled(channels: int, width: float) -> int:
    """``channels * width``, rounded to a multiple of 8, at least 8."""
    return max(8, 8 * round(channels * width / 8))


def down_steps(decimal_size: int, input_size: int) -> int:
    """Number of stride-2 blocks in the decimal head. At 256 px input: 64 -> 31 -> 16 -> 8 -> 4 pixels."""
    return (input_size // 8 // decimal_size).bit_length() - 1


#: ImageNet mean and standard deviation of RGB in [0, 1]; the network expects ``(rgb - MEAN) / STD``.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def plain_name(name: str) -> str:
    """Name of a weight without the prefixes of `torch.compile` and data parallelism."""
    return re.sub(r"(^|(?<=\.))(_orig_mod|module)\.", "", name)


def check_finite(state: Mapping[str, Tensor], source: object) -> None:
    """Refuse weights with NaN or infinity, because they make every point NaN.

    Raises:
        ValueError: a tensor holds NaN or infinity; the message names ``source`` and the tensor.
    """
    for name, value in state.items():
        if not value.is_floating_point():
            continue
        # a finite sum has only finite terms, and is faster; a sum that is not finite may also have overflowed
        if not math.isfinite(value.sum(dtype=torch.float32).item()) and not bool(torch.isfinite(value).all()):
            kind = "NaN" if bool(torch.isnan(value).any()) else "infinity"
            raise ValueError(f"{source}: {name} holds {kind}, expected finite weights")


class Unit(nn.Module):
    """Convolution without bias, batch norm, and (unless ``relu=False``) ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Residual(nn.Module):
    """Bottleneck 1x1, 3x3, 1x1, added to its input. The shortcut is a 1x1 unit if the number of channels changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = Unit(inputs, outputs // 2, 1)
        self.conv2 = Unit(outputs // 2, outputs // 2, 3)
        self.conv3 = Unit(outputs // 2, outputs, 1, relu=False)
        self.shortcut = nn.Identity() if inputs == outputs else Unit(inputs, outputs, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv3(self.conv2(self.conv1(x))) + self.shortcut(x))


class Level(nn.Module):
    """The residual blocks of one resolution of an hourglass: skip branch, way down and way up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.skip = Residual(channels, channels)
        self.down = Residual(channels, channels)
        self.up = Residual(channels, channels)


class Hourglass(nn.Module):
    """Encoder-decoder with a residual block at each of its ``depth`` resolutions (Newell et al., 2016)."""

    def __init__(self, channels: int, depth: int = 4) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(channels) for _ in range(depth))
        self.center = Residual(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        levels = cast("Sequence[Level]", self.levels)
        skips = []
        for level in levels:
            skips.append(level.skip(x))
            x = level.down(F.max_pool2d(x, 2))
        x = self.center(x)
        for level, skip in zip(reversed(levels), reversed(skips), strict=True):
            x = level.up(x)
            x = skip + F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
        return x


class Stack(nn.Module):
    """One hourglass, its integer heatmaps, and the fusion of both for the next stack or the decimal head."""

    def __init__(self, landmarks: int, channels: int) -> None:
        super().__init__()
        self.hourglass = Hourglass(channels)
        self.residual = Residual(channels, channels)
        self.feature = Unit(channels, channels, 1)
        self.predict = nn.Conv2d(channels, landmarks, 1)
        self.merge_feature = Unit(channels, channels, 1)
        self.merge_heatmaps = Unit(landmarks, channels, 1)

    def features(self, x: Tensor) -> Tensor:
        """The features from which the integer heatmaps are predicted."""
        return cast("Tensor", self.feature(self.residual(self.hourglass(x))))

    def fused(self, x: Tensor, feature: Tensor, heatmaps: Tensor) -> Tensor:
        """The input of the next stack."""
        return x + self.merge_feature(feature) + self.merge_heatmaps(heatmaps)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.features(x)
        heatmaps = self.predict(feature)
        return heatmaps, self.fused(x, feature, heatmaps)


class StackedHourglass(nn.Module):
    """The trunk, on which subpixel heads are built.

    Input: (B, 3, H, W). Output: the integer heatmaps of every stack, a list of (B, K, H/4, W/4), and the fused features
    (B, channels, H/4, W/4).
    """

    def __init__(self, landmarks: int, stacks: int, channels: int = 256, stem: tuple[int, int] = (64, 128)) -> None:
        super().__init__()
        first, second = stem
        self.stem = nn.Sequential(
            Unit(3, first, 7, stride=2),
            Residual(first, second),
            nn.MaxPool2d(2),
            Residual(second, second),
            Residual(second, channels),
        )
        self.stacks = nn.ModuleList(Stack(landmarks, channels) for _ in range(stacks))

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        x = self.stem(images)
        heatmaps = []
        for stack in self.stacks:
            heatmap, x = stack(x)
            heatmaps.append(heatmap)
        return heatmaps, x


class DownBlock(nn.Module):
    """ResNet basic block of stride 2 (Sec. III-D)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = Unit(channels, channels, 3, stride=2)
        self.conv2 = Unit(channels, channels, 3, relu=False)
        self.shortcut = Unit(channels, channels, 1, stride=2, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class DecimalHead(nn.Module):
    """The decimal head: features (B, channels, h, w) -> decimal heatmaps (B, K, n, n), n = ``decimal_size``."""

    def __init__(
        self, landmarks: int, decimal_size: int, channels: int = 256, width: int = 384, input_size: int = 256
    ) -> None:
        super().__init__()
        self.expand = Unit(channels, width, 1)
        self.down = nn.Sequential(*(DownBlock(width) for _ in range(down_steps(decimal_size, input_size))))
        self.squeeze = Unit(width, width, 1)
        self.predict = nn.Conv2d(width, landmarks, 1)

    def features(self, x: Tensor) -> Tensor:
        """The features from which the decimal heatmaps are predicted."""
        x = F.max_pool2d(self.expand(x), 3, stride=2)
        return cast("Tensor", self.squeeze(self.down(x)))

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.predict(self.features(x)))


class HIHNet(nn.Module):
    """Heatmap-in-Heatmap network.

    Args:
        landmarks: number of landmarks K, at least 1.
        stacks, decimal_size, width, head_channels, input_size: see `Size`. With the defaults, networks of 1, 2 and 4
            stacks are the paper's HIH_T, HIH_S and HIH_B (`SIZES`).

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        landmarks: int,
        stacks: int,
        decimal_size: int = 8,
        width: float = 1.0,
        head_channels: int = 384,
        input_size: int = 256,
    ) -> None:
        super().__init__()
        if landmarks < 1:
            raise ValueError(f"landmarks is {landmarks}, expected at least 1")
        if stacks < 1:
            raise ValueError(f"stacks is {stacks}, expected at least 1")
        if decimal_size not in DECIMAL_SIZES:
            raise ValueError(f"decimal_size is {decimal_size}, expected one of {list(DECIMAL_SIZES)}")
        if not 0 < width <= 4:
            raise ValueError(f"width is {width}, expected more than 0 and at most 4")
        if head_channels < 1:
            raise ValueError(f"head_channels is {head_channels}, expected at least 1")
        if input_size < 16 * decimal_size or input_size not in (128, 256, 512):
            raise ValueError(
                f"input_size is {input_size}, expected 128, 256 or 512, at least 16 times decimal_size {decimal_size}"
            )
        self.landmarks, self.decimal_size, self.input_size = landmarks, decimal_size, input_size
        self.width, self.head_channels = width, head_channels
        first, second, channels, head = (scaled(count, width) for count in (64, 128, 256, head_channels))
        self.trunk = StackedHourglass(landmarks, stacks, channels, (first, second))
        self.decimal_head = DecimalHead(landmarks, decimal_size, channels, head, input_size)

    @property
    def stacks(self) -> int:
        """Number of stacked hourglasses."""
        return len(self.trunk.stacks)

    @property
    def size(self) -> Size:
        """The dimensions of the network: ``HIHNet(landmarks, *size)`` has the same layers."""
        return Size(self.stacks, self.decimal_size, self.width, self.head_channels, self.input_size)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps of every stack.

        Args:
            images: (B, 3, H, W) normalised RGB (`MEAN`, `STD`); H and W are multiples of 64. The network is trained at
                ``input_size``.

        Returns:
            Integer heatmaps (B, stacks, K, H/4, W/4), about in [0, 1], and decimal heatmaps (B, K, n, n), logits of the
            position inside a heatmap pixel. n is ``decimal_size`` at ``input_size`` and scales with the input.

        Raises:
            ValueError: ``images`` has another shape.
        """
        heatmaps, features = self._trunk(images)
        return torch.stack(heatmaps, 1), self.decimal_head(features)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Like `forward`, but with the integer heatmaps (B, K, H/4, W/4) of the last stack only, and without a copy."""
        heatmaps, features = self._trunk(images)
        return heatmaps[-1], self.decimal_head(features)

    def _trunk(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] % 64 or images.shape[3] % 64:
            raise ValueError(
                f"images has shape {tuple(images.shape)}, expected (B, 3, H, W) with H and W multiples of 64"
            )
        heatmaps: tuple[list[Tensor], Tensor] = self.trunk(images)
        return heatmaps
