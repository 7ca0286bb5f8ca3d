"""`evaluate`, which measures an aligner on annotated faces and returns a `results.Report`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..data.annotations import Dataset, Record
from ..data.boxes import Box, face_boxes, of_face
from ..detection.scan import overlap
from ..landmarks import Landmarks
from ..progress import progress_bar
from ..schemes import Scheme, conversion
from .normalizers import choose_normalizer
from .results import Report, Settings
from .subsets import subset_masks

#: Boxes given to the aligner, or those that its detector finds.
AnyBox: TypeAlias = Literal[Box, "detector"]


def evaluate(
    aligner: FaceAligner,
    dataset: Dataset,
    *,
    box: AnyBox = "annotated",
    refine: int | None = None,
    mirror: bool = False,
    subsets: Iterable[str] = (),
    batch_size: int | None = None,
    normalizer: str | None = None,
    keep: Callable[[Record], bool] | None = None,
    progress: bool = True,
) -> Report:
    """Align the faces of a data set and measure the errors.

    Args:
        aligner: the aligner, with its decoder and precision. If its scheme differs from the data set's, its results are
            converted (98 to 68 or 29 points).
        dataset: the faces. Faces without labelled points are left out; so are single landmarks without a label.
        box: the boxes that the aligner gets; see `face_boxes`. "jitter" is drawn for all faces with points, before
            ``keep`` chooses faces. So the box of a face does not depend on ``keep``. "detector": no boxes; the
            aligner's detector finds the faces, and `Report.missed` names those that it misses (`boxes.of_face`).
        refine, mirror: as in `FaceAligner.align`; ``refine=None`` means the checkpoint's default.
        subsets: attributes to report by, with or without a leading "attributes.". "attributes" alone means every
            attribute that is 0 or 1 on all faces. An attribute of 0 and 1 gives the subset of the faces with 1. Any
            other attribute gives one subset per value ("subset=lfpw").
        batch_size: as in `FaceAligner.align_batch`.
        normalizer: a normalizer of the data set's scheme, or "box" for the longer side of the annotated box. None: the
            choice of `normalizers.choose_normalizer`. `Report.settings` names the normalizer.
        keep: a condition that chooses faces, such as ``chosen_by(["test.txt"], dataset)`` for a split file.
        progress: show a progress bar on stderr.

    Raises:
        ValueError: the box, normalizer or subset is unknown; a face lacks the box; no face is left; the aligner's
            scheme cannot be converted; or an image or box is bad (the message names the record).
        FileNotFoundError: an image does not exist; the message names the record.
    """
    scheme = dataset.scheme
    if scheme.id == aligner.scheme.id and len(scheme) != len(aligner.scheme):
        raise ValueError(
            f"scheme {scheme.id!r} has {len(scheme)} points in the dataset, but {len(aligner.scheme)} in the model"
        )
    conversion(aligner.scheme, scheme)  # raises if no conversion is known
    if normalizer not in (None, "box") and normalizer not in scheme.normalizers:
        expected = sorted([*scheme.normalizers, "box"])
        raise ValueError(f"normalizer is {normalizer!r}, expected for scheme {scheme.id!r} one of {expected}")
    complete = [record for record in dataset.records if record.labels is not None]
    chosen = [i for i, record in enumerate(complete) if keep is None or keep(record)]
    records = tuple(complete[i] for i in chosen)
    if not records:
        raise ValueError(f"dataset {dataset.name!r} has {len(complete)} faces with points, but none of them was chosen")
    if box == "jitter":  # the shift of a face depends on its place among all faces
        boxes = face_boxes(complete, box)[chosen]
    else:
        boxes = face_boxes(records, "annotated" if box == "detector" else box)
    masks = subset_masks(records, subsets)
    normalizer = choose_normalizer(scheme, records) if normalizer is None else normalizer
    predict = _find if box == "detector" else _predict
    boxes, points, scores = predict(aligner, records, boxes, scheme, batch_size, refine, mirror, progress)
    missed: tuple[str, ...] = ()
    there = ~np.isnan(boxes[:, 0])
    if not there.all():
        missed = tuple(record.key for record, found in zip(records, there, strict=True) if not found)
        if len(missed) == len(records):
            raise ValueError(f"box is 'detector', which found none of the {len(records)} faces of {dataset.name!r}")
        records = tuple(record for record, found in zip(records, there, strict=True) if found)
        boxes, points, scores = boxes[there], points[there], scores[there]
        masks = {name: mask[there] for name, mask in masks.items()}
    settings = Settings(
        box=box,
        refine=aligner.config.refine if refine is None else refine,
        mirror=mirror,
        decoder=asdict(aligner.decoder),
        dtype=str(aligner.dtype).removeprefix("torch."),
        backend=aligner.backend,
        normalizer=normalizer,
        keep=None if keep is None else getattr(keep, "text", "chosen by a function"),
        calibrated=aligner.calibrated,
    )
    left_out = len(dataset.records) - len(complete)
    return Report(
        aligner.config.name, dataset.name, scheme, settings, records, boxes, points, scores, masks, left_out, missed
    )


def _predict(
    aligner: FaceAligner,
    records: Sequence[Record],
    boxes: NDArray[np.float64],
    scheme: Scheme,
    batch_size: int | None,
    refine: int | None,
    mirror: bool,
    progress: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """Align the faces in their boxes. Each image is read once.

    Returns:
        ``boxes`` (N, 4), points (N, K, 2) and scores (N, K) in the scheme of the data set.
    """
    points = np.empty((len(records), len(scheme), 2), np.float32)
    scores = np.empty((len(records), len(scheme)), np.float32)
    for indices, found in _of_images(records, boxes, aligner, batch_size, refine, mirror, progress):
        faces = found.to(scheme)
        points[indices], scores[indices] = faces.points, faces.scores
    return boxes, points, scores


def _find(
    aligner: FaceAligner,
    records: Sequence[Record],
    boxes: NDArray[np.float64],
    scheme: Scheme,
    batch_size: int | None,
    refine: int | None,
    mirror: bool,
    progress: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
    """As `_predict`, in boxes of the detector. ``boxes`` tell the record of each face. NaN if a face is missed."""
    given = np.full((len(records), 4), np.nan)
    points = np.full((len(records), len(scheme), 2), np.nan, np.float32)
    scores = np.full((len(records), len(scheme)), np.nan, np.float32)
    for indices, found in _of_images(records, None, aligner, batch_size, refine, mirror, progress):
        faces = found.to(scheme)
        free = np.ones(len(faces), bool)
        for index in indices:
            near = np.flatnonzero(of_face(boxes[index], faces.bbox) & free)
            if len(near):
                best = near[np.argmax(overlap(boxes[index], faces.bbox[near].astype(np.float64))[0])]
                given[index], points[index], scores[index] = faces.bbox[best], faces.points[best], faces.scores[best]
                free[best] = False
    return given, points, scores


def _of_images(
    records: Sequence[Record],
    boxes: NDArray[np.float64] | None,
    aligner: FaceAligner,
    batch_size: int | None,
    refine: int | None,
    mirror: bool,
    progress: bool,
) -> Iterator[tuple[list[int], Landmarks]]:
    """Yield the indices of the records of each image, and its faces: those in ``boxes``, or those of the detector."""
    of_image: dict[Path, list[int]] = {}
    for index, record in enumerate(records):
        of_image.setdefault(record.image, []).append(index)
    reading = records[0].key

    def images() -> Iterator[Path]:
        nonlocal reading
        for image, indices in of_image.items():
            reading = records[indices[0]].key
            yield image

    given = None if boxes is None else (boxes[indices] for indices in of_image.values())
    results = aligner.stream(images(), given, batch_size, refine, mirror)
    with progress_bar(total=len(records), unit="face", disable=not progress, leave=False) as bar:
        try:
            for indices, faces in zip(of_image.values(), results, strict=True):
                yield indices, faces
                bar.update(len(indices))
        except (ValueError, FileNotFoundError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(f"{reading}: {error}") from error
