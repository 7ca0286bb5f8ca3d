"""What a trained network finds on labelled faces, and where the labels lie beside it: the basis of a matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..aligner import READ_AHEAD, FaceAligner
from ..crops import fitting_box
from ..data.annotations import Dataset, Record
from ..data.records import spread, stack_labels
from ..hub.config import Config
from ..method.decoder import STRIDE
from ..passes import off
from ..progress import progress_bar
from ..schemes import Scheme
from .matching import Matching, match

#: Largest number of labelled faces that are used. They are spread evenly over the data set.
FACES = 600

#: If the median difference between the given boxes and the boxes of the network's points is larger than this
#: (`passes.off`), the boxes are not those that the network was trained on.
OFF = 0.25

#: Factors by which the crops are enlarged if the boxes are not those that the network was trained on. The largest one
#: is for boxes that hold only the eyes or the mouth.
LARGER = (1.0, 1.5, 2.25, 3.4, 5.0)

#: The smallest of these factors is taken whose mean height is at least this share of the largest mean height. In small
#: crops the model also works with boxes around the whole face, such as those of a detector.
ENOUGH = 0.95

#: In a box that holds only a part of the face, the network puts its points inside the box, and `passes.off` is small.
#: Therefore the crops are also enlarged by this factor, to see whether the network is then more certain.
WIDE = 2.25

#: The standard error of a median, in median absolute deviations divided by the root of the count (normal distribution).
MEDIAN_ERROR = 1.86

#: Number of faces that are used to choose the size of the crops.
TRIED = 16


@dataclass(frozen=True, eq=False)
class Seen:
    """The results of a network on N labelled faces.

    Attributes:
        records: the faces.
        points: (N, H, 2) float64 points of the network, in pixels of each face's image.
        heights: (N, H) clamped maxima of the integer heatmaps.
        target: (N, K, 2) the labels, in the same pixels.
        labelled: (N, K) whether each landmark is labelled.
        config: the config of the network, with the decoder of the points, and with the crop ratio and the refining
            passes that fit the boxes.
    """

    records: tuple[Record, ...]
    points: NDArray[np.float64]
    heights: NDArray[np.float64]
    target: NDArray[np.float64]
    labelled: NDArray[np.bool_]
    config: Config

    @property
    def boxes(self) -> NDArray[np.float64]:
        """(N, 4) boxes of the faces, x1, y1, x2, y2."""
        return np.array([record.box for record in self.records], np.float64)


def look(start: FaceAligner, faces: Dataset, limit: int = FACES, progress: bool = True) -> Seen:
    """Run a network on labelled faces once, or twice if their boxes are not those that it was trained on.

    Args:
        start: the network.
        faces: the data set.
        limit: largest number of faces that are used.
        progress: draw progress bars on stderr.

    Raises:
        ValueError: no face has labels.
    """
    complete = [record for record in faces.records if record.labels is not None]
    if not complete:
        raise ValueError(f"dataset {faces.name!r} has no face with points")
    records = [complete[i] for i in spread(len(complete), limit)]
    _, target, weights = stack_labels(records)
    labelled = weights > 0
    boxes = np.array([record.box for record in records], np.float64)
    plain = _uncalibrated(start)
    points, heights = _run(plain, records, boxes, "faces", progress)
    config = replace(start.config, decoder=start.decoder, refine=0, refine_above=None)
    best = _larger(plain, records, boxes, points, heights) if start.config.refits else None
    if best is not None:
        points, heights = look_twice(plain, records, best, points if best == 1.0 else None, progress)
        config = replace(config, crop_ratio=config.crop_ratio * best, refine=1)
    return Seen(tuple(records), points, heights, target, labelled, config)


def match_seen(start: FaceAligner, seen: Seen, scheme: Scheme) -> tuple[Seen, Matching]:
    """Match the landmarks (`matching.match`), with a decoder that is moved to the side where the labels lie.

    Annotators put points a little to one side: those of 300W lie 0.2 heatmap pixels to the right. A network that was
    calibrated for one set has this shift (`Decoder.shift`), and a matching cannot learn another one, because it treats
    both sides of the face alike. So the median of the horizontal differences is added to the shift. It is an estimate
    from few faces, which is scaled by 1 - (its standard error / its value)², and not used if that is negative.

    Args:
        start: the network.
        seen: its results.
        scheme: the scheme of the labels.

    Returns:
        ``seen`` with the moved points and decoder, and the matching.
    """
    matching = match(seen.points, seen.target, seen.labelled, start.scheme, scheme)
    found = matching.readout.points(seen.points)[..., 0]
    fitting = fitting_box(seen.points, start.config.box)
    side = (fitting[:, 2:] - fitting[:, :2]).max(-1)
    pixel = (side * start.config.crop_ratio * STRIDE / start.config.input_size)[:, None]
    away = (seen.target[..., 0] - found) / pixel
    # medians, for the points of a profile may lie far to one side
    faces = np.array([np.median(face[known]) for face, known in zip(away, seen.labelled, strict=True) if known.any()])
    right = float(np.median(faces))
    error = MEDIAN_ERROR * float(np.median(abs(faces - right))) / len(faces) ** 0.5
    if len(faces) < 2 or error >= abs(right):
        return seen, matching
    by = right * (1 - (error / right) ** 2)
    decoder = seen.config.decoder
    decoder = replace(decoder, shift=(decoder.shift[0] + by, decoder.shift[1]))
    points = seen.points + by * np.stack((pixel, np.zeros_like(pixel)), -1)
    seen = replace(seen, points=points, config=replace(seen.config, decoder=decoder))
    return seen, match(seen.points, seen.target, seen.labelled, start.scheme, scheme)


def look_twice(
    start: FaceAligner,
    records: Sequence[Record],
    larger: float,
    points: NDArray[np.float64] | None = None,
    progress: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, H, 2) and heights (N, H) of a second pass, in the boxes of the points of the first pass.

    Args:
        start: the network.
        records: the faces.
        larger: factor by which the crops of the first pass are enlarged.
        points: (N, H, 2) points of the first pass. None: the first pass is run.
        progress: draw progress bars on stderr.
    """
    ratio = start.config.crop_ratio * larger
    boxes = np.array([record.box for record in records], np.float64)
    if points is None:
        points = _run(_uncalibrated(start, ratio), records, boxes, "faces", progress)[0]
    own = fitting_box(points, start.config.box)
    # boxes of such a size that the crops with this ratio are as large as those that the network was trained on
    middle, half = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]) / 2 / larger
    around = np.concatenate((middle - half, middle + half), 1)
    around = np.where(_plausible(around, boxes, records)[:, None], around, boxes)
    return _run(_uncalibrated(start, ratio), records, around, "faces, in the boxes found", progress)


