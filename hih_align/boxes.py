"""Files that say where the faces of a folder are: COCO JSON, or CSV lines ``file,x1,y1,x2,y2``."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_boxes(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float64]]:
    """Boxes of each image, in the file's order.

    Args:
        path: COCO JSON (``images`` with ``file_name``, ``annotations`` with ``bbox`` x, y, width, height), or CSV
            with a line ``file,x1,y1,x2,y2`` per face; a header line and comments (#) are skipped.

    Returns:
        (N, 4) x1, y1, x2, y2 by file name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another form, naming the line or annotation.
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
        raise ValueError(f"boxes: {source} is not COCO JSON ({error!r}): it needs images and annotations") from error
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
    try:
        rows = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise ValueError(f"boxes: {source} is not CSV: {error}") from error
    for number, row in enumerate(rows, 1):
        if not row or row[0].lstrip().startswith("#"):
            continue
        try:
            x1, y1, x2, y2 = (float(value) for value in row[1:])
        except ValueError:
            if header_possible and [cell.strip().lower() for cell in row[1:]] == ["x1", "y1", "x2", "y2"]:
                header_possible = False
                continue
            raise ValueError(
                f"boxes: {source}, line {number} is {','.join(row)!r}, expected file,x1,y1,x2,y2"
            ) from None
        header_possible = False
        found.setdefault(row[0].strip(), []).append([x1, y1, x2, y2])
    return found
