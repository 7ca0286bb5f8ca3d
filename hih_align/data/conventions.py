"""Label conventions: how two sources differ in where they put a landmark, and how to move labels to one convention.

Data sets with the same landmarks disagree on the place of some of them: how far up the jaw line begins, which spot of
the inner lip is "left of the middle", where the jaw contour of a turned face runs. A network that learns from two
sources predicts points between the two conventions, some per cent of the face away from each. The points of such a
network are a common reference for both sources. The offset of a source is the typical difference, for each pose, of its
labels and the points of the network. The difference of two offsets says how far to move a label.

An offset is an array (3, K, 2): the coefficients of 1, yaw and yaw² (`Frame.terms`). Their sum is a shift in the frame
of an upright mean face, in units of the root mean square radius of that face. A face and its mirror image have the same
offset. The method is meant for differences of a few per cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..aligner import READ_AHEAD, FaceAligner
from ..progress import progress_bar
from ..schemes import Scheme
from .records import Record, stack_labels
from .shapes import aligned, mean_shape, turns, upright

#: A landmark has an offset only if at least this many faces have it labelled.
LEAST_FACES = 50
#: Yaw is limited to this many standard deviations: few faces turn further, and the square of yaw grows fast.
_FURTHEST = 2.5
#: This share of the number of faces is added to the squares of the yaw terms, which are 0 if all faces look ahead.
_RIDGE = 0.01
#: Differences below this count by their squares, larger ones by their absolute values; in radii of the mean face.
_SMALL = 0.01

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """The mean face in which offsets are expressed, and how a face differs from it when the head turns.

    Attributes:
        mean: (K, 2), upright and symmetrical, of root mean square radius 1.
        axis: (K, 2), the change of the mean face at a yaw of 1: the main asymmetry of faces. Its sign is arbitrary.
        permutation: (K,) `Scheme.permutation`.
    """

    mean: _Floats
    axis: _Floats
    permutation: NDArray[np.intp]

    @classmethod
    def of(cls, points: _Floats, scheme: Scheme) -> Frame:
        """The frame of faces of all poses: ``points`` is (N, K, 2), in pixels.

        Raises:
            ValueError: the scheme has no mirror pairs.
        """
        order = scheme.permutation
        if order is None:
            raise ValueError(f"scheme {scheme.id!r} has no mirror pairs, expected mirror pairs")
        everything = np.ones(points.shape[:2], np.bool_)
        mean = upright(mean_shape(points, everything), order)
        bent = _bent(points, mean, order)
        _, sizes, axes = np.linalg.svd(bent.reshape(len(bent), -1), full_matrices=False)
        deviation = sizes[0] / np.sqrt(len(bent))
        return cls(mean, axes[0].reshape(mean.shape) * deviation, order)

    def terms(self, points: _Floats) -> _Floats:
        """(N, 3) terms 1, yaw and yaw² of faces (N, K, 2). The unit of yaw is its deviation in the frame's faces."""
        bent = _bent(points, self.mean, self.permutation)
        yaw = (bent * self.axis).sum((1, 2)) / max(float(np.square(self.axis).sum()), 1e-12)
        yaw = np.clip(yaw, -_FURTHEST, _FURTHEST)
        return np.stack((np.ones_like(yaw), yaw, yaw**2), -1)


def offset(found: _Floats, records: Sequence[Record], frame: Frame) -> _Floats:
    """The offset of a source: distance and direction of its labels from the points of a network.

    Args:
        found: (N, K, 2) the points of the network, in pixels.
        records: the N faces. Faces without points do not count. Labels count by their weights.
        frame: the frame in which the offset is expressed.

    Returns:
        (3, K, 2), fitted by least absolute differences to the faces and their mirror images. NaN if fewer than
        `LEAST_FACES` faces have the landmark, or its mirror image, labelled.
    """
    known, labels, weights = stack_labels(records)
    if not known:
        return np.full((3, *frame.mean.shape), np.nan)
    points = np.stack([f for f, record in zip(found, records, strict=True) if record.labels is not None])
    labels = np.where(weights[..., None] > 0, labels, points)
    order = frame.permutation
    apart = _turns(points, frame)[:, None] * ((labels - points) @ np.array([1, 1j]))
    apart = np.concatenate((apart, -apart.conj()[:, order]))
    terms = frame.terms(points)
    terms = np.concatenate((terms, terms * (1, -1, 1)))
    fit = _least_absolute(terms, apart, np.concatenate((weights, weights[:, order])))
    counts = (weights > 0).sum(0)
    enough = np.minimum(counts, counts[order]) >= LEAST_FACES
    return np.where(enough[:, None], np.stack((fit.real, fit.imag), -1), np.nan)


