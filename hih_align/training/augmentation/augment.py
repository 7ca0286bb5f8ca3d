"""From stored faces to network input, with the augmentation of Sec. IV-A.3 and further effects for hard faces.

Each sample has its own 64-bit seed, and a counter-based generator draws all of its numbers. So the result of a sample
depends only on its seed and its face, not on its batch or worker. The drawn numbers stay on the CPU. Pixels are batched
torch tensors on the device of the images. The whole geometry is one affine and one resampling, and points are mapped by
the same matrix. The effects follow in the order in which a photograph gets them: occluders, light, colour, blur,
resolution, noise. An effect is computed only for the samples that drew it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ...crops import CROP_SIZE
from ...data.faces import MARGIN
from ...method.network import MEAN, STD
from ...runtime.transfer import upload
from .camera import Camera, draw_camera, photograph
from .dice import Dice, Floats
from .geometry import draw_geometry, matrices, warp
from .occluders import Occluders, draw_occluders, occlude
from .settings import Augmentation
from .tensors import numbers


class Batch(NamedTuple):
    """Network input.

    ``images``: (B, 3, size, size) float32, normalised by the network's mean and standard deviation. ``points``:
    (B, K, 2) float32 in crop pixels; they may lie outside the crop, and hold anything if their weight is 0.
    ``weights``: (B, K) float32.
    """

    images: Tensor
    points: Tensor
    weights: Tensor


def augment(
    images: Tensor,
    points: Tensor,
    weights: Tensor,
    *,
    settings: Augmentation,
    seeds: Tensor,
    permutation: ArrayLike | None,
    crop_ratio: float = 1.25,
    margin: float = MARGIN,
    size: int = CROP_SIZE,
    donors: Tensor | None = None,
    pick: NDArray[np.int64] | None = None,
) -> Batch:
    """Make network input from stored faces.

    Args:
        images: (B, S, S, 3) uint8 RGB, as in `FaceStore`.
        points: (B, K, 2) float landmarks in pixels of ``images``.
        weights: (B, K) float, 0 if missing.
        settings: the effects and their ranges.
        seeds: (B,) int64 on the CPU, one per sample (`sample_seeds`).
        permutation: (K,) index of the mirror image of each landmark (`Scheme.permutation`); None: never mirror.
        crop_ratio: side of the unchanged crop divided by the longer side of the box.
        margin: S divided by the longer side of the box (`FaceStore.margin`).
        size: side of the output in pixels.
        donors: (M, S', S', 3) uint8 on the device of ``images``: the pictures that occluding pieces are cut from, the
            whole store or a part of it. None: the piece of a sample is cut from its own picture, turned and moved.
        pick: (B,) the number of the donor of each sample's piece; samples without a piece may have any number. None:
            the seed decides, see `donor_faces`.

    Returns:
        The batch, on the device of ``images``; black outside the stored picture. With `Augmentation.none` an image is
        the crop of `crops.square_crop` at ``crop_ratio``, within the error of resampling twice. On the CPU in float32 a
        sample is bit-identical for the same seed, face and ``donors``.

    Raises:
        TypeError: ``images`` are not uint8, or ``seeds`` are not int64.
        ValueError: shapes do not fit, or a ratio, margin or size is out of range.
    """
    _check(images, points, weights, seeds, crop_ratio, margin, size, donors)
    if pick is not None and pick.shape != (len(images),):
        raise ValueError(f"pick has shape {pick.shape}, expected ({len(images)},)")
    count, side = images.shape[:2]
    dice = Dice(seeds.cpu().numpy())
    geometry = draw_geometry(dice, settings, permutation is not None)
    occluders, camera = draw_occluders(dice, settings), draw_camera(dice, settings)
    affine = matrices(geometry, side, crop_ratio, margin, size)
    device = images.device
    cast = numbers(affine, device)
    middle = (side - 1) / 2  # relative to the centre coordinates are small, so float32 is exact enough
    x, y = (points.float() - middle).unbind(-1)
    a = cast[:, :, :, None]
    moved = torch.stack([a[:, n, 0] * x + a[:, n, 1] * y + a[:, n, 2] for n in (0, 1)], -1)
    weights = weights.float()
    if permutation is not None:
        swap = np.array(permutation, np.int64)
        if swap.shape != points.shape[1:2]:
            raise ValueError(f"permutation has shape {tuple(swap.shape)}, expected ({points.shape[1]},)")
        order = upload(np.where(geometry.mirror[:, None], swap, np.arange(len(swap))), device)
        moved = moved.gather(1, order[..., None].expand_as(moved))
        weights = weights.gather(1, order)
    mean, std = (numbers(np.array(v), device)[:, None, None] for v in (MEAN, STD))
    output = torch.empty(count, 3, size, size, device=device)
    # on a CPU one by one: a face stays in the cache, and the batch cannot change the order of a sum
    step = 1 if device.type == "cpu" else max(count, 1)
    for start in range(0, count, step):
        rows = slice(start, start + step)
        picked = None if pick is None else pick[rows]
        crop = _render(images[rows], affine[rows], occluders.at(rows), camera.at(rows), size, donors, picked)
        output[rows] = crop.sub_(mean).div_(std)
    return Batch(output, moved, weights)


def donor_faces(settings: Augmentation, seeds: Tensor, count: int) -> NDArray[np.int64]:
    """(B,) the number, out of ``count``, of the donor of each sample's piece; -1 for a sample without a piece."""
    dice = Dice(seeds.cpu().numpy())
    draw_geometry(dice, settings, False)  # draw the earlier numbers, to reach the same place in the sequence
    drawn = draw_occluders(dice, settings)
    return np.where(drawn.piece, drawn.donors(count), -1)