def _larger(
    start: FaceAligner,
    records: Sequence[Record],
    boxes: NDArray[np.float64],
    points: NDArray[np.float64],
    heights: NDArray[np.float64],
) -> float | None:
    """The smallest factor of `LARGER` with which the network is about as certain as with any (`ENOUGH`).

    None if the boxes are those that the network was trained on: it finds points that fit the boxes, and it is not more
    certain in larger crops, where its points show that the boxes are wrong.

    Args:
        start: the network.
        records: the faces.
        boxes: (N, 4) their boxes.
        points, heights: the results of the network in crops that are not enlarged.
    """
    few = spread(len(records), TRIED)
    found = {1.0: (points[few], heights[few])}

    def enlarge(factor: float) -> None:
        larger = _uncalibrated(start, start.config.crop_ratio * factor)
        found[factor] = _run(larger, [records[i] for i in few], boxes[few], "", False)

    def certain(factor: float) -> float:
        return float(found[factor][1].mean())

    reach = start.config.box
    if np.median(_off(points, boxes, reach)) <= OFF:
        enlarge(WIDE)
        if certain(WIDE) <= certain(1.0) or np.median(_off(found[WIDE][0], boxes[few], reach)) <= OFF:
            return None
    for factor in LARGER:
        if factor not in found:
            enlarge(factor)
    return min(factor for factor in LARGER if certain(factor) >= ENOUGH * max(map(certain, LARGER)))


def _plausible(found: NDArray[np.float64], given: NDArray[np.float64], records: Sequence[Record]) -> NDArray[np.bool_]:
    """(N,) whether a box that was found has a size, and its centre is in the image, or near the given box."""
    middle, centre = (found[:, :2] + found[:, 2:]) / 2, (given[:, :2] + given[:, 2:]) / 2
    near = (abs(middle - centre) <= (given[:, 2:] - given[:, :2]).max(1, keepdims=True)).all(1)
    sizes = np.array([record.size or (0, 0) for record in records])
    inside = np.where(sizes.all(1), ((middle >= 0) & (middle < sizes)).all(1), near)
    sized: NDArray[np.bool_] = (found[:, 2:] - found[:, :2]).min(1) >= 1
    return inside & sized


def _uncalibrated(start: FaceAligner, ratio: float | None = None) -> FaceAligner:
    """The aligner in its own scheme, with heights as scores, and with a crop ratio."""
    return start.with_config(
        replace(start.config, calibration={}, output=None, crop_ratio=ratio or start.config.crop_ratio)
    )


def _run(
    aligner: FaceAligner, records: Sequence[Record], boxes: NDArray[np.float64], what: str, progress: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    found = aligner.stream([r.image for r in records], list(boxes), refine=0, read_ahead=READ_AHEAD)
    bar = progress_bar(found, total=len(records), desc=what, unit="face", disable=not progress)
    results = [(face.points, face.scores) for face in bar]
    return (
        np.stack([points for points, _ in results]).astype(np.float64),
        np.stack([scores for _, scores in results]).astype(np.float64),
    )


def _off(points: NDArray[np.float64], boxes: NDArray[np.float64], reach: Sequence[float] | None) -> NDArray[np.float64]:
    nowhere = np.zeros((1, 1, 3), np.uint8)
    large = np.broadcast_to(nowhere, (1 << 20, 1 << 20, 3))
    return np.array([off(p, box, 0.0, large, reach) for p, box in zip(points, boxes, strict=True)])
