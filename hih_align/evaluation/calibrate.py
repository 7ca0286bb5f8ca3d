"""What is chosen for a network after training, on validation faces: decoder, refining passes, and score calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..data.boxes import Box, face_boxes
from ..data.records import Dataset, Record, stack_labels
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

#: The boxes that settings are chosen for, in equal parts: exact ones, and those of careless callers.
BOXES: tuple[Box, ...] = ("annotated", "jitter")

RADII = (4, None)
POWERS = (2.0, 2.5, 3.0, 4.0, 5.0)
TEMPERATURES = (0.25, 0.35, 0.5, 1.0)

#: Decoders for which the best shift is looked for: those of the least errors without one.
SHIFTED = 5


@dataclass(frozen=True)
class Chosen:
    """Settings, and what each candidate reached on the validation faces.

    Attributes:
        config: the model's, with the best decoder, refining passes and calibrations.
        decoders: mean NME by decoder, over the faces and both kinds of `BOXES`, without refining; those of the grid
            without and with the shift that suits each best.
        passes: mean NME by number of refining passes, for each kind of boxes, with the best decoder; where faces are
            refined above a threshold, with that.
        refining: how the passes were chosen; None where they were not.
        faces: how many faces these were.
        normalizer: what errors were divided by.
    """

    config: Config
    decoders: dict[Decoder, float]
    passes: dict[int, dict[str, float]]
    faces: int
    normalizer: str = "inter-ocular"
    refining: Refining | None = None


@dataclass
class _Seen:
    """What is kept of the faces' heatmaps: every candidate's points and the heights of the maxima."""

    points: dict[Decoder, NDArray[np.float64]]  # (N, K, 2) image pixels
    heights: NDArray[np.float64]  # (N, K)
    pixels: NDArray[np.float64]  # (N,) image pixels per heatmap pixel

    def shifted(self, decoder: Decoder) -> NDArray[np.float64]:
        """(N, K, 2) points of a candidate, moved by its shift."""
        return self.points[replace(decoder, shift=(0.0, 0.0))] + np.multiply.outer(self.pixels, decoder.shift)[:, None]


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
        aligner: the model, in the dataset's scheme.
        dataset: validation faces. Errors are divided by `normalizers.choose_normalizer`; faces on which its landmarks
            are not labelled count for the scores alone.
        keep: chooses among them, as in `evaluate`.
        decoder: choose decoder and refining passes; else the aligner's stay, and only the scores are calibrated.
        boxes: kinds of boxes for which refining is chosen, `BOXES` first.
        progress: draw progress bars on stderr.

    The decoder is the one of a grid (`RADII`, `POWERS`, `TEMPERATURES`) with the least mean NME, with the shift of all
    points that suits it best where that lowers the mean by more than `WORTH`; shifts are tried for the `SHIFTED` best.
    How many faces take a refining pass says `refining.choose`. The calibrations, one per decoder method, are logistic
    curves by maximum likelihood of a labelled point's error being below `TOLERANCE` of the annotated box.

    Raises:
        ValueError: another scheme, or no face left.
    """
    if not aligner.scheme.same_landmarks(dataset.scheme) or aligner.config.output is not None:
        raise ValueError(f"scheme of the data is {dataset.scheme.id!r}, expected the model's, {aligner.scheme.id!r}")
    complete = [record for record in dataset.records if record.labels is not None]
    chosen = [i for i, record in enumerate(complete) if keep is None or keep(record)]
    if not chosen:
        raise ValueError(f"dataset {dataset.name!r} has no face with points that was chosen")
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
    looked = list(dict.fromkeys(replace(d, shift=(0.0, 0.0)) for d in (argmax, *candidates, own)))
    seen = [_look(aligner, records, face_boxes(complete, box)[chosen], looked, progress) for box in BOXES]

    def by_box(decoder: Decoder) -> dict[str, float]:
        nme = [metrics.nme(s.shifted(decoder), target, norm, labelled) for s in seen]
        return {box: float(np.nanmean(errors)) for box, errors in zip(BOXES, nme, strict=True)}

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
    passes = {0: by_box(best)}  # evaluate's errors, to a rounding
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


