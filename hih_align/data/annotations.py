"""Annotated faces: a record for each face, a data set of records, and one function that reads every format."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ExifTags

from ..crops import tight_box
from ..schemes import Scheme, get_scheme
from .readers import READERS, Attribute, RawFace, detect
from .shapes import left_right_problem

__all__ = ["Attribute", "Dataset", "Record", "image_size", "outside", "read_dataset", "spread_weights"]

#: `Record.box` is the first of these that a record has.
_BOX_ORDER = ("annotated", "landmarks", "rect")


@dataclass(frozen=True, eq=False, repr=False)
class Record:
    """One face.

    Attributes:
        image: the image file.
        points: (K, 2) float64 pixels of the image, 0 at the centre of the first; may lie outside, and hold anything
            where the weight is 0. None for a face without points, which serves self-training only.
        weights: (K,) float64 in [0, 1], 0 where not labelled; None with points.
        boxes: (4,) x1, y1, x2, y2 by name: "annotated" where the file gives the face's box, "landmarks" around the
            labelled points where there are two or more, "rect" where the file gives a detector's. At least one.
        attributes: what else the file says ("pose", "occlusion", "id", ...).
        key: file and number or id in it, for messages; no two of a dataset alike.
        size: the image's width and height; None where unknown.
        spread: (K,) float64 deviation of the labels as a share of the box's longer side, where a machine made them and
            says so; None: made by hand.
    """

    image: Path
    points: NDArray[np.float64] | None
    weights: NDArray[np.float64] | None
    boxes: Mapping[str, NDArray[np.float64]]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    key: str = ""
    size: tuple[int, int] | None = None
    spread: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        labelled = 0 if self.weights is None else int((self.weights > 0).sum())
        return f"Record({self.key or self.image.name!r}, {labelled} points labelled, boxes {sorted(self.boxes)})"

    @property
    def box(self) -> NDArray[np.float64]:
        """(4,) the box "annotated" where there is one, else "landmarks", else "rect"."""
        return self.boxes[next(name for name in _BOX_ORDER if name in self.boxes)]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Faces of one source.

    Attributes:
        name: of the file or its folder.
        scheme: the landmarks; its ``mirror`` is None where unknown, and then nothing may be mirrored.
        records: the faces, at least one.
        source: the file or folder read.
        skipped: one message for each bad record that was left out.
        chosen: the condition that `where` chose the records by, in words; None where they are all there.
    """

    name: str
    scheme: Scheme
    records: tuple[Record, ...]
    source: Path
    skipped: tuple[str, ...] = ()
    chosen: str | None = None

    def __repr__(self) -> str:
        some = "" if self.chosen is None else f" with {self.chosen}"
        return f"Dataset({self.name!r}, {len(self)} faces{some}, {len(self.scheme)} points of {self.scheme.id})"

    def __len__(self) -> int:
        return len(self.records)

    def where(self, condition: Callable[[Record], bool]) -> Dataset:
        """The faces for which a condition holds, such as ``Where("id%3==0")``.

        Raises:
            ValueError: there are none; or as the condition raises it.
        """
        records = tuple(record for record in self.records if condition(record))
        text = getattr(condition, "text", "chosen by a function")
        if not records:
            raise ValueError(f"dataset {self.name!r} has no face for which {text!r} holds")
        return replace(self, records=records, chosen=text)


