"""Searching an image in several sizes: cut it into tiles, pack the tiles into squares, and merge the results.

A network for faces of about 10 to 300 pixels finds faces of any size if it sees the image in several sizes. Its input
is always a square of the same side, because some engines accept no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

#: Side of the squares that the network sees, in pixels.
CANVAS = 640

#: Overlap of the tiles of one size, in pixels. A smaller face lies completely in one of them.
OVERLAP = 128

#: A box closer to the edge of a tile than this, in pixels, is cut off by the edge.
CUT = 2

#: Number of black pixels between two tiles of a square.
GAP = 16

#: Two sizes that differ by a smaller factor count as one: the second would show nothing new.
STEP = 1.5

#: Two boxes are of the same face if they share more than this of their union, or of the smaller box.
SAME_UNION, SAME_SMALLER = 0.3, 0.7


@dataclass(frozen=True)
class Tile:
    """A part of the image in one size, and its place in a square.

    Attributes:
        scale: pixels of this size per image pixel.
        x, y: the corner of the part, in pixels of this size.
        width, height: size of the part.
        left, top: its place in the square.
        inner: (4,) whether its left, top, right and bottom edge lies inside the image. A face that touches such an edge
            is cut off here; a neighbouring tile or a smaller size shows the whole face.
    """

    scale: float
    x: int
    y: int
    width: int
    height: int
    left: int
    top: int
    inner: tuple[bool, bool, bool, bool]


def plan(height: int, width: int, sizes: Sequence[int]) -> list[list[Tile]]:
    """The squares that the network must see.

    Args:
        height, width: size of the image.
        sizes: longer sides, in pixels, in which the image is searched. The image is never enlarged.

    Returns:
        For each square its tiles.
    """
    longer = max(height, width)
    scales: list[float] = []
    for size in sorted(sizes):
        scale = min(1.0, size / longer)
        if not scales or scale >= STEP * scales[-1]:
            scales.append(scale)
    parts = [part for scale in scales for part in _tiles(height, width, scale)]
    squares: list[list[Tile]] = []
    for part in sorted(parts, key=lambda tile: -tile.width * tile.height):
        for square in squares:
            if (placed := _beside(part, square)) is not None:
                square.append(placed)
                break
        else:
            squares.append([part])
    return squares


def _tiles(height: int, width: int, scale: float) -> Iterator[Tile]:
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    for top, bottom in _cuts(high):
        for left, right in _cuts(wide):
            inner = left > 0, top > 0, right < wide, bottom < high
            yield Tile(scale, left, top, right - left, bottom - top, 0, 0, inner)


def _cuts(length: int) -> list[tuple[int, int]]:
    """First and last + 1 pixel of the tiles along one side, evenly spaced."""
    count = 1 if length <= CANVAS else -(-(length - OVERLAP) // (CANVAS - OVERLAP))
    side = min(length, CANVAS)
    starts = np.linspace(0, length - side, count).round().astype(int)
    return [(int(start), int(start) + side) for start in starts]


def _beside(tile: Tile, square: Sequence[Tile]) -> Tile | None:
    """The tile, placed to the right of the tiles in the square, or below them; None if there is no room."""
    right = max(t.left + t.width for t in square) + GAP
    bottom = max(t.top + t.height for t in square) + GAP
    if right + tile.width <= CANVAS:
        return Tile(**{**vars(tile), "left": right})
    if bottom + tile.height <= CANVAS:
        return Tile(**{**vars(tile), "top": bottom})
    return None


def paint(image: NDArray[np.uint8], squares: Sequence[Sequence[Tile]]) -> Iterator[NDArray[np.uint8]]:
    """Yield each square, (640, 640, 3) uint8 BGR, of an RGB image. It is black outside its tiles."""
    resized: dict[float, NDArray[np.uint8]] = {}
    for square in squares:
        canvas = np.zeros((CANVAS, CANVAS, 3), np.uint8)
        for tile in square:
            if tile.scale not in resized:
                resized[tile.scale] = _shrunk(image, tile.scale)
            part = resized[tile.scale][tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
            canvas[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = part[..., ::-1]
        yield canvas


def _shrunk(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    if scale == 1:
        return image
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def to_image(
    boxes: NDArray[np.float64], points: NDArray[np.float64], square: Sequence[Tile], keep: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map the results in a square to image pixels.

    Args:
        boxes: (N, 4) in pixels of the square.
        points: (N, 5, 2) in pixels of the square.
        square: its tiles.
        keep: (N,); it is set to False for a box that lies in no tile, or that an edge inside the image cuts off.
    """
    boxes, points = boxes.copy(), points.copy()
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    home = np.full(len(boxes), -1)
    for number, tile in enumerate(square):
        corner = np.array((tile.left, tile.top))
        extent = np.array((tile.width, tile.height))
        here = ((centre >= corner) & (centre < corner + extent)).all(1)
        home[here] = number
        low, high = boxes[:, :2] - corner, corner + extent - boxes[:, 2:]
        cut = (np.concatenate((low, high), 1) < CUT) & np.array(tile.inner)
        keep[here & cut.any(1)] = False
        shift = np.array((tile.x, tile.y)) - corner
        # resizing an image preserves the places of pixel edges
        boxes[here] = (boxes[here] + np.tile(shift, 2) + 0.5) / tile.scale - 0.5
        points[here] = (points[here] + shift + 0.5) / tile.scale - 0.5
    keep[home < 0] = False
    return boxes, points


def merged(boxes: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the boxes that remain if each face keeps its box with the best score; the best first.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        scores: (N,).
    """
    left = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left):
        first, left = int(left[0]), left[1:]
        kept.append(first)
        union, smaller = overlap(boxes[first], boxes[left])
        left = left[(union <= SAME_UNION) & (smaller <= SAME_SMALLER)]
    return np.array(kept, np.intp)


def overlap(box: NDArray[np.float64], others: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Overlap (N,) of a box with each of N others: as a share of the union, and as a share of the smaller box."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = sides.clip(0).prod(1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(1)
    return common / (area + areas - common), common / np.minimum(area, areas)