def _check(
    images: Tensor,
    points: Tensor,
    weights: Tensor,
    seeds: Tensor,
    crop_ratio: float,
    margin: float,
    size: int,
    donors: Tensor | None,
) -> None:
    for name, pictures in (("images", images), ("donors", donors)):
        if pictures is None:
            continue
        if pictures.dtype != torch.uint8:
            raise TypeError(f"{name} is {pictures.dtype}, expected uint8")
        shape = tuple(pictures.shape)
        if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[1] == 0:
            raise ValueError(f"{name} has shape {shape}, expected (B, S, S, 3)")
    if donors is not None and len(donors) == 0:
        raise ValueError("donors is empty, expected at least one picture")
    if seeds.dtype != torch.int64:
        raise TypeError(f"seeds is {seeds.dtype}, expected int64")
    if points.ndim != 3 or points.shape[0] != len(images) or points.shape[2] != 2:
        raise ValueError(f"points has shape {tuple(points.shape)}, expected ({len(images)}, K, 2)")
    if weights.shape != points.shape[:2]:
        raise ValueError(f"weights has shape {tuple(weights.shape)}, expected {tuple(points.shape[:2])}")
    if seeds.shape != (len(images),):
        raise ValueError(f"seeds has shape {tuple(seeds.shape)}, expected ({len(images)},)")
    if not (crop_ratio > 0 and margin > 0):
        raise ValueError(f"crop_ratio, margin are {crop_ratio}, {margin}, expected positive")
    if size < 16:
        raise ValueError(f"size is {size}, expected at least 16")


def _render(
    images: Tensor,
    affine: Floats,
    occluders: Occluders,
    camera: Camera,
    size: int,
    donors: Tensor | None,
    pick: NDArray[np.int64] | None = None,
) -> Tensor:
    """Render crops (B, 3, size, size) float32 in [0, 1] from stored pictures (B, S, S, 3) uint8."""
    x = warp(images, affine, size)
    if donors is None:
        x = occlude(x, occluders, images, np.arange(len(images)))
    else:
        x = occlude(x, occluders, donors, occluders.donors(len(donors)) if pick is None else pick)
    return photograph(x, camera)
