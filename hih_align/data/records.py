"""Annotated faces: `Labels` of one face, its `Record`, and a `Dataset` of them."""

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

#: `Record.box` is the first of these that a record has.
BOX_ORDER = ("annotated", "landmarks", "rect")


@dataclass(frozen=True, eq=False, repr=False)
class Labels:
    """The landmarks of one face.

    Attributes:
        points: (K, 2) float64 pixels of the image, 0 at the centre of the first pixel; points may lie outside the
            image, and are arbitrary where the weight is 0.
        weights: (K,) float64 in [0, 1], 0 where a landmark is not labelled.
        spread: (K,) float64 deviation of the labels as a share of the box's longer side, where a machine made the
            labels and says so; None: made by hand.
    """

    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    spread: NDArray[np.float64] | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """(K,) whether each landmark is labelled."""
        return self.weights > 0

    def __repr__(self) -> str:
        how = "by hand" if self.spread is None else "by a machine"
        return f"Labels({int(self.known.sum())} of {len(self.weights)} landmarks, {how})"


@dataclass(frozen=True, eq=False, repr=False)
class Record:
    """One face.

    Attributes:
        image: the image file.
        labels: the landmarks; None for a face without any, which serves self-training only.
        boxes: (4,) x1, y1, x2, y2 by name: "annotated" where the file gives the face's box, "landmarks" around the
            labelled points where there are two or more, "rect" where the file gives a detector's. At least one.
        attributes: what else the file says ("pose", "occlusion", "id", ...).
        key: file and number or id in it, for messages; no two of a dataset alike.
        size: the image's width and height; None where unknown.
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
        """(4,) the box "annotated" where there is one, else "landmarks", else "rect"."""
        return self.boxes[next(name for name in BOX_ORDER if name in self.boxes)]


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
        """The faces for which a condition holds, such as `subsets.chosen_by` makes of a split file.

        Raises:
            ValueError: there are none; or as the condition raises it.
        """
        records = tuple(record for record in self.records if condition(record))
        text = getattr(condition, "text", "chosen by a function")
        if not records:
            raise ValueError(f"dataset {self.name!r} has no face for which {text!r} holds")
        return replace(self, records=records, chosen=text)


def stack_labels(records: Iterable[Record]) -> tuple[list[Record], NDArray[np.float64], NDArray[np.float64]]:
    """The N records that have labels, with the labels' points (N, K, 2) and weights (N, K)."""
    pairs = [(record, record.labels) for record in records if record.labels is not None]
    if not pairs:
        return [], np.zeros((0, 0, 2)), np.zeros((0, 0))
    points, weights = np.stack([own.points for _, own in pairs]), np.stack([own.weights for _, own in pairs])
    return [record for record, _ in pairs], points, weights


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


def outside(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """(..., 2) points -> (...) how far beyond the edge of a ``size`` = (width, height) image, in pixels; 0 inside."""
    beyond = np.maximum(-0.5 - points, points - (np.array(size) - 0.5))
    return np.maximum(beyond, 0).max(-1)


def spread_weights(spread: NDArray[np.float64], full: float = 0.012, least: float = 0.15) -> NDArray[np.float64]:
    """Weights of points from how unsure they are: ``full`` / spread, at most 1 and at least ``least``.

    Args:
        spread: deviation of a point's label, as a share of the box's longer side.
        full: up to this spread a point has weight 1.
        least: the smallest weight.
    """
    return np.clip(full / np.maximum(spread, 1e-9), least, 1.0)
