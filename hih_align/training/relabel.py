"""Labels by a network of our own, for faces that no hand has labelled (noisy students label again).

A face is looked at several times: with its box moved and scaled, and mirrored. The mean of what is found is the label,
the deviation (``spread``) says how sure it is. Where the face has a machine's label already the two are averaged, each
by its certainty. Points that were labelled by hand stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .. import files
from ..aligner import READ_AHEAD, FaceAligner
from ..crops import tight_box
from ..images import read_image
from .annotations import Dataset, Record
from .evaluate import jitter

#: Expected error over spread of the labels that come with ``shared/data``.
GIVEN_RATIO = 2.3

#: Beyond this spread a point counts as not labelled, beyond half of it as less sure (COCO's visibility 1).
UNKNOWN = 0.04


@dataclass(frozen=True)
class Label:
    """``points`` (K, 2) float64 pixels of the image, ``spread`` (K,) as a share of the box's longer side."""

    points: NDArray[np.float64]
    spread: NDArray[np.float64]


def look(aligner: FaceAligner, records: Sequence[Record], boxes: int = 2, progress: bool = True) -> Iterator[Label]:
    """What the network finds on faces, and how far its views of a face are apart.

    Args:
        aligner: of a scheme that says which landmarks change places when a face is mirrored.
        records: the faces. One without points is first looked for in its box: such boxes are often wrong.
        boxes: boxes per face, half as far from the face's own as `evaluate.jitter` moves them; each is used twice, as
            it is and mirrored.
        progress: draw a progress bar on stderr.

    The spread is the root of the mean squared distance from the views' mean.

    Raises:
        ValueError: a scheme without mirror pairs.
    """
    order = aligner.scheme.permutation
    if order is None:
        raise ValueError(f"scheme {aligner.scheme.id!r} has no mirror pairs")
    own = np.array([record.box for record in records], np.float64)
    unlabelled = [i for i, record in enumerate(records) if record.points is None]
    found = aligner.stream(
        [records[i].image for i in unlabelled], [own[i] for i in unlabelled], refine=1, read_ahead=READ_AHEAD
    )
    for i, face in zip(tqdm(unlabelled, "find", unit="face", disable=not progress), found, strict=True):
        own[i] = tight_box(face.points)
    moved = np.stack([(own + jitter(own, seed=view)) / 2 for view in range(boxes)], 1)  # (N, boxes, 4)

    def images() -> Iterator[NDArray[np.uint8]]:
        for record in records:
            image = read_image(record.image)
            yield image
            yield np.ascontiguousarray(image[:, ::-1])

    def wanted() -> Iterator[NDArray[np.float64]]:
        for record, given in zip(records, moved, strict=True):
            edge = _width(record) - 1
            yield given
            yield np.stack((edge - given[:, 2], given[:, 1], edge - given[:, 0], given[:, 3]), -1)

    views = aligner.stream(images(), wanted(), refine=0)
    for record, box in zip(tqdm(records, "label", unit="face", disable=not progress), own, strict=True):
        straight = next(views).points.astype(np.float64)
        mirrored = next(views).points[:, order].astype(np.float64)
        mirrored[..., 0] = _width(record) - 1 - mirrored[..., 0]
        points = np.concatenate((straight, mirrored))
        mean = points.mean(0)
        spread = np.sqrt(np.square(points - mean).sum(-1).mean(0)) / (box[2:] - box[:2]).max()
        yield Label(mean, spread)


def error_ratio(labels: Sequence[Label], records: Sequence[Record]) -> float:
    """Mean error over mean spread, on labelled faces: what a spread is worth."""
    errors, spreads = [], []
    for label, record in zip(labels, records, strict=True):
        if record.points is None or record.weights is None:
            continue
        known = record.weights > 0
        side = (record.box[2:] - record.box[:2]).max()
        errors.append(np.linalg.norm(label.points - record.points, axis=-1)[known] / side)
        spreads.append(label.spread[known])
    return float(np.concatenate(errors).mean() / np.concatenate(spreads).mean())


