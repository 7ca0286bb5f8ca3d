"""`read_dataset`, which reads annotated faces in every supported format."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..crops import tight_box
from ..progress import warn
from ..schemes import Scheme, get_scheme
from .readers import READERS, Attribute, RawFace, detect
from .records import (
    BOX_ORDER,
    Dataset,
    Labels,
    Record,
    image_size,
    outside,
    placeholder_problem,
    spread_weights,
    stack_labels,
)
from .shapes import left_right_problem

__all__ = ["Attribute", "Dataset", "Labels", "Record", "read_dataset"]


def read_dataset(
    path: str | os.PathLike[str],
    scheme: str | Scheme,
    *,
    format: str | None = None,
    skip_bad: bool = False,
    full_spread: float = 0.012,
    check_sides: bool = True,
) -> Dataset:
    """Read annotated faces.

    Args:
        path: an annotation file or a folder; see `readers.detect`. The modules of `readers` describe the formats.
        scheme: the landmarks that the file holds: a built-in id, the path of a scheme file, or a `Scheme`.
        format: "coco", "pts", "wflw", "cofw" or "csv"; None: detected from the name of ``path``.
        skip_bad: leave out bad records and list them in `Dataset.skipped`. Without it the first bad record raises.
        full_spread: see `spread_weights`.
        check_sides: raise if the mirror table is clearly wrong, and warn of labels at 0, 0. False: `check.check`
            reports both.

    Raises:
        FileNotFoundError: the file, or the image of a record, does not exist.
        ValueError: the file or an image cannot be read; a count is wrong; a point lies further outside its image than
            one side of the face's box; a face has neither a box nor two points; a face occurs twice; there are no
            faces; or the mirror table is clearly wrong (`shapes.left_right_problem`). The message names the file and
            the record.

    Warns:
        UserWarning: the scheme has no mirror table; landmarks are labelled at 0, 0 or -1, -1; the boxes of a COCO file
            look like x1, y1, x2, y2; or the file says that images have the width of their height, as tools do that
            ignore the orientation of a photograph.

    Only the headers of the images are read here. `check.check` decodes the images.
    """
    target = get_scheme(scheme)
    source = Path(path)
    detected, file = detect(source) if format is None else (format, source)
    if detected not in READERS:
        raise ValueError(f"format is {format!r}, expected one of {sorted(READERS)}")
    records: list[Record] = []
    skipped: list[str] = []
    sizes: dict[Path, tuple[int, int]] = {}
    faces: dict[tuple[str, bytes], str] = {}
    turned: list[Path] = []
    for key, parse in READERS[detected](file, target):
        try:
            face = parse()
            record = _record(key, face, target, sizes, full_spread)
            if face.size not in (None, record.size):
                turned.append(record.image)
            first = faces.setdefault(_identity(record), key)
            if first != key:
                raise ValueError(f"is the same face as {first}")
        except (ValueError, TypeError, FileNotFoundError) as error:
            message = f"{key}: {error}"
            if not skip_bad:
                kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
                raise kind(message) from error
            skipped.append(message)
        else:
            records.append(record)
    if not records:
        reason = f"all {len(skipped)} are bad, the first: {skipped[0]}" if skipped else f"read as {detected}"
        raise ValueError(f"dataset: {file} holds no faces ({reason})")
    if target.mirror is None:
        warn(f"scheme {target.id!r} has no mirror table: training will not mirror faces")
    known, points, weights = stack_labels(records)
    if known and check_sides:
        lost = placeholder_problem(points, weights > 0)
        if problem := left_right_problem(points, weights > 0, target):
            raise ValueError(f"dataset: {file}: {problem}" + ("" if lost is None else f". {lost}"))
        if lost is not None:
            warn(f"dataset: {file}: {lost}")
    if detected == "coco" and (problem := _corners_problem(known)):
        warn(f"dataset: {file}: {problem}")
    if turned:
        warn(
            f"dataset: {file}: width and height of {len(turned)} images, such as {turned[0].name}, are exchanged in "
            "the file. The labels must lie on the image as it is displayed. Look at it: hih-align data check --sheet"
        )
    return Dataset(_name(source), target, tuple(records), source, tuple(skipped))


def _corners_problem(records: Sequence[Record]) -> str | None:
    """A message if most boxes of a COCO file seem to be x1, y1, x2, y2; None if all is well.

    A box x1, y1, x2, y2 that is read as x, y, width, height reaches too far to the right and down, and the landmarks
    lie in its upper left part. If the four numbers are read as corners, the box contains all landmarks. Correct boxes
    show both only if they start near the edge of the image and if the landmarks lie in the left part of the face.
    """
    corners, places = 0, []
    for record in records:
        if record.labels is None or record.labels.known.sum() < 3 or "annotated" not in record.boxes:
            continue
        x, y, right, bottom = record.boxes["annotated"]
        points = record.labels.points[record.labels.known]
        low, high = points.min(0), points.max(0)
        corners += bool((low >= (x - 1, y - 1)).all() and (high <= (right - x + 1, bottom - y + 1)).all())
        places.append(((low + high)[0] / 2 - x) / (right - x))
    if not corners > 0.9 * len(places) or not np.median(places) < 0.42:
        return None
    return (
        f"the bbox of {corners} of {len(places)} faces seems to be x1, y1, x2, y2, because the landmarks lie in the "
        "upper left part of the box. COCO's bbox is x, y, width, height. Look at it: hih-align data check --sheet"
    )


def _record(key: str, face: RawFace, scheme: Scheme, sizes: dict[Path, tuple[int, int]], full_spread: float) -> Record:
    size = sizes.get(face.image)
    if size is None:
        size = sizes[face.image] = image_size(face.image)
    if face.size is not None and face.size not in (size, size[::-1]):  # some tools ignore the EXIF orientation
        raise ValueError(f"image {str(face.image)!r} is {_by(size)}, the annotation says {_by(face.size)}")
    boxes = dict(face.boxes)
    for name, box in boxes.items():
        if not (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"box {name!r} is {box.tolist()}, expected x1 < x2 and y1 < y2")
    points, labels = face.points, None
    if points is not None and face.labelled is not None and face.labelled.any():
        if points.shape != (len(scheme), 2):
            raise ValueError(f"{len(points)} points, expected {len(scheme)} for scheme {scheme.id!r}")
        bad = np.flatnonzero(face.labelled & ~np.isfinite(points).all(-1))
        if len(bad):
            raise ValueError(f"landmark {bad[0]} is labelled at {points[bad[0]].tolist()}, expected finite numbers")
        weights = face.labelled.astype(np.float64)
        if face.spread is not None:
            if not (face.spread[face.labelled] >= 0).all():
                raise ValueError("spread is negative or missing for a labelled landmark")
            weights = np.where(face.labelled, spread_weights(np.nan_to_num(face.spread), full_spread), 0.0)
        labels = Labels(points, weights, face.spread)
        some = points[face.labelled]
        if len(some) > 1 and np.ptp(some, axis=0).max() > 0:
            boxes["landmarks"] = _with_area(tight_box(some))
        if boxes:
            given = max((float((box[2:] - box[:2]).max()) for box in face.boxes.values()), default=0.0)
            _not_far_outside(points, face.labelled, max(given, _side(some, size)), size)
    if not any(name in boxes for name in BOX_ORDER):
        count = 0 if labels is None else int(labels.known.sum())
        raise ValueError(f"the face has no box and {count} points, expected a box, or points at two places or more")
    return Record(face.image, labels, boxes, face.attributes, key, size)


def _with_area(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """A box whose width and height are at least a hundredth of its longer side: landmarks may lie on one line."""
    middle, sides = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    half = np.maximum(sides, sides.max() / 100) / 2
    return np.where(np.tile(sides >= sides.max() / 100, 2), box, np.concatenate((middle - half, middle + half)))


def _side(points: NDArray[np.float64], size: tuple[int, int]) -> float:
    """Longer side of the points. If most points lie inside the image, points outside it do not count."""
    inside = points[outside(points, size) == 0]
    some = inside if 2 * len(inside) >= len(points) and len(inside) > 1 else points
    return float(np.ptp(some, axis=0).max())


def _not_far_outside(
    points: NDArray[np.float64], labelled: NDArray[np.bool_], side: float, size: tuple[int, int]
) -> None:
    beyond = np.where(labelled, outside(np.where(labelled[:, None], points, 0.0), size), 0)
    worst = int(beyond.argmax())
    if beyond[worst] > max(side, 1.0):
        x, y = points[worst]
        raise ValueError(
            f"landmark {worst} at ({x:g}, {y:g}) is {beyond[worst]:g} px outside its {_by(size)} image, "
            f"more than the face's side of {side:g} px"
        )


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _name(source: Path) -> str:
    if source.is_dir():
        return source.resolve().name
    if source.suffix.lower() == ".json":  # such files have the same few names; their folder tells them apart
        folder = source.resolve().parent
        return folder.parent.name if folder.name == "annotations" else folder.name
    return source.stem


def _identity(record: Record) -> tuple[str, bytes]:
    if record.labels is None:
        return str(record.image), record.box.tobytes()
    return str(record.image), np.where(record.labels.known[:, None], record.labels.points, np.nan).tobytes()
