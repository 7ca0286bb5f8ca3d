"""Stored faces to network input, with the augmentation of Sec. IV-A.3 and what harder faces need beyond it.

Everything is drawn per sample from its own 64-bit seed by a counter-based generator: a sample's result depends on
its seed and itself, not on its batch or worker. The few numbers drawn stay on the CPU; pixels are batched torch on the
device of the images. All geometry is one affine and one resampling, and points go through the same matrix. Effects
follow in the order of a photograph's life: occluders, light, colour, blur, resolution, noise. Each is computed only
for the samples that drew it.
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
    """Network input: ``images`` (B, 3, size, size) float32, normalised by the network's mean and deviation;
    ``points`` (B, K, 2) float32 in crop pixels, also beyond the crop, arbitrary where the weight is 0; ``weights``
    (B, K) float32."""

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
    """Stored faces to network input.

    Args:
        images: (B, S, S, 3) uint8 RGB, as `FaceStore` keeps them.
        points: (B, K, 2) float landmarks in pixels of ``images``.
        weights: (B, K) float, 0 where missing.
        settings: what is varied and how far.
        seeds: (B,) int64 on the CPU, one per sample (`sample_seeds`).
        permutation: (K,) index of each landmark's mirror image (`Scheme.permutation`); None never mirrors.
        crop_ratio: the unvaried crop's side over the box's longer side.
        margin: S over the box's longer side (`FaceStore.margin`).
        size: side of the output.
        donors: (M, S', S', 3) uint8 on the device of ``images``: pictures that occluding pieces are cut from, the
            whole store or some of it. Without them a sample's pieces are its own, turned and from elsewhere.
        pick: (B,) which of ``donors`` each sample's piece is cut from, anything for a sample without a piece; by
            default its seed decides, see `donor_faces`.

    Returns:
        the batch, on the device of ``images``. With `Augmentation.none` it is the crop of `crops.square_crop` at
        ``crop_ratio``, within the error of resampling twice. On the CPU in float32 a sample is bit-identical for
        the same seed, itself and ``donors``; outside the store the image is black.

    Raises:
        TypeError: images that are not uint8, seeds that are not int64.
        ValueError: shapes that do not fit, a ratio, margin or size out of range.
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
    middle = (side - 1) / 2  # a point's distance from it is small, so float32 is exact enough
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
    # one by one on a CPU: a face stays in its cache, and the batch cannot change the order of any sum
    step = 1 if device.type == "cpu" else max(count, 1)
    for start in range(0, count, step):
        rows = slice(start, start + step)
        picked = None if pick is None else pick[rows]
        crop = _render(images[rows], affine[rows], occluders.at(rows), camera.at(rows), size, donors, picked)
        output[rows] = crop.sub_(mean).div_(std)
    return Batch(output, moved, weights)


def donor_faces(settings: Augmentation, seeds: Tensor, count: int) -> NDArray[np.int64]:
    """(B,) which of ``count`` donors `augment` cuts each sample's piece from; -1 for a sample without a piece."""
    dice = Dice(seeds.cpu().numpy())
    draw_geometry(dice, settings, False)  # the numbers before
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
    """(B, S, S, 3) uint8 -> (B, 3, size, size) float32 in [0, 1]."""
    x = warp(images, affine, size)
    if donors is None:
        x = occlude(x, occluders, images, np.arange(len(images)))
    else:
        x = occlude(x, occluders, donors, occluders.donors(len(donors)) if pick is None else pick)
    return photograph(x, camera)