def moved(points: _Floats, found: _Floats, by: _Floats, frame: Frame) -> _Floats:
    """Move the points of faces by an offset.

    Args:
        points: (N, K, 2) pixels; points without a label may hold anything.
        found: (N, K, 2) the points of the network on these faces, in pixels. They give pose, scale and roll.
        by: (3, K, 2) an offset, or the difference of two. Landmarks with NaN keep their place.
        frame: the frame in which ``by`` is expressed.
    """
    turn = _turns(found, frame)
    step = frame.terms(found) @ (np.nan_to_num(by) @ np.array([1, 1j])) / np.where(turn == 0, np.inf, turn)[:, None]
    return points + np.stack((step.real, step.imag), -1)


def harmonized(
    aligner: FaceAligner,
    reference: Sequence[Record],
    like: Sequence[Record],
    data: Sequence[Record],
    progress: bool = True,
) -> tuple[list[Record], _Floats]:
    """Move the labels of faces to the label convention of a reference.

    Args:
        aligner: the network that serves as the common reference; best one that has learned from all of these sources.
            Its scheme is that of the faces.
        reference: faces that are labelled in the wanted convention.
        like: faces that are labelled in the convention of ``data``, often a part of ``data``. If the network fails on a
            kind of face, such as babies, give other faces that were labelled by the same rules.
        data: the faces to move.
        progress: draw progress bars on stderr.

    Returns:
        The faces (a face without points is returned as it is), and the offset that moved them: (3, K, 2), NaN for a
        landmark that stays.

    Raises:
        ValueError: the scheme has no mirror pairs, or no face of ``reference`` or ``like`` has points.
    """
    for name, faces_of in (("reference", reference), ("like", like)):
        if not any(record.labels is not None for record in faces_of):
            raise ValueError(f"{name}: none of {len(faces_of)} faces has points, expected labelled faces")
    each = {id(record): record for record in (*reference, *like, *data)}  # often ``like`` is a part of ``data``
    points = dict(zip(each, _find(aligner, list(each.values()), progress), strict=True))
    anchor, own, others = (np.stack([points[id(r)] for r in some]) for some in (reference, like, data))
    frame = Frame.of(anchor, aligner.scheme)
    by = offset(anchor, reference, frame) - offset(own, like, frame)
    faces = []
    for record, found in zip(data, others, strict=True):
        labels = record.labels
        if labels is not None:
            given = np.where(labels.known[:, None], labels.points, 0.0)
            labels = replace(labels, points=moved(given[None], found[None], by, frame)[0])
        faces.append(replace(record, labels=labels))
    return faces, by


def _find(aligner: FaceAligner, records: Sequence[Record], progress: bool) -> _Floats:
    faces = aligner.stream([r.image for r in records], [r.box for r in records], refine=0, read_ahead=READ_AHEAD)
    bar = progress_bar(faces, "look", total=len(records), unit="face", disable=not progress)
    return np.stack([face.points.astype(np.float64) for face in bar])


def _turns(points: _Floats, frame: Frame) -> NDArray[np.complex128]:
    return turns(points, np.ones(points.shape[:2], np.bool_), frame.mean)


def _bent(points: _Floats, mean: _Floats, order: NDArray[np.intp]) -> _Floats:
    """(N, K, 2) the asymmetric part of faces that are aligned to the mean."""
    shapes = aligned(points, np.ones(points.shape[:2], np.bool_), mean)
    return (shapes - shapes[:, order] * (-1, 1)) / 2


def _least_absolute(terms: _Floats, values: NDArray[np.complex128], weights: _Floats) -> NDArray[np.complex128]:
    """Coefficients (T, K) from terms (N, T), values and weights (N, K), by iteratively reweighted least squares."""
    ridge = _RIDGE * np.diag([0.0] + [1.0] * (terms.shape[1] - 1))
    fit = np.zeros((terms.shape[1], values.shape[1]), np.complex128)
    for k in range(values.shape[1]):
        w = weights[:, k]
        for _ in range(20):
            weighted = terms * w[:, None]
            normal = weighted.T @ terms + ridge * w.sum() + 1e-9 * np.eye(len(ridge))
            fit[:, k] = np.linalg.solve(normal, weighted.T @ values[:, k])
            w = weights[:, k] / np.maximum(abs(values[:, k] - terms @ fit[:, k]), _SMALL)
    return fit
