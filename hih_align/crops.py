"""Crops: the affine map from a bounding box in the image to the network's input, and back.

Pixel centres lie at integers, in images and in crops. Pixels of a crop outside the image are black.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, cos, floor, radians, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Side of the input of the paper's networks, in pixels.
CROP_SIZE = 256

#: An image with more than this many pixels per crop pixel is first reduced by area averaging.
REDUCE_ABOVE = 1.5


@dataclass(frozen=True)
class Crop:
    """A square region of an image, and its map to a crop of ``size`` x ``size`` pixels.

    crop = R(-roll) (p - centre) * size / side + (size - 1) / 2, in pixels, where R is a rotation of the plane. For size
    256 the last term is 127.5.

    Attributes:
        x, y: centre in image pixels.
        side: side of the square in image pixels, positive.
        size: side of the crop in crop pixels.
        roll: clockwise rotation of the square about its centre, in degrees. A face with this roll is upright in the
            crop.
    """

    x: float
    y: float
    side: float
    size: int = CROP_SIZE
    roll: float = 0.0

    @property
    def scale(self) -> float:
        """Number of crop pixels per image pixel."""
        return self.size / self.side

    @property
    def turn(self) -> NDArray[np.float64]:
        """(2, 2) R(-roll): maps directions in the image to directions in the crop."""
        c, s = self._direction
        return np.array([[c, s], [-s, c]])

    @property
    def _direction(self) -> tuple[float, float]:
        """Cosine and sine of the roll."""
        return cos(radians(self.roll)), sin(radians(self.roll))

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(2, 3) affine from image pixels to crop pixels."""
        # by numbers, as in `warp`
        c, s = (self.scale * value for value in self._direction)
        half = (self.size - 1) / 2
        return np.array([[c, s, half - c * self.x - s * self.y], [-s, c, half + s * self.x - c * self.y]])

    def to_crop(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points (..., 2) from image pixels to crop pixels."""
        centre = np.array([self.x, self.y])
        return (np.asarray(points, np.float64) - centre) @ self.turn.T * self.scale + (self.size - 1) / 2

    def to_image(self, points: ArrayLike) -> NDArray[np.float64]:
        """Map points (..., 2) from crop pixels to image pixels; the inverse of `to_crop`."""
        half = (self.size - 1) / 2
        return (np.asarray(points, np.float64) - half) @ (self.turn / self.scale) + (self.x, self.y)


def square_crop(bbox: ArrayLike, ratio: float = 1.25, size: int = CROP_SIZE, roll: float = 0.0) -> Crop:
    """The square around the centre of a box. Its side is ``ratio`` times the longer side of the box.

    Args:
        bbox: (4,) x1, y1, x2, y2 in image pixels, x1 < x2 and y1 < y2.
        ratio: side of the square divided by the longer side of the box.
        size: side of the crop in pixels.
        roll: roll of the face, in degrees clockwise.
    """
    x1, y1, x2, y2 = (float(v) for v in np.asarray(bbox, np.float64))
    return Crop((x1 + x2) / 2, (y1 + y2) / 2, ratio * max(x2 - x1, y2 - y1), size, roll)


def tight_box(points: ArrayLike) -> NDArray[np.float64]:
    """(..., 4) the smallest boxes x1, y1, x2, y2 around landmarks (..., K, 2)."""
    p = np.asarray(points, np.float64)
    return np.concatenate((p.min(-2), p.max(-2)), -1)


def extended(boxes: ArrayLike, reach: Sequence[float]) -> NDArray[np.float64]:
    """Boxes (..., 4) whose left, top, right and bottom sides are moved outwards by ``reach`` times the longer side."""
    given = np.asarray(boxes, np.float64)
    side = (given[..., 2:] - given[..., :2]).max(-1, keepdims=True)
    return given + side * np.array([-reach[0], -reach[1], reach[2], reach[3]])


def fitting_box(points: ArrayLike, reach: Sequence[float] | None = None) -> NDArray[np.float64]:
    """(..., 4) the boxes that a network needs for faces with these landmarks (..., K, 2), see `Config.box`."""
    box = tight_box(points)
    return box if reach is None else extended(box, reach)


def reach_of(boxes: ArrayLike, tight: ArrayLike) -> tuple[float, float, float, float]:
    """How far boxes (N, 4) reach beyond the ``tight`` boxes (N, 4) of their points; medians, for `extended`."""
    given, own = np.asarray(boxes, np.float64), np.asarray(tight, np.float64)
    side = (own[:, 2:] - own[:, :2]).max(-1, keepdims=True)
    left, top, right, bottom = np.median((given - own) / side * (-1, -1, 1, 1), axis=0).tolist()
    return round(left, 4), round(top, 4), round(right, 4), round(bottom, 4)


def warp(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resample an image by an affine. Pixels outside the image are black.

    Args:
        image: (H, W, 3) uint8.
        matrix: (2, 3) affine from image pixels to output pixels (`Crop.matrix`, or another with rotation).
        size: side of the output in pixels.
        out: (size, size, 3) uint8, C-contiguous, to write into; None allocates one.

    Returns:
        (size, size, 3) uint8; ``out`` if it is given.

    If the output is more than `REDUCE_ABOVE` times smaller than the image, the image is first reduced by area averaging
    (``INTER_AREA``), which avoids aliasing. The half-pixel shift of this reduction becomes part of the affine. Then one
    bilinear ``cv2.warpAffine`` follows.
    """
    height, width = image.shape[:2]
    # plain Python numbers: for one face, NumPy would need more time for the matrices than OpenCV for the pixels
    (a, b, c), (d, e, f) = matrix.tolist()
    determinant = a * e - b * d
    reduction = abs(determinant) ** -0.5
    shrink = reduction if reduction > REDUCE_ABOVE else 1.0
    corners = [(u - c, v - f) for u in (0, size - 1) for v in (0, size - 1)]
    xs = [(e * u - b * v) / determinant for u, v in corners]
    ys = [(a * v - d * u) / determinant for u, v in corners]
    margin = 2 * shrink + 1
    # only the visible part: so huge photographs cost nothing, and OpenCV's limit of 32767 px has no effect
    x0, x1 = (min(max(x, 0), width) for x in (floor(min(xs) - margin), ceil(max(xs) + margin) + 1))
    y0, y1 = (min(max(y, 0), height) for y in (floor(min(ys) - margin), ceil(max(ys) + margin) + 1))
    output = np.empty((size, size, image.shape[2]), np.uint8) if out is None else out
    if x1 <= x0 or y1 <= y0:
        output[:] = 0
        return output
    part: NDArray[Any] = image[y0:y1, x0:x1]
    sx = sy = 1.0
    if shrink > 1:
        small = (max(1, round((x1 - x0) / shrink)), max(1, round((y1 - y0) / shrink)))
        sx, sy = small[0] / (x1 - x0), small[1] / (y1 - y0)
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
    # area averaging preserves pixel *edges*: q + 0.5 = (p - x0 + 0.5) * s
    left, top = 0.5 / sx - 0.5 + x0, 0.5 / sy - 0.5 + y0
    composed = np.array([[a / sx, b / sy, c + a * left + b * top], [d / sx, e / sy, f + d * left + e * top]])
    cv2.warpAffine(part, composed, (size, size), dst=output, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return output


def similarity(source: ArrayLike, target: ArrayLike) -> NDArray[np.float64]:
    """(2, 3) least-squares similarity (rotation, scale, shift) from ``source`` to ``target`` points, (n, 2) each."""
    z = np.asarray(source, np.float64) @ (1, 1j)
    w = np.asarray(target, np.float64) @ (1, 1j)
    zc = z - z.mean()
    a = (zc.conj() @ (w - w.mean())) / (zc.conj() @ zc).real
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def unmirrored(points: NDArray[Any], width: int, shift: float | NDArray[np.float64]) -> NDArray[Any]:
    """Map points (..., 2) from a mirrored picture to the original picture.

    Args:
        points: the points; their order is already that of the original picture (`Scheme.permutation`).
        width: width of the picture in pixels.
        shift: `Decoder.label_bias` in pixels of the picture; one number or (..., 1). In the mirrored picture it has the
            wrong sign, so it is corrected here.
    """
    return np.stack((width - 1 - points[..., 0] + 2 * shift, points[..., 1]), -1)
