"""Own landmarks without training: they are computed from the landmarks of a trained network (`matching`)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..aligner import READ_AHEAD, FaceAligner
from ..crops import reach_of, tight_box
from ..data.annotations import Dataset, Record, read_dataset
from ..data.records import spread, stack_labels
from ..evaluation.calibrate import fit_curve
from ..evaluation.normalizers import choose_normalizer, normalizer_text
from ..evaluation.results import Report, Settings
from ..hub.config import Config
from ..method.decoder import STRIDE, Decoder
from ..passes import off
from ..progress import progress_bar
from ..schemes import Scheme, get_scheme
from ..scores import TOLERANCE, Calibration
from .advice import advice
from .matching import Matching, cross_validated, match

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


@dataclass(frozen=True, eq=False, repr=False)
class Adapted:
    """The result of `adapt`.

    Attributes:
        aligner: the aligner for the new landmarks.
        matching: how each new landmark is computed.
        report: the errors by cross-validation. Each face is measured with a matching of other photographs.
        advice: sentences about possible problems of the data or of the result. Empty if there are none.
        seconds: duration of `adapt` in seconds.
    """

    aligner: FaceAligner
    matching: Matching
    report: Report
    advice: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        return f"Adapted({self.aligner!r}, {self.report!r})"

    def text(self) -> str:
        """A text for the user: the table of the matching, the error, and the advice."""
        report = self.report
        lines = [
            self.matching.text(),
            f"cross-validated on {report.overall.measured} faces: NME {report.overall.nme:.3f} % of the "
            f"{normalizer_text(report.settings.normalizer)}, without training, {self.seconds:.0f} s",
            *(f"warning: {sentence}" for sentence in self.advice),
        ]
        return "\n".join(lines)


def adapt(
    init: str | os.PathLike[str] | FaceAligner,
    data: str | os.PathLike[str] | Dataset,
    *,
    scheme: str | os.PathLike[str] | Scheme | None = None,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    backend: str = "torch",
    progress: bool = True,
) -> Adapted:
    """Create an aligner for own landmarks from a trained network and labelled faces, without training.

    Args:
        init: the network: "HIH_T/300w", a folder, a Hub repository, or an aligner.
        data: the labelled faces: a data set, or a path that `read_dataset` accepts. About 12 faces are sufficient if
            the new landmarks are landmarks of the network, and about 50 if they lie beside them.
        scheme: the scheme of the data if ``data`` is a path: the id of a built-in scheme, a scheme file, or a `Scheme`.
            None: the names of the landmarks in a COCO file.
        out: a folder in which the result is saved, as by `FaceAligner.save_pretrained`.
        device, backend: the device and the runtime of the network and of the result, as in
            `FaceAligner.from_pretrained`.
        progress: draw progress bars on stderr.

    The network is run once on each face. It is run once more if the boxes are not those that it was trained on, for
    example the tight boxes of a few landmarks.

    Raises:
        TypeError, ValueError, FileNotFoundError, OSError: the errors of `FaceAligner.from_pretrained` and
            `read_dataset`. ValueError: a landmark is labelled on no face.
    """
    begun = time.perf_counter()
    faces = open_dataset(data, scheme)
    start = init if isinstance(init, FaceAligner) else FaceAligner.from_pretrained(init, device=device, backend=backend)
    seen = look(start, faces, progress=progress)
    known = start.scheme
    seen, matching = match_seen(start, seen, faces.scheme)
    groups = [record.image for record in seen.records]
    held_out = cross_validated(seen.points, seen.target, seen.labelled, known, faces.scheme, groups)
    report = _report(seen, held_out, matching, seen.config.decoder, faces)
    config = adapted_config(start, seen, matching, faces.scheme)
    config = replace(config, calibration={start.decoder.method: _curve(report)})
    aligner = start.with_config(config, config.decoder)
    if out is not None:
        aligner.save_pretrained(out)
    said = advice(report, matching, seen.points, known)
    return Adapted(aligner, matching, report, said, time.perf_counter() - begun)


def open_dataset(
    data: str | os.PathLike[str] | Dataset, scheme: str | os.PathLike[str] | Scheme | None = None
) -> Dataset:
    """Return a data set unchanged, or read it. Without a scheme, the landmarks are those that a COCO file names.

    Raises:
        ValueError: there is no scheme, and the file names no landmarks. Also the errors of `read_dataset`.
    """
    if isinstance(data, Dataset):
        return data
    if scheme is None:
        from ..data.readers.coco import scheme_of

        return read_dataset(data, scheme_of(Path(data)))
    return read_dataset(data, get_scheme(scheme if isinstance(scheme, Scheme) else os.fspath(scheme)))


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
    best = _larger(start, records, boxes, points, heights) if start.config.refits else None
    if best is not None:
        points, heights = look_twice(start, records, best, points if best == 1.0 else None, progress)
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
    pixel = (np.ptp(seen.points, axis=1).max(-1) * start.config.crop_ratio * STRIDE / start.config.input_size)[:, None]
    away = np.ma.masked_array((seen.target[..., 0] - found) / pixel, ~seen.labelled)
    faces = np.ma.median(away, axis=1).compressed()  # medians, for the points of a profile may lie far to one side
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
    tight = tight_box(points)
    # boxes of such a size that the crops with this ratio are as large as those that the network was trained on
    middle, half = (tight[:, :2] + tight[:, 2:]) / 2, (tight[:, 2:] - tight[:, :2]) / 2 / larger
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

    if np.median(_off(points, boxes)) <= OFF:
        enlarge(WIDE)
        if certain(WIDE) <= certain(1.0) or np.median(_off(found[WIDE][0], boxes[few])) <= OFF:
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


def _off(points: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    nowhere = np.zeros((1, 1, 3), np.uint8)
    large = np.broadcast_to(nowhere, (1 << 20, 1 << 20, 3))
    return np.array([off(p, box, 0.0, large) for p, box in zip(points, boxes, strict=True)])


def _report(seen: Seen, held_out: NDArray[np.float64], matching: Matching, decoder: Decoder, faces: Dataset) -> Report:
    """The errors of cross-validated points. A landmark that cannot be cross-validated has the points of `match`."""
    own = matching.readout.points(seen.points)
    return Report(
        model="cross-validated",
        dataset=faces.name,
        scheme=faces.scheme,
        settings=Settings(
            decoder=asdict(decoder),
            normalizer=choose_normalizer(faces.scheme, seen.records),
            keep=faces.chosen,
            calibrated=False,
        ),
        records=seen.records,
        boxes=seen.boxes,
        points=np.where(np.isnan(held_out), own, held_out).astype(np.float32),
        scores=seen.heights[:, matching.readout.sources].astype(np.float32),
    )


def adapted_config(start: FaceAligner, seen: Seen, matching: Matching, scheme: Scheme) -> Config:
    """The config for the new landmarks without training, with the readout and the boxes that the network needs."""
    readout = matching.readout
    if start.config.readout is not None:
        readout = start.config.readout.then(readout.weights)
    own = tight_box(matching.readout.points(seen.points))
    return replace(
        start.config,
        scheme=scheme,
        name=f"{start.config.name.partition('/')[0]}/{scheme.id}" if start.config.name else scheme.id,
        decoder=seen.config.decoder,
        readout=readout,
        output=None,
        crop_ratio=seen.config.crop_ratio,
        refine=seen.config.refine,
        refine_above=None,
        box=_reach(start, seen, own),
    )


def _curve(report: Report) -> Calibration:
    """The calibration of heights by cross-validated errors."""
    known = ~np.isnan(report.box_errors)
    return fit_curve(
        report.scores[known].astype(np.float64), (report.box_errors[known] < 100 * TOLERANCE).astype(float)
    )


def _reach(start: FaceAligner, seen: Seen, own: NDArray[np.float64]) -> tuple[float, float, float, float] | None:
    """How far the boxes that the network needs reach beyond the tight boxes of the new points (`Config.box`).

    None if a tight box has no size, or if the network does not compute boxes from points.
    """
    if (own[:, 2:] - own[:, :2]).min() < 1 or not start.config.refits:
        return None
    tight = tight_box(seen.points)
    middle, half = (tight[:, :2] + tight[:, 2:]) / 2, (tight[:, 2:] - tight[:, :2]) / 2
    half = half * start.config.crop_ratio / seen.config.crop_ratio
    return reach_of(np.concatenate((middle - half, middle + half), 1), own)