def _distance(
    scheme: Scheme, normalizer: str, target: NDArray[np.float64], labelled: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(N,) distances, NaN where they are not labelled."""
    known = labelled[:, [i for group in scheme.normalizers[normalizer] for i in group]].all(-1)
    return np.where(known, scheme.distance(np.where(labelled[..., None], target, 0.0), normalizer), np.nan)


def _look(
    aligner: FaceAligner,
    records: Sequence[Record],
    boxes: NDArray[np.float64],
    decoders: Sequence[Decoder],
    progress: bool,
) -> _Seen:
    points: dict[Decoder, list[NDArray[np.float64]]] = {decoder: [] for decoder in decoders}
    heights, pixels = [], []
    readout = aligner.config.readout
    bar = progress_bar(records, unit="face", desc="heatmaps", disable=not progress)
    for record, box in zip(bar, boxes, strict=True):
        found = aligner.heatmaps(read_image(record.image), box)
        integer, decimal = torch.from_numpy(found.integer), torch.from_numpy(found.decimal)
        height = found.integer.max((-2, -1))
        heights.append(height if readout is None else height[readout.sources])
        pixels.append(STRIDE / found.transform.scale)
        for decoder in decoders:
            own = heatmaps.decode(integer, decimal, decoder).numpy()
            own = own if readout is None else readout.points(own)
            points[decoder].append(found.transform.to_image(own * STRIDE))
    found_points = {decoder: np.stack(p) for decoder, p in points.items()}
    return _Seen(found_points, np.stack(heights).astype(np.float64), np.array(pixels))


def _shift(decoder: Decoder, error: Callable[[Decoder], float]) -> Decoder:
    """The decoder with the shift of least error, a mean of distances and so convex in it; to 0.01 heatmap pixels."""
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
    """(N, K) 1.0 where the error is below the scores' tolerance, else 0.0."""
    distance = np.linalg.norm(points - np.nan_to_num(target), axis=-1)
    return (distance < TOLERANCE * longer[:, None]).astype(np.float64)


def fit_curve(height: NDArray[np.float64], close: NDArray[np.float64]) -> Calibration:
    """Logistic regression of ``close`` (0 or 1) on ``height`` by maximum likelihood, with a slope of at least 0.

    Its targets are Platt's (1999), a little less than 1 and more than 0, and there is a trace of L2: few points, or
    points that are all found or all lost, give a curve that is not sure of itself.
    """
    from scipy.optimize import minimize

    found = close.sum()
    close = np.where(close > 0, (found + 1) / (found + 2), 1 / (len(close) - found + 2))

    def loss(parameters: NDArray[np.float64]) -> float:
        z = parameters[0] * height + parameters[1]
        return float(np.mean(np.logaddexp(0, z) - close * z) + 1e-6 * parameters[0] ** 2)

    slope, bias = minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(0, None), (None, None)], tol=1e-12).x
    return Calibration(round(float(slope), 3), round(float(bias), 3))


def _mean(by_box: dict[str, float]) -> float:
    return sum(by_box.values()) / len(by_box)


def markdown(chosen: Chosen) -> str:
    """What was chosen and why, as Markdown."""
    best = chosen.config.decoder
    unmoved = min(e for d, e in chosen.decoders.items() if d.method == "expectation" and d.shift == (0.0, 0.0))
    argmax = next(error for decoder, error in chosen.decoders.items() if decoder.method == "argmax")
    lines = [
        f"{chosen.config.name}, {chosen.faces} validation faces, mean NME over {' and '.join(BOXES)} boxes, "
        f"in percent of the {normalizer_text(chosen.normalizer)}",
        "",
        f"- argmax {argmax:.3f}; best {chosen.decoders[best]:.3f} with {best} (without a shift {unmoved:.3f})",
        *(
            f"- refine={n}: " + ", ".join(f"{box} {error:.3f}" for box, error in by_box.items())
            for n, by_box in chosen.passes.items()
        ),
        f"- chosen: refine={chosen.config.refine}, refine_above={chosen.config.refine_above}",
        *(f"- scores, {method}: {curve}" for method, curve in chosen.config.calibration.items()),
    ]
    return "\n".join([*lines, *([] if chosen.refining is None else ["", chosen.refining.markdown()])])
