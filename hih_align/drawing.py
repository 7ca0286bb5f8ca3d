"""Drawing faces into pictures: points, contours, boxes, numbers and scores. Sizes follow the size of each face."""

from __future__ import annotations

import io
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import cv2
import numpy as np
import PIL.Image
import PIL.ImageColor
from numpy.typing import ArrayLike, NDArray

#: A name such as "lime", "#rrggbb", or red, green and blue from 0 to 255.
Colour: TypeAlias = str | tuple[int, int, int]

#: Colours of points with score 1 and score 0.
SURE, UNSURE = (80, 255, 80), (255, 40, 40)

_WHITE = (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22  # pixels of a capital letter at scale 1

# OpenCV takes subpixel positions as fixed-point numbers
_SHIFT = 4
_ONE = 1 << _SHIFT

#: A face smaller than this, in pixels, is drawn enlarged and then reduced, so that lines can be thinner than a pixel.
_LARGE = 300
#: Largest area that is enlarged at once, in pixels.
_AREA = 4_000_000


@dataclass(frozen=True)
class Style:
    """How faces are drawn. Sizes are in pixels of the picture; None: the size follows the size of each face.

    Attributes:
        lines: draw the contours of the scheme.
        boxes: draw the bounding boxes.
        labels: write the index of each landmark beside it.
        scores: write the score of each face above its box.
        ids: write the number of a followed face above its box.
        size: diameter of a point.
        thickness: thickness of contours and boxes.
        colour: colour of the points; None: from green (score 1) to red (score 0).
        line_colour: colour of contours, boxes and text.

    Raises:
        ValueError: a size or thickness is not positive, or a colour is unknown.
    """

    lines: bool = True
    boxes: bool = False
    labels: bool = False
    scores: bool = False
    ids: bool = True
    size: float | None = None
    thickness: float | None = None
    colour: Colour | None = None
    line_colour: Colour = _WHITE

    def __post_init__(self) -> None:
        for name in ("size", "thickness"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1000:
                raise ValueError(f"{name} is {value}, expected pixels, more than 0 and at most 1000")
        for name in ("colour", "line_colour"):
            value = getattr(self, name)
            if value is not None:
                rgb(value, name)


def rgb(colour: Colour, name: str = "colour") -> tuple[int, int, int]:
    """The red, green and blue of a colour, 0 to 255. ``name`` is the argument that errors name.

    Raises:
        ValueError: the name is unknown, or the value is not three whole numbers from 0 to 255.
    """
    expected = f"{name} is {colour!r}, expected a name such as 'lime', '#rrggbb', or three whole numbers from 0 to 255"
    if isinstance(colour, str):
        try:
            values: Sequence[Any] = PIL.ImageColor.getrgb(colour)[:3]
        except ValueError as error:
            raise ValueError(expected) from error
    else:
        values = colour
    try:
        red, green, blue = (operator.index(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(expected) from error
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(expected)
    return red, green, blue


def draw_face(
    canvas: NDArray[np.uint8],
    points: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    box: NDArray[np.floating[Any]],
    contours: Sequence[Sequence[int]],
    style: Style,
    number: int | None = None,
) -> None:
    """Draw one face into ``canvas``, in place.

    Args:
        canvas: (H, W, 3) uint8 RGB.
        points: (K, 2) x, y in pixels of the canvas, 0 at the centre of the first pixel. Points that are not finite are
            not drawn.
        scores: (K,) from 0 to 1.
        box: (4,) x1, y1, x2, y2 in pixels of the canvas.
        contours: sequences of point indices; lines join the points of a sequence.
        style: what is drawn, and how.
        number: the face's id, if it is followed.
    """
    words = [*([f"#{number}"] if style.ids and number is not None else [])]
    words += [f"{float(np.mean(scores)):.2f}"] if style.scores else []
    side = _side(points, canvas)
    radius = max(larger(len(points)) * side / 110, 0.5) if style.size is None else style.size / 2
    width = max(side / 300, 0.35) if style.thickness is None else style.thickness
    text = max(side / 14, 7.0)
    corners = box if style.boxes or words else None
    left, top, right, bottom = _region(canvas, points, corners, margin=2 * max(radius, width) + 3 * text)
    if left >= right or top >= bottom:
        return
    part = canvas[top:bottom, left:right]
    area = max(part.shape[0] * part.shape[1], 1)
    times = max(1, min(8, round(_LARGE / max(side, 1)), int((_AREA / area) ** 0.5)))
    # each pixel becomes a square of equal pixels, and their mean is the pixel again: other parts stay unchanged
    large = part if times == 1 else np.repeat(np.repeat(part, times, 0), times, 1)
    pen = Pen(large, np.array((left, top)), times)
    line = rgb(style.line_colour)
    if style.boxes:
        pen.line(box[[[0, 1], [2, 1], [2, 3], [0, 3], [0, 1]]], line, width)
    if style.lines:
        for contour in contours:
            pen.line(points[list(contour)], line, width)
    fixed = None if style.colour is None else rgb(style.colour)
    for point, score in zip(points, scores, strict=True):
        pen.point(point, fixed or by_score(float(score)), radius)
    if style.labels:
        height = max(side / 40, 4.0)
        beside = np.array((radius + 0.2 * height, -0.2 * height))
        for index, point in enumerate(points):
            pen.text(str(index), point + beside, line, height)
    if words:
        above = box[1] > 1.6 * text  # there is room above the box; otherwise write inside it
        place = box[:2] + np.array((0.0, -0.4 * text if above else 1.4 * text))
        pen.text(" ".join(words), place, line, text)
    if times > 1:
        part[:] = cv2.resize(large, part.shape[1::-1], interpolation=cv2.INTER_AREA)


def sketch(
    points: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    contours: Sequence[Sequence[int]],
    side: int = 256,
) -> NDArray[np.uint8]:
    """(side, side, 3) uint8 RGB: the points and contours of one face, scaled to fit, without the photograph."""
    canvas = np.full((side, side, 3), 40, np.uint8)
    known = points[np.isfinite(points).all(-1)]
    if len(known):
        low, high = known.min(0), known.max(0)
        scale = 0.86 * side / max(float((high - low).max()), 1e-6)
        placed = (points - (low + high) / 2) * scale + (side - 1) / 2
        draw_face(canvas, placed, scores, np.zeros(4), contours, Style())
    return canvas


def larger(count: int) -> float:
    """Factor by which the points of a face are enlarged: few landmarks are hard to see at the size of 68.

    Args:
        count: number of landmarks, at least one.
    """
    return min(max((68 / count) ** 0.5, 1.0), 3.0)


def sheet(
    tiles: Sequence[NDArray[np.uint8]], columns: int = 4, gap: int = 4, background: int = 255
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: pictures of equal size in rows of ``columns``, on a grey ``background`` (0 to 255)."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].shape[:2]
    result = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), background, np.uint8)
    for n, tile in enumerate(tiles):
        top, left = n // columns * (height + gap), n % columns * (width + gap)
        result[top : top + height, left : left + width] = tile
    return result


def png(picture: NDArray[np.uint8]) -> bytes:
    """The content of a PNG file of a picture (H, W, 3) uint8 RGB."""
    data = io.BytesIO()
    PIL.Image.fromarray(picture).save(data, "PNG")
    return data.getvalue()


class Pen:
    """Draws into a picture, in place and at subpixel positions. Points that are not finite are not drawn.

    Args:
        canvas: (H, W, 3) uint8 RGB: the whole picture or an enlarged part of it.
        offset: (2,) the first pixel of the part.
        times: the factor of the enlargement. Coordinates and sizes are always in pixels of the whole picture.
    """

    def __init__(self, canvas: NDArray[np.uint8], offset: ArrayLike = (0, 0), times: int = 1) -> None:
        self._canvas, self._offset, self._times = canvas, np.asarray(offset).tolist(), times

    def line(self, points: NDArray[np.floating[Any]], colour: tuple[int, int, int], width: float = 1) -> None:
        """Draw lines that join points (N, 2) in their order, ``width`` pixels wide."""
        thickness = max(1, round(width * self._times))
        for a, b in pairwise(points.tolist()):
            if all(map(math.isfinite, (*a, *b))):
                ends = self._fixed(a), self._fixed(b)
                cv2.line(self._canvas, *ends, colour, thickness, cv2.LINE_AA, _SHIFT)

    def point(self, point: NDArray[np.floating[Any]], colour: tuple[int, int, int], radius: float) -> None:
        """Draw a disc."""
        centre = point.tolist()
        if all(map(math.isfinite, centre)):
            size = round(radius * self._times * _ONE)
            cv2.circle(self._canvas, self._fixed(centre), size, colour, -1, cv2.LINE_AA, _SHIFT)

    def text(self, text: str, point: NDArray[np.floating[Any]], colour: tuple[int, int, int], height: float) -> None:
        """Write text of this height with a dark outline; ``point`` is its lower left corner."""
        corner = point.tolist()
        if not all(map(math.isfinite, corner)):
            return
        x, y = (value >> _SHIFT for value in self._fixed(corner))
        scale = height * self._times / _FONT_HEIGHT
        thickness = max(1, round(2 * scale))
        for tone, more in (((0, 0, 0), 2 * max(1, thickness)), (colour, 0)):
            cv2.putText(self._canvas, text, (x, y), _FONT, scale, tone, thickness + more, cv2.LINE_AA)

    def _fixed(self, point: Sequence[float]) -> tuple[int, int]:
        # numbers of Python, because arrays of two numbers are slow; enlarging preserves pixel edges, not centres
        x, y = (
            ((min(max(value, -1e6), 1e6) - start + 0.5) * self._times - 0.5) * _ONE
            for value, start in zip(point, self._offset, strict=True)
        )
        return round(x), round(y)


def by_score(score: float) -> tuple[int, int, int]:
    """Red, green and blue of a point of that score: `SURE` at 1, `UNSURE` at 0 and for what is not finite."""
    share = min(max(score, 0.0), 1.0) if math.isfinite(score) else 0.0
    red, green, blue = (round(share * sure + (1 - share) * unsure) for sure, unsure in zip(SURE, UNSURE, strict=True))
    return red, green, blue


def _side(points: NDArray[np.floating[Any]], canvas: NDArray[np.uint8]) -> float:
    """Longer side of the box of the points, limited so that OpenCV can draw lines for it."""
    known = points[np.isfinite(points).all(-1)]
    side = float(np.ptp(known, axis=0).max()) if len(known) else 0.0
    return min(side, 10.0 * max(canvas.shape))


def _region(
    canvas: NDArray[np.uint8],
    points: NDArray[np.floating[Any]],
    box: NDArray[np.floating[Any]] | None,
    margin: float,
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the part of the canvas that the points and, if given, the box cover."""
    places = np.concatenate([points, *([] if box is None else [box.reshape(2, 2)])])
    places = places[np.isfinite(places).all(-1)]
    if not len(places):
        return 0, 0, 0, 0
    low = np.clip(np.floor(places.min(0) - margin), 0, canvas.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(places.max(0) + margin) + 1, 0, canvas.shape[1::-1]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