def combine(given: Label, new: Label, side: float, ratio: float) -> Label:
    """Two independent machines' labels of a face.

    Args:
        given, new: the labels; a spread of 0 or NaN in ``given`` stands for none.
        side: the longer side of the face's box, pixels.
        ratio: expected error over spread of ``new``; that of ``given``, and of what is returned, is `GIVEN_RATIO`.

    The mean is weighted by the inverse of the squared expected errors. Where the two lie further apart than these
    explain, the expected error grows in proportion.
    """
    first, second = GIVEN_RATIO * given.spread, ratio * new.spread
    known = np.nan_to_num(first) > 0
    first = np.where(known, first, np.inf)
    share = np.where(known, second**2 / np.where(known, first**2 + second**2, 1.0), 0.0)  # of the given label
    points = new.points + share[:, None] * np.where(known[:, None], given.points - new.points, 0.0)
    error = second * np.sqrt(1 - share)
    apart = np.linalg.norm(np.where(known[:, None], given.points - new.points, 0.0), axis=-1) / side
    error = error * np.maximum(1.0, apart / np.sqrt(np.where(known, first**2, np.inf) + second**2))
    return Label(points, error / GIVEN_RATIO)


def relabel(
    aligner: FaceAligner, dataset: Dataset, ratio: float, boxes: int = 2, progress: bool = True
) -> list[tuple[Record, Label | None]]:
    """Every face with its new label; None where its label was made by hand.

    Args:
        aligner: in the dataset's scheme.
        dataset: faces of which some have machines' labels (`Record.spread`) or only a box.
        ratio: expected error over spread of the network's labels, see `error_ratio`.
        boxes, progress: see `look`.
    """
    machine = [r for r in dataset.records if r.points is None or r.spread is not None]
    new = dict(zip(map(id, machine), look(aligner, machine, boxes, progress), strict=True))
    found: list[tuple[Record, Label | None]] = []
    for record in dataset.records:
        label = new.get(id(record))
        if label is not None and record.points is not None and record.spread is not None and record.weights is not None:
            spread = np.where(record.weights > 0, record.spread, 0.0)
            label = combine(Label(record.points, spread), label, float((record.box[2:] - record.box[:2]).max()), ratio)
        elif label is not None:
            label = Label(label.points, label.spread * ratio / GIVEN_RATIO)
        found.append((record, label))
    return found


def write_coco(faces: Sequence[tuple[Record, Label | None]], names: Sequence[str], path: Path) -> None:
    """COCO keypoint JSON with ``spread`` per point, images by their full paths; written atomically."""
    numbers = {image: n for n, image in enumerate(dict.fromkeys(record.image for record, _ in faces))}
    annotations = []
    for n, (record, label) in enumerate(faces):
        spread: NDArray[np.float64] | None = None
        if label is None:
            assert record.points is not None  # a face without points was labelled
            assert record.weights is not None
            points, seen = record.points, np.where(record.weights > 0, 2, 0)
        else:
            points, spread = label.points, label.spread
            seen = np.where(spread <= UNKNOWN / 2, 2, np.where(spread <= UNKNOWN, 1, 0))
        shown = np.where(seen[:, None] > 0, points, 0.0)
        box = tight_box(points) if record.points is None else record.box
        annotation: dict[str, Any] = {
            "id": n,
            "image_id": numbers[record.image],
            "category_id": 1,
            "bbox": [round(float(v), 2) for v in (*box[:2], *(box[2:] - box[:2]))],
            "keypoints": [v for (x, y), s in zip(shown, seen, strict=True) for v in (*_round(x, y), int(s))],
            "num_keypoints": int((seen > 0).sum()),
            "attributes": dict(record.attributes),
        }
        if spread is not None:
            annotation["spread"] = [round(float(v), 5) for v in spread]
        annotations.append(annotation)
    images = [{"id": n, "file_name": str(image.resolve())} for image, n in numbers.items()]
    category = {"id": 1, "name": "face", "keypoints": list(names)}
    data = {"images": images, "annotations": annotations, "categories": [category]}
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(data), "utf-8")


def _round(x: float, y: float) -> tuple[float, float]:
    return round(float(x), 2), round(float(y), 2)


def _width(record: Record) -> int:
    assert record.size is not None  # read_dataset fills it in
    return record.size[0]
