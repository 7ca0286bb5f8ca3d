"""Checks of annotated data before training: counts, suspicious faces, and a contact sheet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..crops import square_crop, warp
from ..drawing import Pen, larger, sheet
from ..images import read_image, write_image
from ..schemes import Scheme
from . import shapes
from .records import Dataset, Record, image_size, named, outside, placeholder_problem, stack_labels

#: Two faces on images of the same content are the same face if their boxes overlap by this much or more (IoU).
SAME_FACE = 0.5

#: Landmarks that are all below this seem to be fractions of the image. A little more than 1, for they may lie outside.
FRACTIONS = 1.5

#: A shape is far from the mean if its distance exceeds this many robust standard deviations, and also this distance.
_FAR_SIGMA, _FAR_LEAST = 6.0, 0.3

_SIDES = ((80, 200, 255), (255, 150, 60), (255, 255, 255))  # first and second landmark of a pair, landmark in no pair


class Finding(NamedTuple):
    """A suspicious face: its key, how suspicious it is, the reason in words, and the name of its photograph."""

    key: str
    value: float
    what: str
    image: str


class Sides(NamedTuple):
    """The longer sides of the boxes of ``faces`` faces, in pixels."""

    faces: int
    smallest: float
    median: float
    largest: float


@dataclass(frozen=True)
class DatasetSummary:
    """The result of `check`.

    Attributes:
        name, scheme: name and scheme id of the data set.
        faces, images: number of faces and of images; an image may show several faces.
        without_points: number of faces that have only a box.
        labelled: share of the landmarks that are labelled, over the faces with points.
        weight: mean weight of the labelled landmarks.
        missing: number of faces that lack a landmark, by landmark name; a landmark that every face has is left out.
        boxes: the longer sides of the boxes, by the name of the box.
        outside: faces with landmarks outside the image, the furthest first; the value is in pixels.
        beside: faces of which most landmarks lie outside the file's box, the furthest first; the value is in shares of
            the box's longer side.
        far: faces whose shape is far from the mean shape, the furthest first; see `shapes.distances`.
        swapped: faces whose left and right seem swapped; see `shapes.swapped`.
        duplicates: pairs of keys of a face that is annotated twice, on one image or on two images of the same content.
        unreadable: images that cannot be decoded.
        skipped: records that could not be read (`Dataset.skipped`).
        problems: sentences about mistakes that concern many faces, such as a wrong mirror table.
        names: the keys of the duplicates with the names of their images, by key.
    """

    name: str
    scheme: str
    faces: int
    images: int
    without_points: int
    labelled: float
    weight: float
    missing: dict[str, int]
    boxes: dict[str, Sides]
    outside: tuple[Finding, ...]
    beside: tuple[Finding, ...]
    far: tuple[Finding, ...]
    swapped: tuple[Finding, ...]
    duplicates: tuple[tuple[str, str], ...]
    unreadable: tuple[str, ...]
    skipped: tuple[str, ...]
    problems: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def suspects(self) -> tuple[str, ...]:
        """Keys of the faces that a person should look at, each key once.

        They are the faces of ``swapped``, ``far``, ``beside``, ``outside`` and ``duplicates``.
        """
        findings = [f.key for group in (self.swapped, self.far, self.beside, self.outside) for f in group]
        return tuple(dict.fromkeys([*findings, *(key for pair in self.duplicates for key in pair)]))

    def to_dict(self) -> dict[str, Any]:
        """The result as a dictionary that JSON can hold."""
        named = {name: sides._asdict() for name, sides in self.boxes.items()}
        found = {k: [f._asdict() for f in getattr(self, k)] for k in ("outside", "beside", "far", "swapped")}
        return asdict(self) | {"boxes": named} | found

    def text(self, limit: int = 10) -> str:
        """The result as lines of text, with at most ``limit`` findings of each kind."""
        lines = [
            *(f"problem: {problem}" for problem in self.problems),
            f"{self.name}: {self.faces} faces on {self.images} images, scheme {self.scheme}",
            f"without points: {self.without_points}",
            f"landmarks labelled: {100 * self.labelled:.1f} %, mean weight {self.weight:.2f}",
        ]
        for name, s in self.boxes.items():
            sides = f"{s.smallest:.0f} to {s.largest:.0f} px, median {s.median:.0f}"
            lines.append(f"box {name}: {s.faces} faces, longer side {sides}")
        file, tight = (self.boxes.get(name) for name in ("annotated", "landmarks"))
        if file and tight and np.allclose(file, tight, rtol=0.01):
            lines.append("the boxes of the file are the tight boxes of the landmarks")
        given = self.boxes["annotated"].faces if "annotated" in self.boxes else 0
        if given < self.faces:
            lines.append(f"no bbox in the file: {self.faces - given}, the tight box of their landmarks is used")
        absent = sorted(self.missing.items(), key=lambda item: -item[1])
        groups: list[tuple[str, list[str]]] = [
            ("landmarks missing in some faces", [f"{name}: in {count}" for name, count in absent]),
            ("landmarks outside the image", [f"{f.key} ({f.image}): {f.what}" for f in self.outside]),
            ("landmarks outside the box", [f"{f.key} ({f.image}): {f.what}" for f in self.beside]),
            ("shapes far from the mean", [f"{f.key} ({f.image}): {f.what}" for f in self.far]),
            ("left and right swapped", [f"{f.key} ({f.image}): {f.what}" for f in self.swapped]),
            ("duplicates", [f"{self.names[a]} = {self.names[b]}" for a, b in self.duplicates]),
            ("unreadable images", list(self.unreadable)),
            ("bad records", list(self.skipped)),
        ]
        for title, items in groups:
            lines.append(f"{title}: {len(items)}")
            lines += [f"  {item}" for item in items[:limit]]
            lines += [f"  ... and {len(items) - limit} more"] * (len(items) > limit)
        return "\n".join(lines)


def check(dataset: Dataset, *, workers: int = 2) -> DatasetSummary:
    """Decode every image of ``dataset`` and look for faces that would harm the training."""
    known, points, weights = stack_labels(dataset.records)
    labelled = weights > 0 if known else np.zeros((0, len(dataset.scheme)), bool)
    far, crossed = _shapes(known, points, labelled, dataset.scheme)
    beside = _beside(known)
    digests, unreadable = _digests({r.image for r in dataset.records}, workers)
    missing = (~labelled).sum(0)
    duplicates = tuple(_same_faces(dataset.records, digests))
    twice = {key for pair in duplicates for key in pair}
    kinds = dict.fromkeys(name for r in dataset.records for name in r.boxes)
    return DatasetSummary(
        name=dataset.name,
        scheme=dataset.scheme.id,
        faces=len(dataset),
        images=len({r.image for r in dataset.records}),
        without_points=len(dataset) - len(known),
        labelled=float(labelled.mean()) if known else 0.0,
        weight=float(weights[labelled].mean()) if known else 0.0,
        missing={name: int(n) for name, n in zip(dataset.scheme.names, missing, strict=True) if n},
        boxes={name: _sides([r.boxes[name] for r in dataset.records if name in r.boxes]) for name in kinds},
        outside=_outside(known),
        beside=beside,
        far=far,
        swapped=crossed,
        duplicates=duplicates,
        unreadable=tuple(unreadable),
        skipped=dataset.skipped,
        problems=tuple(_problems(dataset, known, points, labelled, len(beside))),
        names={r.key: named(r) for r in dataset.records if r.key in twice},
    )


def shared_faces(train: Iterable[Dataset], held_out: Dataset, *, workers: int = 2) -> tuple[tuple[str, str], ...]:
    """Faces that are both in ``held_out`` and in ``train``. The decoded pixels of the images are compared.

    Returns:
        Pairs of keys: of a record of ``held_out`` and of a record of ``train``. Their images are equal, and their boxes
        overlap by `SAME_FACE` or more. Different faces of one image are not the same face. An image that was saved
        again at lower quality, or cropped differently, is not recognised.
    """
    training = [record for dataset in train for record in dataset.records]
    sizes = [{_size(r) for r in records} for records in (training, held_out.records)]
    common = sizes[0] & sizes[1]  # only images of a common size can be equal: no other image is decoded
    candidates = [[r for r in records if _size(r) in common] for records in (held_out.records, training)]
    digests, unreadable = _digests({r.image for records in candidates for r in records}, workers)
    if unreadable:
        raise ValueError(unreadable[0])
    return tuple(_same_faces(candidates[0], digests, candidates[1]))


def shared_names(pairs: Iterable[tuple[str, str]], train: Iterable[Dataset], held_out: Dataset) -> list[str]:
    """A text with keys and image names for each pair of `shared_faces`."""
    mine = {r.key: named(r) for r in held_out.records}
    theirs = {r.key: named(r) for dataset in train for r in dataset.records}
    return [f"{mine[a]} = {theirs[b]}" for a, b in pairs]


def require_disjoint(train: Sequence[Dataset], held_out: Dataset) -> None:
    """Raise ValueError if a face of ``held_out`` is in ``train`` too, and name the first ones. See `shared_faces`."""
    if pairs := shared_faces(train, held_out):
        first = ", ".join(shared_names(pairs[:3], train, held_out))
        raise ValueError(f"{len(pairs)} faces of {held_out.source} are also in the training data: {first}")


def contact_sheet(
    dataset: Dataset,
    path: str | os.PathLike[str],
    *,
    faces: int = 48,
    columns: int = 8,
    size: int = 192,
    suspects: Collection[str] = (),
) -> None:
    """Write a picture of faces with their landmarks drawn.

    Args:
        dataset: the faces. At most half of the sheet shows suspects; the other faces are evenly spaced.
        path: the image file to write.
        faces: largest number of faces.
        columns: number of faces in a row.
        size: side of a face in pixels; each face is cropped at 1.5 times its box.
        suspects: keys of records to show first, in a red frame (`DatasetSummary.suspects`).

    The first landmark of a mirror pair is blue, the second is orange, and the other landmarks are white. A darker
    landmark has a smaller weight. For a face without points the box is drawn.

    Raises:
        ValueError: none of the images can be read.
    """
    by_key = {record.key: record for record in dataset.records}
    marked = [by_key[key] for key in suspects if key in by_key][: max(faces // 2, faces - len(dataset))]
    rest = [r for r in dataset.records if r.key not in {m.key for m in marked}]
    spaced = np.linspace(0, len(rest) - 1, min(faces - len(marked), len(rest))).round().astype(int)
    tiles = []
    for record in [*marked, *(rest[i] for i in spaced)]:
        try:
            tile = _tile(record, dataset.scheme, size)
        except (ValueError, FileNotFoundError):  # `check` lists the image
            continue
        if record.key in {m.key for m in marked}:
            cv2.rectangle(tile, (0, 0), (size - 1, size - 1), (255, 0, 0), 3)
        tiles.append(tile)
    if not tiles:
        raise ValueError(f"none of the images of {dataset.source} can be read")
    write_image(path, sheet(tiles, columns, gap=0, background=0))


def _tile(record: Record, scheme: Scheme, size: int) -> NDArray[np.uint8]:
    crop = square_crop(record.box, 1.5, size)
    tile = warp(read_image(record.image), crop.matrix, size)
    if record.labels is None:
        x1, y1, x2, y2 = (int(v) for v in crop.to_crop(record.box.reshape(2, 2)).round().ravel())
        cv2.rectangle(tile, (x1, y1), (x2, y2), _SIDES[2], 1)
        return tile
    order = scheme.permutation
    points = crop.to_crop(np.where(record.labels.known[:, None], record.labels.points, np.nan))
    pen = Pen(tile)
    for line in scheme.contours:
        pen.line(points[list(line)], (90, 90, 90))
    for n in np.flatnonzero(record.labels.known):
        side = 2 if order is None or order[n] == n else int(n > order[n])
        shade = 0.4 + 0.6 * record.labels.weights[n]
        red, green, blue = (round(shade * c) for c in _SIDES[side])
        pen.point(points[n], (red, green, blue), 1.25 * larger(len(points)))
    return tile


def _problems(
    dataset: Dataset, known: Sequence[Record], points: NDArray[np.float64], labelled: NDArray[np.bool_], beside: int
) -> Iterator[str]:
    """Sentences about mistakes that concern many faces."""
    if not known:
        yield "no face has points. In a COCO file they are the list 'keypoints' of each annotation"
        return
    if problem := shapes.left_right_problem(points, labelled, dataset.scheme):
        yield problem
    if lost := placeholder_problem(points, labelled):
        yield lost
    if 2 * beside > len(known):
        yield (
            f"most landmarks of {beside} faces lie outside their boxes. Boxes and landmarks may be of another size of "
            "the image, or x and y are exchanged"
        )
    if np.abs(points[labelled]).max() <= FRACTIONS and min(min(_size(record)) for record in known) > 16:
        yield "all landmarks lie within one pixel of 0, 0. They seem to be fractions of the image, expected pixels"


def _shapes(
    known: Sequence[Record], points: NDArray[np.float64], labelled: NDArray[np.bool_], scheme: Scheme
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    if not known:
        return (), ()
    mean = shapes.mean_shape(points, labelled)
    apart = shapes.distances(points, labelled, mean)
    middle = float(np.median(apart))
    limit = max(middle + _FAR_SIGMA * 1.4826 * float(np.median(abs(apart - middle))), _FAR_LEAST)
    order = scheme.permutation
    crossed = np.zeros(len(known), bool) if order is None else shapes.swapped(points, labelled, mean, order)

    def found(which: NDArray[np.bool_], what: str) -> tuple[Finding, ...]:
        ranked = sorted(np.flatnonzero(which).tolist(), key=lambda i: -apart[i])
        return tuple(
            Finding(known[i].key, float(apart[i]), what.format(apart[i], middle), known[i].image.name) for i in ranked
        )

    return (
        found((apart > limit) & ~crossed, "{:.2f} radii from the mean shape, median {:.2f}"),
        found(crossed, "the face fits the mean shape only with left and right exchanged"),
    )


def _outside(known: Sequence[Record]) -> tuple[Finding, ...]:
    found = []
    for record in known:
        if record.labels is None:
            continue
        beyond = outside(record.labels.points[record.labels.known], _size(record))
        if beyond.any():
            what = f"{(beyond > 0).sum()} of {len(beyond)} landmarks, up to {beyond.max():.1f} px"
            found.append(Finding(record.key, float(beyond.max()), what, record.image.name))
    return tuple(sorted(found, key=lambda finding: -finding.value))


def _beside(known: Sequence[Record]) -> tuple[Finding, ...]:
    found = []
    for record in known:
        if record.labels is None or "annotated" not in record.boxes:
            continue
        points, box = record.labels.points[record.labels.known], record.boxes["annotated"]
        beyond = np.maximum(box[:2] - points, points - box[2:]).max(-1) / (box[2:] - box[:2]).max()
        away = beyond > 0.1  # a tight box may be rounded
        if 2 * away.sum() > len(points):
            what = f"{away.sum()} of {len(points)} landmarks, up to {beyond.max():.1f} of the side of the box"
            found.append(Finding(record.key, float(beyond.max()), what, record.image.name))
    return tuple(sorted(found, key=lambda finding: -finding.value))


def _sides(boxes: Sequence[NDArray[np.float64]]) -> Sides:
    b = np.stack(boxes)
    sides = np.maximum(b[:, 2] - b[:, 0], b[:, 3] - b[:, 1])
    return Sides(len(b), float(sides.min()), float(np.median(sides)), float(sides.max()))


def _size(record: Record) -> tuple[int, int]:
    return record.size if record.size is not None else image_size(record.image)


def _digests(images: Collection[Path], workers: int) -> tuple[dict[Path, bytes], list[str]]:
    """The digest of the decoded pixels of each image, and the messages of the images that cannot be decoded."""

    def digest(path: Path) -> bytes | str:
        try:
            pixels = read_image(path)
        except (ValueError, FileNotFoundError) as error:
            return str(error)
        return hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16).digest()

    ordered = sorted(images)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        results = list(pool.map(digest, ordered))
    found = {path: result for path, result in zip(ordered, results, strict=True) if isinstance(result, bytes)}
    return found, [result for result in results if isinstance(result, str)]


def _same_faces(
    records: Sequence[Record], digests: dict[Path, bytes], others: Sequence[Record] | None = None
) -> Iterable[tuple[str, str]]:
    """Keys of equal faces: each of ``records`` with the first of ``others``, or with an earlier record."""
    seen: dict[bytes, list[Record]] = {}
    for record in others or ():
        if record.image in digests:
            seen.setdefault(digests[record.image], []).append(record)
    for record in records:
        if record.image not in digests:
            continue
        alike = seen.setdefault(digests[record.image], [])
        for other in alike:
            if _overlap(record.box, other.box) >= SAME_FACE:
                yield record.key, other.key
                break
        if others is None:
            alike.append(record)


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common, 1e-9)
