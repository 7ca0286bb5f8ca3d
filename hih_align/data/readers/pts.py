"""Folders of images and ``.pts`` files, as 300-W is distributed (https://ibug.doc.ic.ac.uk/resources/300-W/).

A file has the lines ``version: 1``, ``n_points: 68``, ``{``, one line ``x y`` per landmark, and ``}``. The format is
loosely defined. Coordinates are 1-based (a 480 x 480 image has 1 to 480). This is documented by the ``PTSImporter`` of
menpo (github.com/menpo/menpo, menpo/io/input/landmark.py), whose group made these annotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np

from ...schemes import Scheme
from .face import Entry, RawFace, finite, numbers, read_text

_IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read(path: Path, scheme: Scheme) -> Iterator[Entry]:
    """Yield the faces of every ``.pts`` file below a folder, or of one file. The image has the same name.

    Coordinates are converted to 0-based pixels. A landmark with NaN is not labelled.
    """
    images = cache(_images)
    for file in sorted(path.rglob("*.pts")) if path.is_dir() else [path]:
        yield str(file), partial(lambda file: _face(file, images(file.parent), scheme), file)


def _images(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in _IMAGES:
            found.setdefault(file.stem, []).append(file)
    return found


def _face(file: Path, images: dict[str, list[Path]], scheme: Scheme) -> RawFace:
    head, brace, rest = read_text(file).partition("{")
    body, end, _ = rest.partition("}")
    if not brace or not end:
        raise ValueError("the file has no '{ ... }' around the points")
    rows = [line.split() for line in body.splitlines() if line.strip()]
    header = dict(line.split(":", 1) for line in head.splitlines() if ":" in line)
    announced = header.get("n_points", str(len(rows))).strip()
    if announced != str(len(rows)) or len(rows) != len(scheme):
        raise ValueError(f"{len(rows)} points, n_points says {announced}, scheme {scheme.id!r} has {len(scheme)}")
    points = np.stack([numbers(row, 2, f"line {row}") for row in rows]) - 1
    pictures = images.get(file.stem, [])
    if not pictures:
        raise FileNotFoundError(f"no image {file.stem}.* beside it, expected one such as {file.with_suffix('.jpg')}")
    if len(pictures) > 1:
        raise ValueError(f"several images beside it, expected one: {[p.name for p in pictures]}")
    return RawFace(pictures[0], points, finite(points))