def read_dataset(
    path: str | os.PathLike[str],
    scheme: str | Scheme,
    *,
    format: str | None = None,
    skip_bad: bool = False,
    full_spread: float = 0.012,
) -> Dataset:
    """Read annotated faces.

    Args:
        path: an annotation file, or a folder: see `readers.detect`; the formats are described in `readers`' modules.
        scheme: the landmarks that the file holds: a built-in scheme's id, a user's scheme file, or a `Scheme`.
        format: "coco", "pts", "wflw", "cofw" or "csv"; by the name of ``path`` if None.
        skip_bad: leave bad records out and list them in `Dataset.skipped`, instead of raising for the first.
        full_spread: see `spread_weights`.

    Raises:
        FileNotFoundError: no such file, or a record's image is missing.
        ValueError: an unreadable file or image, wrong counts, a point further outside its image than one side of the
            face's box, a face without points and box, the same face twice, no faces at all, or a mirror table that is
            clearly wrong (`shapes.left_right_problem`). Messages name file and record.

    Warns:
        UserWarning: the scheme has no mirror table.

    Images are opened, not decoded: `check.check` does.
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
    for key, parse in READERS[detected](file, target):
        try:
            record = _record(key, parse(), target, sizes, full_spread)
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
        warnings.warn(f"scheme {target.id!r} has no mirror table: no face is mirrored in training", stacklevel=2)
    known = [r for r in records if r.points is not None and r.weights is not None]
    if known:
        points = np.stack([r.points for r in known if r.points is not None])
        weights = np.stack([r.weights for r in known if r.weights is not None])
        if problem := left_right_problem(points, weights > 0, target):
            raise ValueError(f"dataset: {file}: {problem}")
    return Dataset(_name(source), target, tuple(records), source, tuple(skipped))


def spread_weights(spread: NDArray[np.float64], full: float = 0.012, least: float = 0.15) -> NDArray[np.float64]:
    """Weights of points from how unsure they are: ``full`` / spread, at most 1 and at least ``least``.

    Args:
        spread: deviation of a point's label, as a share of the box's longer side (``shared/data``).
        full: up to this spread a point has weight 1.
        least: the smallest weight.
    """
    return np.clip(full / np.maximum(spread, 1e-9), least, 1.0)


def outside(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """(..., 2) points -> (...) how far beyond the edge of a ``size`` = (width, height) image, in pixels; 0 inside."""
    beyond = np.maximum(-0.5 - points, points - (np.array(size) - 0.5))
    return np.maximum(beyond, 0).max(-1)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as `images.read_image` gives it, without decoding it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an image.
    """
    try:
        with PIL.Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {str(path)!r} does not exist") from error
    except Exception as error:  # Pillow raises whatever it meets, as in `images`
        raise ValueError(f"image {str(path)!r} cannot be read: {error}") from error
    return (height, width) if turned else (width, height)


def _record(key: str, face: RawFace, scheme: Scheme, sizes: dict[Path, tuple[int, int]], full_spread: float) -> Record:
    size = sizes.get(face.image)
    if size is None:
        size = sizes[face.image] = image_size(face.image)
    if face.size is not None and face.size not in (size, size[::-1]):  # some tools ignore EXIF's orientation
        raise ValueError(f"image {str(face.image)!r} is {_by(size)}, annotated as {_by(face.size)}")
    boxes = dict(face.boxes)
    for name, box in boxes.items():
        if not (np.isfinite(box).all() and box[0] < box[2] and box[1] < box[3]):
            raise ValueError(f"box {name!r} is {box.tolist()}, expected x1 < x2 and y1 < y2")
    points, weights = face.points, None
    if points is not None and face.labelled is not None and face.labelled.any():
        if points.shape != (len(scheme), 2):
            raise ValueError(f"{len(points)} points, scheme {scheme.id!r} has {len(scheme)}")
        bad = np.flatnonzero(face.labelled & ~np.isfinite(points).all(-1))
        if len(bad):
            raise ValueError(f"landmark {bad[0]} is labelled at {points[bad[0]].tolist()}")
        weights = face.labelled.astype(np.float64)
        if face.spread is not None:
            if not (face.spread[face.labelled] >= 0).all():
                raise ValueError("spread is negative or missing for a labelled landmark")
            weights = np.where(face.labelled, spread_weights(np.nan_to_num(face.spread), full_spread), 0.0)
        labelled = points[face.labelled]
        if len(labelled) > 1 and np.ptp(labelled, axis=0).max() > 0:
            boxes["landmarks"] = tight_box(labelled)
        if boxes:
            _not_far_outside(points, face.labelled, _side(labelled, boxes, size), size)
    else:
        points = None  # a face with a box only
    if not any(name in boxes for name in _BOX_ORDER):
        raise ValueError("neither points nor a box")
    spread = None if points is None else face.spread
    return Record(face.image, points, weights, boxes, face.attributes, key, size, spread)


def _side(points: NDArray[np.float64], boxes: Iterable[str], size: tuple[int, int]) -> float:
    """Longer side of the face, not swollen by a stray point where most of the face lies inside the image."""
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


def _identity(record: Record) -> tuple[str, bytes]:
    if record.points is None or record.weights is None:
        return str(record.image), record.box.tobytes()
    return str(record.image), np.where(record.weights[:, None] > 0, record.points, np.nan).tobytes()


def _name(source: Path) -> str:
    if source.is_dir():
        return source.resolve().name
    if source.suffix.lower() == ".json":  # files of the same few names, told apart by their folder
        folder = source.resolve().parent
        return folder.parent.name if folder.name == "annotations" else folder.name
    return source.stem
