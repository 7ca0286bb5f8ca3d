"""WFLW's list files (https://wywu.github.io/projects/LAB/WFLW.html, README of ``WFLW_annotations``).

A line of ``list_98pt_rect_attr_{train,test}.txt`` is "coordinates of 98 landmarks (196) + coordinates of upper left
corner and lower right corner of detection rectangle (4) + attributes annotations (6) + image name (1)", that is
``x0 y0 ... x97 y97 x_min_rect y_min_rect x_max_rect y_max_rect pose expression illumination make-up occlusion blur
image_name``. A line of ``list_98pt_test*.txt`` has only the landmarks and the image name. Image names are relative to
``WFLW_images``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ...schemes import Scheme
from .face import Entry, RawFace, find_image, finite, numbers, read_text

#: The six attributes in the order of the file, each 0 or 1. "makeup" is the file's "make-up".
ATTRIBUTES = ("pose", "expression", "illumination", "makeup", "occlusion", "blur")


def read(path: Path, scheme: Scheme) -> Iterator[Entry]:
    """Yield the faces of a list file of any number of landmarks. The rectangle becomes the box "rect"."""
    folders = [
        folder / sub for folder in (path.parent, *path.resolve().parents[1:4]) for sub in ("WFLW_images", "images", "")
    ]
    for n, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield f"{path}#{n}", partial(_face, line, folders, scheme)


def _face(line: str, folders: list[Path], scheme: Scheme) -> RawFace:
    coordinates, fields = 2 * len(scheme), line.split()
    count = coordinates + (10 if len(fields) > coordinates + 10 else 0)
    name = line.strip().split(maxsplit=count)[-1]
    if len(fields) <= count or re.match(r"[-+.\d]+\s", name):  # too few fields, or too many
        raise ValueError(
            f"{len(fields)} fields, expected {coordinates + 11} for the {len(scheme)} landmarks of scheme "
            f"{scheme.id!r}: {coordinates} coordinates, 4 of the rectangle, 6 attributes, the image's name "
            f"(or coordinates and name only, {coordinates + 1})"
        )
    values = numbers(fields[:count], count, "the fields before the image's name")
    points = values[:coordinates].reshape(-1, 2)
    rect, attributes = values[coordinates : coordinates + 4], values[coordinates + 4 :]
    return RawFace(
        image=find_image(name, folders),
        points=points,
        labelled=finite(points),
        boxes={"rect": rect} if len(rect) else {},
        attributes={key: int(value) for key, value in zip(ATTRIBUTES, attributes, strict=False)},
    )
