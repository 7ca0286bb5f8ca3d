"""Annotated faces: the `Labels` of one face, its `Record`, and a `Dataset` of records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ExifTags

from ..schemes import Scheme
from .readers.face import Attribute

#: The order in which `Record.box` takes the boxes of a record.
BOX_ORDER = ("annotated", "landmarks", "rect")


@dataclass(frozen=True, eq=False, repr=False)
class Labels:
    """The landmarks of one face.

    Attributes:
        points: (K, 2) float64 pixels of the image, 0 at the centre of the first pixel. Points may lie outside the
            image. A point whose weight is 0 may hold anything.
        weights: (K,) float64 in [0, 1]; 0: the landmark is not labelled.
        spread: (K,) float64 standard deviation of machine-made labels, as a share of the longer side of the box. None:
            a person made the labels, or the source does not give the spread.
    """

    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """(K,) bool: whether each landmark is labelled."""
        return self.weights > 0

    def __repr__(self) -> str:
        how = "by hand" if self.spread is None else "by a machine"
        return f"Labels({int(self.known.sum())} of {len(self.weights)} landmarks, {how})"


@dataclass(frozen=True, eq=False, repr=False)
class Record:
    """One face.

    Attributes:
        image: the image file.
        labels: the landmarks; None: the face has none and serves only self-training.
        boxes: (4,) arrays x1, y1, x2, y2 by name, at least one. "annotated": the box that the file gives. "landmarks":
            the tight box of the labelled points, if there are two or more. "rect": the detector's box that the file
            gives.
        attributes: what else the file says about the face ("pose", "occlusion", "id", ...).
        key: the file, and the number or id of the face in it; used in messages and unique within a data set.
        size: width and height of the image in pixels; None: unknown.
    """

    image: Path
    labels: Labels | None
    boxes: Mapping[str, NDArray[np.float64]]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    key: str = ""
    size: tuple[int, int] | None = None

    def __repr__(self) -> str:
        labelled = 0 if self.labels is None else int(self.labels.known.sum())
        return f"Record({self.key or self.image.name!r}, {labelled} points labelled, boxes {sorted(self.boxes)})"

    @property
    def box(self) -> NDArray[np.float64]:
        """(4,) the box "annotated" if the record has it, else "landmarks", else "rect"."""
        return self.boxes[next(name for name in BOX_ORDER if name in self.boxes)]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Faces of one source.

    Attributes:
        name: the name of the file or of its folder.
        scheme: the scheme of the landmarks. If its ``mirror`` is None, the faces must not be mirrored.
        records: the faces, at least one.
        source: the file or folder that was read.
        skipped: one message for each bad record that was left out.
        chosen: the condition of `where`, in words; None: the data set holds all of its faces.
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
        """The faces that satisfy a condition, such as the one that `subsets.chosen_by` makes of a split file.

        Raises:
            ValueError: no face satisfies the condition. An error of the condition itself passes through.
        """
        records = tuple(record for record in self.records if condition(record))
        text = getattr(condition, "text", "chosen by a function")
        if not records:
            raise ValueError(f"dataset {self.name!r} has no face for which {text!r} holds")
        return replace(self, records=records, chosen=text)


def stack_labels(records: Iterable[Record]) -> tuple[list[Record], NDArray[np.float64], NDArray[np.float64]]:
    """The N records that have labels, the points (N, K, 2) and the weights (N, K) of their labels."""
    pairs = [(record, record.labels) for record in records if record.labels is not None]
    if not pairs:
        return [], np.zeros((0, 0, 2)), np.zeros((0, 0))
    points, weights = np.stack([own.points for _, own in pairs]), np.stack([own.weights for _, own in pairs])
    return [record for record, _ in pairs], points, weights


def whole(records: Iterable[Record]) -> list[Record]:
    """The records whose tight box is that of all landmarks: all are labelled, and there are two or more."""
    return [r for r in records if r.labels is not None and r.labels.known.all() and "landmarks" in r.boxes]


def named(record: Record) -> str:
    """The key of a record for messages, with the name of its photograph."""
    return record.key if record.image.name in record.key else f"{record.key} ({record.image.name})"


def spread(count: int, most: int) -> NDArray[np.intp]:
    """Indices of at most ``most`` of ``count`` faces, in ascending order and evenly spread."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.intp))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as `images.read_image` returns it. Only the header is read.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not an image.
    """
    try:
        with PIL.Image.open(path) as image:
            width, height = image.size
            # Pillow turns the size of a TIFF itself
            turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {str(path)!r} does not exist") from error
    except Exception as error:  # Pillow raises errors of many kinds, as in `images`
        raise ValueError(f"image {str(path)!r} cannot be read: {error}") from error
    return (height, width) if turned else (width, height)


def outside(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Distance (...) of points (..., 2) to an image of ``size`` (width, height), in pixels; 0 inside the image."""
    beyond = np.maximum(-0.5 - points, points - (np.array(size) - 0.5))
    return np.maximum(beyond, 0).max(-1)


def placeholder_problem(points: NDArray[np.float64], labelled: NDArray[np.bool_]) -> str | None:
    """A sentence about labels (N, K) of points (N, K, 2) that mean "not labelled"; None if there are none."""
    at = {place: labelled & (points == place).all(-1) for place in (0, -1)}  # 0, 0 of a 1-based file is -1, -1 here
    where = [f"{place}, {place}" for place, there in at.items() if there.any()]
    if not where:
        return None
    lost = at[0] | at[-1]
    return (
        f"{lost.sum()} landmarks of {lost.any(1).sum()} faces are labelled at {' or '.join(where)}. A landmark that is "
        "not labelled has visibility 0 in a COCO file, and empty cells in a CSV file"
    )


def spread_weights(spread: NDArray[np.float64], full: float = 0.012, least: float = 0.15) -> NDArray[np.float64]:
    """Weights of landmarks from the spread of their labels: ``full / spread``, limited to ``least``..1.

    Args:
        spread: standard deviation of a label, as a share of the longer side of the box.
        full: largest spread that has weight 1.
        least: the smallest weight.
    """
    return np.clip(full / np.maximum(spread, 1e-9), least, 1.0)
