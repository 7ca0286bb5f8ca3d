"""Bounding boxes: reading files of boxes (COCO JSON, or CSV lines ``file,x1,y1,x2,y2``) and checking given boxes."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .crops import tight_box
from .roll import upright_box
from .tensors import is_tensor

#: Names of the columns of a box in a CSV file.
SIDES = ("x1", "y1", "x2", "y2")


def read_boxes(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]]:
    """Read a file of bounding boxes.

    Args:
        path: COCO JSON (``images`` with ``file_name``, ``annotations`` with ``bbox`` x, y, width, height), or CSV with
            one line ``file,x1,y1,x2,y2`` per face. A header line may name these columns and others, such as the
            detector's scores, which are left out. The file is the first column. Comments (#) are skipped.

    Returns:
        (N, 4) boxes x1, y1, x2, y2 by file name, in the order of the file.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another form; the message names the line or the annotation.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"boxes: no such file: {source}")
    try:
        text = source.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"boxes: {source} is not text: {error}") from error
    found = _coco(text, source) if text.lstrip().startswith(("{", "[")) else _csv(text, source)
    return {name: np.array(boxes, np.float64).reshape(-1, 4) for name, boxes in found.items()}


def _coco(text: str, source: Path) -> dict[str, list[list[float]]]:
    try:
        data: Any = json.loads(text)
        names = {image["id"]: str(image["file_name"]) for image in data["images"]}
        found: dict[str, list[list[float]]] = {name: [] for name in names.values()}
        annotations = list(data["annotations"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"boxes: {source} is not COCO JSON ({error!r}), expected images and annotations") from error
    for number, annotation in enumerate(annotations):
        try:
            x, y, width, height = (float(value) for value in annotation["bbox"])
            found[names[annotation["image_id"]]].append([x, y, x + width, y + height])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"boxes: {source}, annotation {number}: {error!r}, expected image_id and bbox") from error
    return found


def _csv(text: str, source: Path) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = {}
    header_possible = True
    columns: Sequence[int] = range(1, 5)
    count = 5
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise ValueError(f"boxes: {source} is not CSV: {error}") from error
    for number, row in enumerate(rows, 1):
        if not row or row[0].lstrip().startswith("#"):
            continue
        names = [cell.strip().lower() for cell in row]
        if header_possible and all(names[1:].count(side) == 1 for side in SIDES):
            header_possible, columns, count = False, [names.index(side, 1) for side in SIDES], len(row)
            continue
        header_possible = False
        try:
            if len(row) != count:
                raise ValueError
            box = [float(row[column]) for column in columns]
        except ValueError:
            more = ". A header line names further columns" if len(row) > count else ""
            raise ValueError(
                f"boxes: {source}, line {number} is {','.join(row)!r}, expected file,x1,y1,x2,y2{more}"
            ) from None
        found.setdefault(row[0].strip(), []).append(box)
    return found


def check_boxes(bbox: ArrayLike, image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], bool]:
    """Check boxes. Returns them as (N, 4), and whether ``bbox`` was one box of shape (4,)."""
    plain = numbers(bbox, "bbox")
    try:
        boxes = np.asarray(plain)
    except ValueError as error:
        raise ValueError(f"bbox is ragged, expected shape (4,) or (N, 4): {error}") from error
    if boxes.size == 0:
        if boxes.ndim == 1 or (boxes.ndim == 2 and boxes.shape[1] == 4):
            return np.zeros((0, 4)), False
        raise ValueError(f"bbox has shape {boxes.shape}, expected (4,) or (N, 4)")
    if boxes.dtype.kind not in "iuf":
        raise TypeError(f"bbox has dtype {boxes.dtype}, expected numbers")
    if boxes.ndim not in (1, 2) or boxes.shape[-1] != 4:
        raise ValueError(f"bbox has shape {boxes.shape}, expected (4,) or (N, 4){_hint(boxes.shape)}")
    height, width = image.shape[:2]
    single = boxes.ndim == 1
    boxes = boxes.reshape(-1, 4).astype(np.float64)
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        side = max(x2 - x1, y2 - y1)
        if x1 < x2 and y1 < y2 and 1 <= side <= 1e7 and _touches((x1, y1, x2, y2), width, height):
            continue
        name = "bbox" if single else f"bbox {index}"
        values = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
        if not np.isfinite([x1, y1, x2, y2]).all():
            raise ValueError(f"{name} is {values}, expected finite x1, y1, x2, y2")
        if x2 <= x1 or y2 <= y1:
            raise ValueError(f"{name} is {values}, expected x1 < x2 and y1 < y2 (not x, y, width, height)")
        if not 1 <= side <= 1e7:
            raise ValueError(
                f"{name} is {values} with a longer side of {side:g}, expected 1 to 1e7 pixels (no fractions)"
            )
        raise ValueError(f"{name} is {values}, which lies outside the image of {width} x {height} pixels")
    return boxes, single


def numbers(values: Any, name: str) -> Any:
    """``values`` with its tensors, also those in lists, on the CPU: NumPy takes no tensor with gradient or on a GPU.

    ``name`` is the argument that errors name.
    """
    if is_tensor(values):
        if values.is_meta:
            raise TypeError(f"{name} is a tensor on the meta device, which holds no values")
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()  # NumPy has no bfloat16
    if np.ma.is_masked(values):
        raise ValueError(f"{name} is a masked array with masked values, expected numbers: leave out the masked ones")
    if isinstance(values, (list, tuple)):
        return [numbers(value, name) for value in values]
    return values


def _hint(shape: tuple[int, ...]) -> str:
    """A hint for rows of more than four numbers, as most detectors give them."""
    if len(shape) not in (1, 2) or shape[-1] < 5:
        return ""
    first = "boxes[:4]" if len(shape) == 1 else "boxes[:, :4]"
    return f": if the first four are x1, y1, x2, y2 and the rest are scores, then pass {first}"


def check_rolls(roll: ArrayLike | None, count: int) -> NDArray[np.float64]:
    """Check rolls. Returns (N,) degrees for N faces; None means upright faces (0)."""
    if roll is None:
        return np.zeros(count)
    plain = numbers(roll, "roll")
    try:
        rolls = np.asarray(plain, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"roll is {roll!r}, expected degrees: {error}") from error
    if rolls.shape not in ((), (count,)):
        raise ValueError(f"roll has shape {rolls.shape}, expected one number or ({count},), one for each box")
    if not np.isfinite(rolls).all():
        raise ValueError(f"roll is {roll!r}, expected finite degrees")
    return np.broadcast_to(rolls, (count,))


def _touches(box: Sequence[float], width: int, height: int) -> bool:
    # a pixel reaches half a pixel beyond its centre
    return box[2] > -0.5 and box[3] > -0.5 and box[0] < width - 0.5 and box[1] < height - 0.5


def next_box(
    box: NDArray[np.float64],
    points: NDArray[np.float64],
    image: NDArray[np.uint8],
    roll: float = 0.0,
    reach: Sequence[float] | None = None,
) -> NDArray[np.float64]:
    """The box for the next pass: the box of the points, in the frame of a face with this roll.

    ``reach`` (`Config.box`) extends the box as `crops.extended` does. If the points have collapsed or lie outside the
    image, the result is ``box``.
    """
    own, tight = upright_box(points, roll, reach), tight_box(points)
    usable = (own[2:] - own[:2]).min() >= 1 and _touches(tight.tolist(), image.shape[1], image.shape[0])
    return own if usable else box
