"""Choice of settings of a trained network on validation faces: decoder, refining passes, and score calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..crops import unmirrored
from ..data.boxes import Box, face_boxes
from ..data.records import Dataset, Record, spread, stack_labels
from ..hub.config import Config
from ..images import read_image
from ..method import heatmaps
from ..method.decoder import ARGMAX, STRIDE, Decoder
from ..progress import progress_bar
from ..schemes import Scheme
from ..scores import TOLERANCE, Calibration
from . import metrics, refining
from .evaluate import AnyBox, evaluate
from .normalizers import choose_normalizer, normalizer_text
from .refining import WORTH, Refining

#: The kinds of boxes for which settings are chosen, with equal weights: exact boxes, and inaccurate boxes.
BOXES: tuple[Box, ...] = ("annotated", "jitter")

RADII = (4, None)
POWERS = (2.0, 2.5, 3.0, 4.0, 5.0)
TEMPERATURES = (0.25, 0.35, 0.5, 1.0)

#: Number of decoders for which the best shift is searched: those with the lowest errors without a shift.
SHIFTED = 5

#: The aligner keeps its decoder unless the gain of the best one is more than this many times its standard error. The
#: best of forty decoders on a few faces is often worse on others (reports/training/own_landmarks).
SURE = 2.0

#: The bias of the decoder is measured on so many faces at most, and not on fewer than that.
MIRRORED, LEAST_MIRRORED = 100, 20

#: The curve that a calibration starts from, near those of our networks. It counts as much as `USUAL_POINTS` points
#: whose heights are spread evenly from 0 to 1. Therefore the curve of a few faces gives a low score where there is no
#: face, even if all of their points are close.
USUAL = Calibration(10.0, -5.0)
USUAL_POINTS = 20


@dataclass(frozen=True)
class Chosen:
    """The settings that `calibrate` chose, and the errors of all candidates on the validation faces.

    Attributes:
        config: the config of the model, with the best decoder, refining passes and calibrations.
        decoders: mean NME in percent of each decoder, over the faces and both kinds of `BOXES`, without refining. It
            holds the decoders of the grid, and the best ones also with their best shift.
        passes: mean NME in percent for each number of refining passes and each kind of boxes, with the best decoder. If
            a threshold was chosen, only the faces above it are refined.
        refining: the choice of the refining passes. None if they were not chosen.
        faces: number of validation faces.
        normalizer: name of the distance by which errors were divided.
    """

    config: Config
    decoders: dict[Decoder, float]
    passes: dict[int, dict[str, float]]
    faces: int
    normalizer: str = "inter-ocular"
    refining: Refining | None = None


@dataclass
class _Seen:
    """The parts of the faces' heatmaps that are needed: the points of each candidate, and the heights of the maxima."""

    points: dict[Decoder, NDArray[np.float64]]  # (N, K, 2) image pixels
    heights: NDArray[np.float64]  # (N, K)
    pixels: NDArray[np.float64]  # (N,) image pixels per heatmap pixel

    def shifted(self, decoder: Decoder) -> NDArray[np.float64]:
        """(N, K, 2) points of a candidate in image pixels, moved by its shift."""
        return self.points[_unmoved(decoder)] + np.multiply.outer(self.pixels, decoder.shift)[:, None]


def _unmoved(decoder: Decoder) -> Decoder:
    return replace(decoder, shift=(0.0, 0.0), bias=0.0)


