"""The correction of landmarks by each other: what the points of a network say about each other's errors.

The errors of a network are partly systematic: where the chin is too low beside the other points, it is usually wrong in
the same way on the next face. `correct` learns this from labelled faces. In the frame of the face, the offset from the
found to the labelled place of each landmark is a constant plus a weighted sum of the deviations of all found landmarks
from the mean shape, in x and in y (ridge regression). The result is a `Readout` of the heads, which takes hardly any
time.

The network may have been trained on these faces, if its errors there are only slightly smaller than on others. The
validation faces must be others. They decide whether the correction is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..aligner import FaceAligner
from ..data.records import Dataset, Record, spread, stack_labels
from ..method.frame import Frame, both_sides
from ..method.readout import Readout, from_parts, from_weights, pick
from ..schemes import Scheme
from .calibrate import BOXES
from .evaluate import evaluate
from .normalizers import normalizer_text

#: Strengths of the ridge regression that are tried, see `frame.ridge`. Many faces allow a weak one.
STRENGTHS = (0.1, 1.0, 10.0, 100.0)

#: Largest number of faces of a data set that are used. They are spread evenly over it.
FACES = 5000

#: One face of so many is left out to choose the strength.
LEFT_OUT = 4

#: A landmark that is labelled on fewer faces is not corrected.
ENOUGH = 100

#: The correction must lower the error by more than this share. It takes no time: less is enough than for a second pass.
WORTH = 0.005


@dataclass(frozen=True)
class Learnt:
    """The result of `learn_correction`.

    Attributes:
        aligner: the aligner with the correction if it is useful, else without a correction.
        faces: number of faces from which it was learnt.
        before, after: NME of the validation faces in percent, without and with the correction, by kind of box, in one
            pass.
        normalizer: name of the distance by which errors were divided.
    """

    aligner: FaceAligner
    faces: int
    before: dict[str, float]
    after: dict[str, float]
    normalizer: str

    @property
    def useful(self) -> bool:
        """Whether the correction lowers the mean of the errors by more than the share `WORTH`."""
        return sum(self.after.values()) < (1 - WORTH) * sum(self.before.values())

    def text(self) -> str:
        """The result in a line of text."""
        errors = ", ".join(f"{box} {self.before[box]:.3f} to {self.after[box]:.3f}" for box in self.before)
        return (
            f"correction of the landmarks by each other, from {self.faces} faces, one pass, NME in percent of the "
            f"{normalizer_text(self.normalizer)}: {errors}{'' if self.useful else '; it is not used'}"
        )


def learn_correction(
    aligner: FaceAligner,
    training: Sequence[tuple[Dataset, float]],
    validation: Dataset,
    *,
    keep: Callable[[Record], bool] | None = None,
    progress: bool = True,
) -> Learnt:
    """Learn the correction of a network's landmarks from labelled faces, in their annotated boxes and in shifted ones.

    Args:
        aligner: the network. A correction that it has is not used.
        training: labelled faces, in the scheme of the network's heads. Of each data set this share is used, in (0, 1],
            and at most `FACES` faces.
        validation: other labelled faces, which decide whether the correction is used.
        keep: selects validation faces, as in `evaluate`.
        progress: draw progress bars on stderr.

    Raises:
        ValueError: a data set has another scheme or no labels; a share is outside (0, 1]; the aligner's landmarks are
            not those of its heads.
    """
    config = aligner.config
    if config.readout is not None or config.output is not None:
        raise ValueError(f"aligner is {config.name!r}, whose landmarks are computed from others: correct those")
    plain = aligner.with_config(replace(config, correction=None))
    some = [_some(dataset, share) for dataset, share in training]
    seen = [[evaluate(plain, faces, box=box, refine=0, progress=progress) for faces in some] for box in BOXES]
    found = [np.concatenate([report.points for report in reports]).astype(np.float64) for reports in seen]
    _, target, weights = stack_labels([record for report in seen[0] for record in report.records])
    mended = aligner.with_config(replace(config, correction=correct(found, target, weights > 0, config.scheme)))

    def errors(measured: FaceAligner) -> tuple[dict[str, float], str]:
        reports = {
            box: evaluate(measured, validation, box=box, refine=0, keep=keep, progress=progress) for box in BOXES
        }
        return {box: r.overall.nme for box, r in reports.items()}, reports[BOXES[0]].settings.normalizer

    before, normalizer = errors(plain)
    learnt = Learnt(mended, len(target), before, errors(mended)[0], normalizer)
    return learnt if learnt.useful else replace(learnt, aligner=plain)


def _some(dataset: Dataset, share: float) -> Dataset:
    if not 0 < share <= 1:
        raise ValueError(f"share of {dataset.name!r} is {share}, expected a number in (0, 1]")
    labelled = [record for record in dataset.records if record.labels is not None]
    if not labelled:
        raise ValueError(f"dataset {dataset.name!r} has no face with points")
    count = min(FACES, max(1, round(share * len(labelled))))
    return replace(dataset, records=tuple(labelled[row] for row in spread(len(labelled), count)))


def correct(
    found: Sequence[NDArray[np.float64]],
    target: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    scheme: Scheme,
) -> Readout:
    """Learn the correction of landmarks. The strength of the regression is chosen on a part of the faces.

    Args:
        found: (N, H, 2) points of the network on N faces, for one or several kinds of boxes.
        target: (N, H, 2) labels, in the same pixels.
        labelled: (N, H). A landmark that is labelled on fewer than `ENOUGH` faces is not corrected.
        scheme: scheme of the landmarks. If it has mirror pairs, each face also counts as its mirror image.
    """
    out = np.tile(np.arange(len(target)) % LEFT_OUT == 0, len(found))  # a face is left out with all its boxes
    target, labelled = np.concatenate([target] * len(found)), np.concatenate([labelled] * len(found))
    points, enough = np.concatenate(found), ENOUGH * len(found)
    size = np.ptp(np.where(labelled[..., None], target, points), axis=1).max(-1)

    def error(strength: float) -> float:
        learnt = _correct(points[~out], target[~out], labelled[~out], scheme, strength, enough)
        away = np.linalg.norm(learnt.points(points[out]) - target[out], axis=-1) / size[out, None]
        return float(away[labelled[out]].mean())

    return _correct(points, target, labelled, scheme, min(STRENGTHS, key=error), enough)


def _correct(
    found: NDArray[np.float64],
    target: NDArray[np.float64],
    labelled: NDArray[np.bool_],
    scheme: Scheme,
    strength: float,
    least: int,
) -> Readout:
    enough = np.flatnonzero(labelled.sum(0) >= least)
    old, new, known = both_sides(found, target, labelled, scheme.permutation, scheme.permutation)
    if not len(enough):
        return pick(len(scheme), range(len(scheme)))
    weights, mirrored = np.eye(len(scheme), dtype=np.complex128), np.zeros((len(scheme),) * 2, np.complex128)
    frame = Frame(old)
    ways = (new - old)[:, enough] / frame.scale(old)[:, None]
    own, mirrored[enough] = frame.regress(ways, old, known[:, enough], strength)
    weights[enough] += own
    return from_parts(from_weights(weights, mirrored, frame.turned).parts)  # as the file of weights holds it
