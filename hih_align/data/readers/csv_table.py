"""CSV (RFC 4180) with a header: one line per face, with the name of the image and two columns per landmark.

Possible column names: ``<landmark>_x``, ``<landmark>_y`` with the names of the scheme; ``x_0 ... x_67, y_0 ...`` as in
OpenFace (https://github.com/TadasBaltrusaitis/OpenFace/wiki/Output-Format); ``original_0_x, original_0_y, ...`` as in
the lists of HRNet (https://github.com/HRNet/HRNet-Facial-Landmark-Detection); ``x0, y0, ...``; ``0_x, 0_y, ...``. The
numbers may also start at 1. Coordinates are 0-based pixels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ...schemes import Scheme
from .face import Attribute, Entry, RawFace, find_image, finite, numbers, read_text

_IMAGE = ("image", "image_name", "image_path", "file", "file_name", "filename", "path")
_BOX = ("x1", "y1", "x2", "y2")
_NUMBERED = ("x_{n}", "original_{n}_x", "{n}_x", "x{n}")


def read(path: Path, scheme: Scheme) -> Iterator[Entry]:
    """Yield the faces of a table whose columns are separated by commas, semicolons or tabs.

    A landmark is not labelled if its cell is empty or NaN, or if its ``v`` column (named like ``x`` and ``y``) is 0.
    The columns ``x1, y1, x2, y2`` are the box "annotated". All other columns become attributes, as numbers if possible.

    Raises:
        ValueError: the header lacks the image or a landmark of the scheme.
    """
    text = read_text(path)
    first = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    header = [name.strip() for name in next(rows, [])]
    image = next((name for name in _IMAGE if name in header), None)
    if image is None:
        raise ValueError(f"{path} has the columns {header[:8]}, expected a column of images, one of {list(_IMAGE)}")
    columns = _columns(header, scheme)
    if columns is None:
        raise ValueError(
            f"{path} has the columns {header[:8]}..., expected one pair for each of the {len(scheme)} landmarks of "
            f"scheme {scheme.id!r}: {scheme.names[0]}_x, {scheme.names[0]}_y or x_0, y_0 and so on"
        )
    for row in rows:
        if any(cell.strip() for cell in row):
            yield f"{path}#{rows.line_num}", partial(_face, header, row, image, columns, path.parent)


def _columns(header: Sequence[str], scheme: Scheme) -> list[tuple[str, str, str]] | None:
    """The names of the x, y and v column of each landmark."""
    layouts = [[f"{name}_x" for name in scheme.names]]
    for pattern in _NUMBERED:
        for first in (0, 1):
            more = {pattern.format(n=n) for n in (first - 1, len(scheme) + first)}
            if not more & set(header):
                layouts.append([pattern.format(n=n + first) for n in range(len(scheme))])
    for xs in layouts:
        triples = [(x, _axis(x, "y"), _axis(x, "v")) for x in xs]
        if all(x in header and y in header for x, y, _ in triples):
            return triples
    return None


def _axis(x: str, axis: str) -> str:
    return x[:-1] + axis if x.endswith("_x") else axis + x[1:]


def _face(
    header: Sequence[str], row: Sequence[str], image: str, columns: list[tuple[str, str, str]], folder: Path
) -> RawFace:
    if len(row) != len(header):
        raise ValueError(f"{len(row)} cells, expected {len(header)} as in the header")
    cells = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
    x, y = (numbers([cells[c[i]] for c in columns], len(columns), f"the {'xy'[i]} columns") for i in (0, 1))
    v = numbers([cells.get(c[2], "1") for c in columns], len(columns), "the v columns")
    points = np.stack((x, y), -1)
    used = {image, *(name for triple in columns for name in triple)}
    boxes = {}
    if all(name in cells and name not in used for name in _BOX):
        used |= set(_BOX)
        if any(cells[name] for name in _BOX):
            boxes["annotated"] = numbers([cells[name] for name in _BOX], 4, "x1, y1, x2, y2")
    return RawFace(
        image=find_image(cells[image], (folder, folder / "images")),
        points=points,
        labelled=finite(points) & (v > 0),
        boxes=boxes,
        attributes=_attributes({name: cell for name, cell in cells.items() if name not in used and cell}),
    )


def _attributes(cells: Mapping[str, str]) -> dict[str, Attribute]:
    found: dict[str, Attribute] = {}
    for name, cell in cells.items():
        try:
            found[name] = float(cell)
        except ValueError:
            found[name] = cell
    return found