def calibrate(
    aligner: FaceAligner,
    dataset: Dataset,
    *,
    keep: Callable[[Record], bool] | None = None,
    decoder: bool = True,
    boxes: Sequence[AnyBox] = refining.BOXES,
    progress: bool = True,
) -> Chosen:
    """Choose decoder, refining passes and score calibration.

    Args:
        aligner: the model. Its scheme has the landmarks of the dataset.
        dataset: validation faces. Errors are divided by `normalizers.choose_normalizer`. Faces on which the landmarks
            of the normalizer are not labelled are used only for the scores.
        keep: selects faces, as in `evaluate`.
        decoder: choose the decoder and the refining passes. If False, the aligner keeps its own, and only the scores
            are calibrated.
        boxes: kinds of boxes for which refining is chosen. The first two must be `BOXES`.
        progress: draw progress bars on stderr.

    The decoder is the one with the lowest mean NME in a grid (`RADII`, `POWERS`, `TEMPERATURES`). For the `SHIFTED`
    best decoders, the best constant shift of all points is searched. A shift is used if it lowers the mean NME by more
    than the share `WORTH`. The aligner keeps its own decoder if the best one is not better by more than `SURE` times
    the standard error of the difference. Its `Decoder.bias` is measured anew if there are enough faces
    (`LEAST_MIRRORED`) and mirror pairs.

    `refining.choose` chooses which faces get a second pass. There is one calibration per decoder method: a logistic
    curve that estimates the probability that the error of a labelled point is below `TOLERANCE` of the longer side of
    the annotated box (`fit_curve`).

    Raises:
        ValueError: the dataset has another scheme, or no face is left.
    """
    if not aligner.scheme.same_landmarks(dataset.scheme) or aligner.config.output is not None:
        raise ValueError(f"dataset has scheme {dataset.scheme.id!r}, expected {aligner.scheme.id!r}, as the model has")
    complete = [record for record in dataset.records if record.labels is not None]
    chosen = [i for i, record in enumerate(complete) if keep is None or keep(record)]
    if not chosen:
        raise ValueError(f"dataset {dataset.name!r} has no face with points that was selected")
    records = [complete[i] for i in chosen]
    _, target, weights = stack_labels(records)
    labelled = weights > 0
    longer = np.array([(record.box[2:] - record.box[:2]).max() for record in records])
    normalizer = choose_normalizer(dataset.scheme, records)
    norm = longer if normalizer == "box" else _distance(dataset.scheme, normalizer, target, labelled)
    offset, own = aligner.config.bin_offset, aligner.decoder
    argmax = replace(ARGMAX, bin_offset=offset)
    if decoder:
        candidates = [
            Decoder("expectation", radius, power, temperature, offset)
            for radius, power, temperature in product(RADII, POWERS, TEMPERATURES)
        ]
    else:
        candidates = [own if own.method == "expectation" else Decoder("expectation", bin_offset=offset)]
    looked = list(dict.fromkeys(_unmoved(d) for d in (argmax, *candidates, own)))
    seen = [_look(aligner, records, face_boxes(complete, box)[chosen], looked, progress) for box in BOXES]

    def by_face(decoder: Decoder) -> NDArray[np.float64]:
        """(2, N) NME of each face in both kinds of boxes."""
        return np.stack([metrics.nme(s.shifted(decoder), target, norm, labelled) for s in seen])

    def by_box(decoder: Decoder) -> dict[str, float]:
        return dict(zip(BOXES, np.nanmean(by_face(decoder), 1).tolist(), strict=True))

    def error(decoder: Decoder) -> float:
        return _mean(by_box(decoder))

    errors = {candidate: error(candidate) for candidate in (argmax, *candidates)}
    best = min(candidates, key=errors.__getitem__)
    if decoder:
        likely = sorted(candidates, key=errors.__getitem__)[:SHIFTED]
        bar = progress_bar(likely, unit="decoder", desc="shift", disable=not progress)
        shifted = [_shift(candidate, error) for candidate in bar]
        errors |= {candidate: error(candidate) for candidate in shifted}
        moved = min(shifted, key=errors.__getitem__)
        if errors[moved] < (1 - WORTH) * errors[best]:
            best = moved
        sure = metrics.clearly_lower(by_face(best).mean(0), by_face(own).mean(0), SURE)
        if own.method == "expectation" and not sure:
            best = own
        best = measured_bias(aligner, best, records, progress)

    curves: dict[str, Calibration] = {
        read.method: fit_curve(
            np.concatenate([s.heights[labelled] for s in seen]),
            np.concatenate([_close(s.shifted(read), target, longer)[labelled] for s in seen]),
        )
        for read in (argmax, best)
    }
    best = best if decoder else own
    errors[best] = error(best)
    config = replace(aligner.config, decoder=best, calibration=curves)
    tuned = FaceAligner(
        aligner.network,
        config,
        device=aligner.device,
        dtype=aligner.dtype,
        backend=aligner.backend,
        detector=aligner.detector,
    )
    passes = {0: by_box(best)}  # as `evaluate` computes it, except for rounding errors
    how = None
    if decoder and config.refits:
        seen_twice = refining.look_twice(
            tuned, dataset, boxes=boxes, normalizer=normalizer, keep=keep, progress=progress
        )
        how = refining.choose(seen_twice)
        config = replace(config, refine=how.refine, refine_above=how.above)
        refined = how if how.refine else replace(how, refine=1)
        passes = {0: replace(how, refine=0).nme(), 1: refined.nme()}
    elif config.refine:
        reports = {box: evaluate(tuned, dataset, box=box, keep=keep, progress=progress) for box in BOXES}
        passes[config.refine] = {box: report.overall.nme for box, report in reports.items()}
    return Chosen(config, errors, passes, len(records), normalizer, how)


