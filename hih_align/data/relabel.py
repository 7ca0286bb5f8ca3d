"""Pseudo-labels: a network labels faces that have no manual labels (noisy student).

The network sees each face several times: with shifted and scaled boxes, and mirrored. The mean of the views is the
label. The standard deviation of the views (``spread``) says how uncertain it is. If the face already has a machine-made
label, both labels are averaged by their certainty. Points that a person labelled are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..aligner import READ_AHEAD, FaceAligner
from ..crops import fitting_box, square_crop, unmirrored
from ..images import read_image
from ..method.decoder import STRIDE
from ..progress import progress_bar
from .boxes import jitter
from .conventions import Frame, moved, offset
from .records import Dataset, Labels, Record, spread_weights

#: Expected error divided by spread, for the machine-made labels of the project's shared data.
GIVEN_RATIO = 2.3


@dataclass(frozen=True)
class Label:
    """``points`` (K, 2) float64 in pixels of the image; ``spread`` (K,) as a share of the longer side of the box."""

    points: NDArray[np.float64]
    spread: NDArray[np.float64]


def look(aligner: FaceAligner, records: Sequence[Record], boxes: int = 2, progress: bool = True) -> Iterator[Label]:
    """The network's labels of faces, with the spread of its views of each face.

    Args:
        aligner: an aligner whose scheme has mirror pairs.
        records: the faces. For a face without points the network first looks for the face in its box, because such
            boxes are often wrong.
        boxes: number of boxes per face. Each is moved half as far as `boxes.jitter` moves a box, and is used twice: as
            it is and mirrored.
        progress: draw a progress bar on stderr.

    The spread is the root mean square distance of the views from their mean.

    Raises:
        ValueError: the scheme has no mirror pairs.
    """
    order = aligner.scheme.permutation
    if order is None:
        raise ValueError(f"scheme {aligner.scheme.id!r} has no mirror pairs, expected mirror pairs")
    own = np.array([record.box for record in records], np.float64)
    unlabelled = [i for i, record in enumerate(records) if record.labels is None]
    found = aligner.stream(
        [records[i].image for i in unlabelled], [own[i] for i in unlabelled], refine=1, read_ahead=READ_AHEAD
    )
    for i, face in zip(progress_bar(unlabelled, "find", unit="face", disable=not progress), found, strict=True):
        own[i] = fitting_box(face.points, aligner.config.box)
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
    bar = progress_bar(records, "label", unit="face", disable=not progress)
    for record, box, used in zip(bar, own, moved, strict=True):
        straight = next(views).points.astype(np.float64)
        ratio, side = aligner.config.crop_ratio, aligner.config.input_size
        scale = np.array([[square_crop(b, ratio, side).scale] for b in used])  # (boxes, 1)
        shift = aligner.decoder.label_bias * STRIDE / scale
        mirrored = unmirrored(next(views).points[:, order].astype(np.float64), _width(record), shift)
        points = np.concatenate((straight, mirrored))
        mean = points.mean(0)
        spread = np.sqrt(np.square(points - mean).sum(-1).mean(0)) / (box[2:] - box[:2]).max()
        yield Label(mean, spread)


def error_ratio(labels: Sequence[Label], records: Sequence[Record]) -> float:
    """Mean error divided by mean spread, over the labelled faces of ``records``.

    Raises:
        ValueError: no face is labelled.
    """
    if not any(record.labels is not None for record in records):
        raise ValueError(f"val: none of {len(records)} faces has points, expected hand-labelled faces")
    errors, spreads = [], []
    for label, record in zip(labels, records, strict=True):
        if record.labels is None:
            continue
        known = record.labels.known
        side = (record.box[2:] - record.box[:2]).max()
        errors.append(np.linalg.norm(label.points - record.labels.points, axis=-1)[known] / side)
        spreads.append(label.spread[known])
    return float(np.concatenate(errors).mean() / np.concatenate(spreads).mean())


def combine(given: Label, new: Label, side: float, ratio: float) -> Label:
    """Combine two independent machine-made labels of a face.

    Args:
        given, new: the labels. A spread of 0 or NaN in ``given`` means that the landmark has no given label.
        side: the longer side of the face's box, in pixels.
        ratio: expected error divided by spread, for ``new``. For ``given``, and for the result, it is `GIVEN_RATIO`.

    The weights of the mean are the inverse squared expected errors. If the two labels are further apart than their
    expected errors explain, the expected error of the result grows in proportion.
    """
    first, second = GIVEN_RATIO * given.spread, ratio * new.spread
    known = np.nan_to_num(first) > 0
    first = np.where(known, first, np.inf)
    share = np.where(known, second**2 / np.where(known, first**2 + second**2, 1.0), 0.0)  # weight of the given label
    points = new.points + share[:, None] * np.where(known[:, None], given.points - new.points, 0.0)
    error = second * np.sqrt(1 - share)
    apart = np.linalg.norm(np.where(known[:, None], given.points - new.points, 0.0), axis=-1) / side
    error = error * np.maximum(1.0, apart / np.sqrt(np.where(known, first**2, np.inf) + second**2))
    return Label(points, error / GIVEN_RATIO)


def relabel(
    aligner: FaceAligner, dataset: Dataset, ratio: float, boxes: int = 2, progress: bool = True
) -> list[Record]:
    """New labels, with spread, for the faces that a person did not label. Other faces are returned as they are.

    A network that has learned from several sources predicts points between their label conventions. If enough faces
    have machine-made labels, the network's points are first moved to the convention of those labels. Without this step
    repeated labelling would drift.

    Args:
        aligner: an aligner of the scheme of the data set.
        dataset: some of its faces have machine-made labels (`Labels.spread`) or only a box.
        ratio: expected error divided by spread, for the network's labels; see `error_ratio`.
        boxes, progress: see `look`.
    """
    machine = [r for r in dataset.records if r.labels is None or r.labels.spread is not None]
    if not machine:
        return list(dataset.records)
    found = list(look(aligner, machine, boxes, progress))
    points = np.stack([label.points for label in found])
    frame = Frame.of(points, aligner.scheme)
    points = moved(points, points, offset(points, machine, frame), frame)
    found = [Label(p, label.spread) for p, label in zip(points, found, strict=True)]
    new = dict(zip(map(id, machine), found, strict=True))
    reach = aligner.config.box
    return [_labelled(r, new[id(r)], ratio, reach) if id(r) in new else r for r in dataset.records]


def _labelled(record: Record, new: Label, ratio: float, reach: Sequence[float] | None) -> Record:
    boxes = dict(record.boxes)
    own = record.labels
    if own is None or own.spread is None:
        label = Label(new.points, new.spread * ratio / GIVEN_RATIO)
        boxes["annotated"] = fitting_box(label.points, reach)
    else:
        given = Label(own.points, np.where(own.known, own.spread, 0.0))
        label = combine(given, new, float((record.box[2:] - record.box[:2]).max()), ratio)
    labels = Labels(label.points, spread_weights(label.spread), label.spread)
    return replace(record, labels=labels, boxes=boxes)


def _width(record: Record) -> int:
    assert record.size is not None  # `read_dataset` sets it
    return record.size[0]
