"""The geometry of a sample's crop: mirroring, rotation, zoom and shift, as one affine and one resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...crops import REDUCE_ABOVE
from ...runtime.transfer import upload
from .dice import Bools, Dice, Floats, columns
from .settings import Augmentation
from .tensors import affine_grid, apply, numbers


@dataclass(frozen=True)
class Geometry:
    """The drawn numbers of B samples.

    Attributes:
        mirror: (B,) whether left and right are exchanged.
        radians: (B,) rotation about the centre of the crop.
        zoom: (B,) factor of the crop's side.
        shift: (B, 2) shift of the crop's centre, in longer sides of the box.
    """

    mirror: Bools
    radians: Floats
    zoom: Floats
    shift: Floats


def draw_geometry(dice: Dice, s: Augmentation, mirrored: bool) -> Geometry:
    """Draw the numbers of the geometry. ``mirrored``: whether faces may be mirrored at all."""
    mirror = dice.chance(s.mirror) & mirrored
    rolls, rotates = dice.chance(s.roll), dice.chance(s.rotate)
    reach = np.where(rolls, s.roll_degrees, np.where(rotates, s.rotate_degrees, s.tilt_degrees))
    radians = np.radians(dice.around(1.0) * reach)
    foreign = dice.chance(s.foreign)
    zoom = np.where(foreign, dice.between(s.foreign_zoom), dice.between(s.zoom))
    wide = columns(dice.between(s.foreign_shift_x), dice.between(s.foreign_shift_y))
    shift = np.where(foreign[:, None], wide, columns(dice.around(s.shift), dice.around(s.shift)))
    return Geometry(mirror, radians, zoom, shift)


def matrices(drawn: Geometry, side: int, crop_ratio: float, margin: float, size: int) -> Floats:
    """(B, 2, 3) affines from pixels of the stored picture, relative to its centre, to crop pixels."""
    box = side / margin
    scale = size / (crop_ratio * box * drawn.zoom)
    cos, sin = scale * np.cos(drawn.radians), scale * np.sin(drawn.radians)
    linear = np.stack((columns(cos, -sin), columns(sin, cos)), 1)
    linear[:, 0] *= np.where(drawn.mirror, -1.0, 1.0)[:, None]
    offset = (size - 1) / 2 - (linear @ (box * drawn.shift)[:, :, None])
    return np.concatenate((linear, offset), -1)


def warp(images: Tensor, affine: Floats, size: int) -> Tensor:
    """Resample pictures (B, S, S, 3) uint8 to (B, 3, size, size) float32 in [0, 1]: bilinear, black outside."""
    side = images.shape[1]
    inverse = np.linalg.inv(affine[:, :, :2])
    backward = np.concatenate((inverse, (side - 1) / 2 - inverse @ affine[:, :, 2:]), -1)
    shrink = np.sqrt(np.abs(np.linalg.det(inverse)))
    # as in `crops.warp`, a strong reduction averages first; here over blocks of 2, 4, ... pixels
    block = np.where(shrink > REDUCE_ABOVE, 2.0 ** np.round(np.log2(np.maximum(shrink, 1.0))), 1.0)
    block = np.minimum(block, 2 ** int(math.log2(side))).astype(np.int64)
    x = torch.empty(len(images), 3, size, size, device=images.device)
    rows = np.arange(len(images))
    for width in np.unique(block):
        x = apply(x, block == width, partial(_sample, images, int(width)), rows, backward)
    return x


def _sample(images: Tensor, block: int, x: Tensor, rows: NDArray[np.intp], backward: Floats) -> Tensor:
    """Write the crops of some rows of ``images`` into ``x``. The pixels are first averaged over blocks."""
    side, size = images.shape[1], x.shape[-1]
    # convert only the visible part: whole blocks, plus one pixel for the interpolation
    corners = np.array([(u, v, 1.0) for u in (0, size - 1) for v in (0, size - 1)])
    reach = backward @ corners.T
    low = np.clip(np.floor(reach.min((0, 2)) / block - 2) * block, 0, side - block).astype(int)
    count = np.ceil((reach.max((0, 2)) - low) / block + 2).astype(int)
    width, height = (count.clip(1) * block).clip(max=(side - low) // block * block)
    left, top = low
    part = images[:, top : top + height, left : left + width]
    if len(rows) < len(images):
        part = part[upload(rows, images.device)]
    pixels = part.float() if block == 1 else _average(part, block)
    # align_corners=False: -1 and 1 are the outer edges of the first and the last pixel
    extent = np.array([width, height], np.float64)[:, None]
    backward = backward * (2 / extent)
    backward[:, :, 2:] += (1 - 2 * low[:, None]) / extent - 1
    grid = affine_grid(numbers(backward, images.device), size, size)
    return F.grid_sample(pixels.permute(0, 3, 1, 2), grid, align_corners=False).mul_(1 / 255)


def _average(images: Tensor, block: int) -> Tensor:
    """Average pictures (B, H, W, 3) uint8 over blocks: (B, H / block, W / block, 3) float32; block is a power of 2."""
    total = images.to(torch.int32)
    step = block
    while step > 1:
        total = total[:, ::2] + total[:, 1::2]
        total = total[:, :, ::2] + total[:, :, 1::2]
        step //= 2
    return total.float().mul_(block**-2)