def measured_bias(aligner: FaceAligner, decoder: Decoder, records: Sequence[Record], progress: bool = True) -> Decoder:
    """A decoder with its `Decoder.bias`: half of the distance in x of faces' points from those of the mirrored faces.

    Args:
        aligner: the model.
        decoder: the decoder, with any bias.
        records: the faces. Their labels are not used. At most `MIRRORED` of them are.
        progress: draw progress bars on stderr.

    Without mirror pairs, or with fewer than `LEAST_MIRRORED` faces, the result is the decoder as it came.
    """
    if aligner.config.scheme.permutation is None or len(records) < LEAST_MIRRORED:
        return decoder
    some, plain = [records[i] for i in spread(len(records), MIRRORED)], _unmoved(decoder)
    boxes = face_boxes(some, BOXES[0])
    here, there = (_look(aligner, some, boxes, [plain], progress, mirrored) for mirrored in (False, True))
    apart = (here.points[plain] - there.points[plain])[..., 0] / here.pixels[:, None]
    return replace(decoder, bias=round(float(np.median(apart)) / 2, 3))


def _distance(
    scheme: Scheme, normalizer: str, target: NDArray[np.float64], labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(N,) distances in pixels. NaN for faces on which the landmarks of the distance are not labelled."""
    known = labelled[:, [i for group in scheme.normalizers[normalizer] for i in group]].all(-1)
    return np.where(known, scheme.distance(np.where(labelled[..., None], target, 0.0), normalizer), np.nan)


def _look(
    aligner: FaceAligner,
    records: Sequence[Record],
    boxes: NDArray[np.float64],
    decoders: Sequence[Decoder],
    progress: bool,
    mirrored: bool = False,
) -> _Seen:
    """The heatmaps of faces in boxes (N, 4). ``mirrored``: those of the mirrored faces; the points are mapped back."""
    points: dict[Decoder, list[NDArray[np.float64]]] = {decoder: [] for decoder in decoders}
    heights, pixels = [], []
    config = aligner.config
    readouts = {decoder: replace(config, decoder=decoder).reading for decoder in decoders}
    bar = progress_bar(records, unit="face", desc="mirrored" if mirrored else "heatmaps", disable=not progress)
    for record, box in zip(bar, boxes, strict=True):
        image = read_image(record.image)
        if mirrored:
            image, edge = np.ascontiguousarray(image[:, ::-1]), image.shape[1] - 1
            box = np.array([edge - box[2], box[1], edge - box[0], box[3]])
        found = aligner.heatmaps(image, box)
        integer, decimal = torch.from_numpy(found.integer), torch.from_numpy(found.decimal)
        height = found.integer.max((-2, -1))
        heights.append(height[config.sources])
        pixels.append(STRIDE / found.transform.scale)
        for decoder, own in heatmaps.decode_each(integer, decimal, decoders).items():
            readout = readouts[decoder]
            read = own.numpy() if readout is None else readout.points(own.numpy())
            there = found.transform.to_image(read * STRIDE)
            if mirrored:
                there = unmirrored(there[config.scheme.permutation], image.shape[1], 0.0)
            points[decoder].append(there)
    found_points = {decoder: np.stack(p) for decoder, p in points.items()}
    return _Seen(found_points, np.stack(heights).astype(np.float64), np.array(pixels))


def _shift(decoder: Decoder, error: Callable[[Decoder], float]) -> Decoder:
    """The decoder with the shift of the lowest error, rounded to 0.01 heatmap pixels.

    The error is a mean of distances, and therefore a convex function of the shift.
    """
    from scipy.optimize import minimize

    found = minimize(
        lambda shift: error(replace(decoder, shift=tuple(shift))),
        np.zeros(2),
        method="Nelder-Mead",
        options={"initial_simplex": [(0, 0), (0.2, 0), (0, 0.2)], "xatol": 0.005, "fatol": 1e-4},
    )
    x, y = np.round(found.x, 2).tolist()
    return replace(decoder, shift=(x, y))


def _close(
    points: NDArray[np.float64], target: NDArray[np.float64], longer: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, K) 1.0 for points with an error below `TOLERANCE`, else 0.0."""
    distance = np.linalg.norm(points - np.nan_to_num(target), axis=-1)
    return (distance < TOLERANCE * longer[:, None]).astype(np.float64)


def fit_curve(height: NDArray[np.float64], close: NDArray[np.float64]) -> Calibration:
    """Logistic regression of ``close`` (0 or 1) on ``height``, with a slope of at least 0, and with `USUAL` as prior.

    The targets are those of Platt (1999): slightly less than 1, and slightly more than 0. Therefore the curve stays
    away from 0 and 1 if there are few points, or if all points are close or none is.
    """
    from scipy.optimize import minimize

    found = close.sum()
    close = np.where(close > 0, (found + 1) / (found + 2), 1 / (len(close) - found + 2))
    usual = (np.arange(USUAL_POINTS) + 0.5) / USUAL_POINTS
    height = np.concatenate((height, usual))
    close = np.concatenate((close, 1 / (1 + np.exp(-(USUAL.slope * usual + USUAL.bias)))))

    def loss(parameters: NDArray[np.float64]) -> float:
        z = parameters[0] * height + parameters[1]
        return float(np.mean(np.logaddexp(0, z) - close * z))

    start = np.array([USUAL.slope, USUAL.bias])
    slope, bias = minimize(loss, start, method="L-BFGS-B", bounds=[(0, None), (None, None)], tol=1e-12).x
    return Calibration(round(float(slope), 3), round(float(bias), 3))


def _mean(by_box: dict[str, float]) -> float:
    return sum(by_box.values()) / len(by_box)


def markdown(chosen: Chosen) -> str:
    """The choice and the errors that it is based on, as Markdown."""
    best = chosen.config.decoder
    unmoved = [e for d, e in chosen.decoders.items() if d.method == "expectation" and d.shift == (0.0, 0.0)]
    # a decoder that was not chosen is the only candidate beside argmax, and may have a shift
    without = f" (without a shift {min(unmoved):.3f})" if unmoved else ""
    argmax = next(error for decoder, error in chosen.decoders.items() if decoder.method == "argmax")
    lines = [
        f"{chosen.config.name}, {chosen.faces} validation faces, mean NME over {' and '.join(BOXES)} boxes, "
        f"in percent of the {normalizer_text(chosen.normalizer)}",
        "",
        f"- argmax {argmax:.3f}; best {chosen.decoders[best]:.3f} with {best}{without}",
        *(
            f"- refine={n}: " + ", ".join(f"{box} {error:.3f}" for box, error in by_box.items())
            for n, by_box in chosen.passes.items()
        ),
        f"- chosen: refine={chosen.config.refine}, refine_above={chosen.config.refine_above}",
        *(f"- scores, {method}: {curve}" for method, curve in chosen.config.calibration.items()),
    ]
    return "\n".join([*lines, *([] if chosen.refining is None else ["", chosen.refining.markdown()])])
