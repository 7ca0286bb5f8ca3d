"""Pictures of the network's input and targets: crops with landmarks, and the target heatmaps."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..drawing import Pen, larger, sheet
from ..method.decoder import STRIDE, Rounding
from ..method.heatmaps import encode
from ..method.network import MEAN, STD
from ..schemes import Scheme
from .augmentation import Batch

_SURE = (60, 255, 90)
_UNSURE = (255, 170, 40)
_LABELLED = (60, 220, 80)
_FOUND = (255, 60, 110)
_LINE = (70, 160, 255)

#: Smaller faces of `compare` are enlarged by a whole number, to about this many pixels.
SIDE = 256


def pixels(images: Tensor) -> NDArray[np.uint8]:
    """Convert normalised network input (B, 3, H, W) to (B, H, W, 3) uint8 RGB."""
    mean, std = (torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (MEAN, STD))
    rgb = (images.detach().float().cpu() * std + mean).clamp(0, 1) * 255
    return rgb.round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def draw_points(
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    weights: NDArray[np.float32] | None = None,
    scheme: Scheme | None = None,
) -> NDArray[np.uint8]:
    """Draw landmarks into a copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        points: (K, 2) in pixels of ``image``.
        weights: (K,); the colour goes from green (1) to orange (near 0). A landmark of weight 0 is not drawn.
        scheme: the scheme whose contours are drawn, between landmarks that have a weight.
    """
    canvas = image.copy()
    weights = np.ones(len(points), np.float32) if weights is None else weights
    pen, shown = Pen(canvas), np.where(weights[:, None] > 0, points, np.nan)
    for line in scheme.contours if scheme else ():
        pen.line(shown[list(line)], _LINE)
    for point, weight in zip(shown, weights, strict=True):
        red, green, blue = (round(float(weight * s + (1 - weight) * u)) for s, u in zip(_SURE, _UNSURE, strict=True))
        pen.point(point, (red, green, blue), _radius(image, len(points)))
    return canvas


def compare(
    images: NDArray[np.uint8],
    true: NDArray[np.float64],
    found: NDArray[np.float64],
    errors: NDArray[np.float64],
    scheme: Scheme,
    *,
    unit: str,
    columns: int = 6,
) -> NDArray[np.uint8]:
    """A sheet of faces with labelled and predicted points, in the given order, below a line that explains the colours.

    Args:
        images: (N, S, S, 3) uint8 RGB, at least one.
        true, found: (N, K, 2) labelled and predicted points in pixels of ``images``. A landmark with NaN in ``true``
            is not labelled and not drawn.
        errors: (N,) NME in percent, which is written on each face. Small faces are enlarged to about `SIDE` pixels.
        scheme: the scheme whose contours are drawn.
        unit: the distance that the errors are percent of.
        columns: number of faces in a row.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    cells = [
        _compared(image, t, f, error, scheme) for image, t, f, error in zip(images, true, found, errors, strict=True)
    ]
    below = sheet(cells, columns, gap=0)
    head = np.full((26, below.shape[1], 3), 255, np.uint8)
    for x, text, colour in (
        (6, "labelled", _LABELLED),
        (86, "predicted", _FOUND),
        (166, f"NME, % of {unit}", (0, 0, 0)),
    ):
        cv2.putText(head, text, (x, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
    return np.concatenate((head, below), 0)


def _compared(
    image: NDArray[np.uint8], true: NDArray[np.float64], found: NDArray[np.float64], error: float, scheme: Scheme
) -> NDArray[np.uint8]:
    if (times := round(SIDE / image.shape[1])) > 1:
        image = cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC).astype(np.uint8, copy=False)
        true, found = ((points + 0.5) * times - 0.5 for points in (true, found))
    canvas = image.copy()
    pen, known = Pen(canvas), np.asarray(np.isfinite(true).all(-1))
    kinds = ((true, _LABELLED), (np.where(known[:, None], found, np.nan), _FOUND))
    for points, colour in kinds:
        for line in scheme.contours:
            pen.line(points[list(line)], colour)
    for pair in zip(true, found, strict=True):
        pen.line(np.stack(pair), (230, 230, 230))
    radius = _radius(image, len(true))
    for (points, colour), share in zip(kinds, (1.0, 0.6), strict=True):  # a ring of the label is always seen
        for point in points:
            pen.point(point, colour, share * radius)
    pen.text(f"{error:.1f}" if np.isfinite(error) else "-", np.array((5.0, 16.0)), (255, 255, 255), 11)
    return canvas


def _radius(image: NDArray[np.uint8], landmarks: int) -> float:
    return max(1.0, image.shape[1] / 180) * larger(landmarks)


def preview(
    batch: Batch,
    scheme: Scheme | None = None,
    *,
    faces: int = 16,
    columns: int = 4,
    decimal_size: int = 8,
    integer_sigma: float = 1.5,
    decimal_sigma: float = 1.0,
    rounding: Rounding = "round",
) -> NDArray[np.uint8]:
    """A sheet of the first faces of a batch, with three pictures per face.

    The first picture is the crop with its landmarks (green to orange by weight) and contours. The second is the crop
    under the maximum of its integer target heatmaps, after masking. The third shows its decimal target heatmaps side by
    side, row by row in the order of the landmarks; those of weight 0 or outside the crop are grey.

    Args:
        batch: the result of `augment.augment`.
        scheme: the scheme whose contours are drawn.
        faces, columns: number of faces, and of faces in a row.
        decimal_size, integer_sigma, decimal_sigma, rounding: as in `heatmaps.encode`.

    Returns:
        (H, W, 3) uint8 RGB. `images.write_image` writes it to a file.

    Raises:
        ValueError: the batch is empty, or ``faces`` or ``columns`` is below 1.
    """
    if faces < 1 or columns < 1 or len(batch.images) == 0:
        raise ValueError(f"faces, columns are {faces}, {columns} for {len(batch.images)} faces, expected at least 1")
    crops = pixels(batch.images[:faces])
    points, weights = (t[:faces].detach().float().cpu() for t in (batch.points, batch.weights))
    size = crops.shape[1]
    target = encode(
        points / STRIDE, (size // STRIDE, size // STRIDE), decimal_size, integer_sigma, decimal_sigma, rounding
    )
    counts = target.mask & (weights > 0)
    integer = (target.integer * counts[..., None, None]).amax(1).numpy()
    tiles = []
    for n, crop in enumerate(crops):
        labelled = draw_points(crop, points[n].numpy(), weights[n].numpy(), scheme)
        heat = cv2.resize(integer[n], (size, size), interpolation=cv2.INTER_NEAREST)[..., None]
        glow = (crop * (0.6 * (1 - heat)) + np.array([255.0, 80.0, 40.0]) * heat).round().astype(np.uint8)
        tiles.append(np.concatenate((labelled, glow, _mosaic(target.decimal[n], counts[n], size)), 1))
    return sheet(tiles, columns)


def _mosaic(decimal: Tensor, counts: Tensor, size: int) -> NDArray[np.uint8]:
    """A picture (size, size, 3) of K maps (K, n, n) with lines between them."""
    per_row = math.ceil(math.sqrt(len(decimal)))
    n = decimal.shape[-1]
    canvas = np.full((per_row * (n + 1), per_row * (n + 1)), 40, np.uint8)
    for k, (cells, used) in enumerate(zip(decimal.numpy(), counts.tolist(), strict=True)):
        top, left = k // per_row * (n + 1), k % per_row * (n + 1)
        canvas[top : top + n, left : left + n] = (cells * 255).round() if used else 110
    grey = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_NEAREST)
    return np.repeat(grey[..., None], 3, axis=2)
