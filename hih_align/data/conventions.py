"""Label conventions: how far apart two sources put the same landmark, and labels moved from one to the other.

Data sets of the same landmarks disagree on where some of them lie: how far up the jaw line begins, which spot of the
inner lip is "left of the middle", what becomes of the contour that is turned away. A network that learns from both ends
between them, off by some per cent of the face from either. A network's own points are a yardstick that both sources can
be held to: how far labels lie from it, in the typical face of a pose, is the source's offset, and the difference of two
offsets is what a label has to be moved by.

Offsets are (3, K, 2): times 1, yaw and yaw² (`Frame.terms`) and summed they are shifts in the frame of an upright mean
face, in units of its root mean square radius. They are the same for a face and its mirror image. Meant for differences
of a few per cent.
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

#: A landmark that fewer faces have labelled has no offset.
LEAST_FACES = 50
#: Yaw is cut off here, in its deviations: there are few faces beyond, and a square grows fast.
_FURTHEST = 2.5
#: Of the faces' number, added to the squares of yaw's terms: where all faces look straight on they are 0.
_RIDGE = 0.01
#: Differences below this count by their squares, in the mean face's radii; above, by themselves (a median).
_SMALL = 0.01

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Frame:
    """The mean face in which offsets are told, and how faces differ from it by turning left and right.

    Attributes:
        mean: (K, 2) upright and symmetrical, of root mean square radius 1.
        axis: (K, 2) what a yaw of 1 does to it, the main way in which faces are not symmetrical. Its sign is free.
        permutation: (K,) `Scheme.permutation`.
    """

    mean: _Floats
    axis: _Floats
    permutation: NDArray[np.intp]

    @classmethod
    def of(cls, points: _Floats, scheme: Scheme) -> Frame:
        """From (N, K, 2) points of faces of all poses, in pixels.

        Raises:
            ValueError: a scheme without mirror pairs.
        """
        order = scheme.permutation
        if order is None:
            raise ValueError(f"scheme {scheme.id!r} has no mirror pairs")
        everything = np.ones(points.shape[:2], np.bool_)
        mean = upright(mean_shape(points, everything), order)
        bent = _bent(points, mean, order)
        _, sizes, axes = np.linalg.svd(bent.reshape(len(bent), -1), full_matrices=False)
        deviation = sizes[0] / np.sqrt(len(bent))
        return cls(mean, axes[0].reshape(mean.shape) * deviation, order)

    def terms(self, points: _Floats) -> _Floats:
        """(N, K, 2) points of faces -> (N, 3): 1, yaw and yaw², yaw in deviations of the faces that made the frame."""
        bent = _bent(points, self.mean, self.permutation)
        yaw = (bent * self.axis).sum((1, 2)) / max(float(np.square(self.axis).sum()), 1e-12)
        yaw = np.clip(yaw, -_FURTHEST, _FURTHEST)
        return np.stack((np.ones_like(yaw), yaw, yaw**2), -1)


def offset(found: _Floats, records: Sequence[Record], frame: Frame) -> _Floats:
    """How far, and in which direction, a source's labels lie from what a network finds.

    Args:
        found: (N, K, 2) pixels, the network's points.
        records: the N faces; those without points do not count, labels count by their weight.
        frame: see there.

    Returns:
        (3, K, 2), by least absolute differences over faces and their mirror images; NaN where fewer than `LEAST_FACES`
        faces have the landmark or its partner labelled.
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
    """Faces' points moved by an offset.

    Args:
        points: (N, K, 2) pixels; anything where not labelled.
        found: (N, K, 2) pixels, what a network finds there: it tells pose, scale and roll.
        by: (3, K, 2) as `offset` returns it, or a difference of two; landmarks at NaN stay.
        frame: see there.
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
    """Faces whose labels are moved onto the convention of a reference.

    Args:
        aligner: the yardstick, at best one that has learned from all of these sources; in their scheme.
        reference: faces labelled in the wanted convention.
        like: faces labelled in the convention of ``data``, often some of them. Where a network errs on a kind of face,
            such as babies, take faces of another kind that were labelled by the same rules.
        data: the faces to be moved.
        progress: draw progress bars on stderr.

    Returns:
        The faces (those without points as they are), and by how much: (3, K, 2), NaN where a landmark stays.

    Raises:
        ValueError: a scheme without mirror pairs.
    """
    anchor = _find(aligner, reference, progress)
    frame = Frame.of(anchor, aligner.scheme)
    by = offset(anchor, reference, frame) - offset(_find(aligner, like, progress), like, frame)
    faces = []
    for record, found in zip(data, _find(aligner, data, progress), strict=True):
        labels = record.labels
        if labels is not None:
            points = np.where(labels.known[:, None], labels.points, 0.0)
            labels = replace(labels, points=moved(points[None], found[None], by, frame)[0])
        faces.append(replace(record, labels=labels))
    return faces, by


def _find(aligner: FaceAligner, records: Sequence[Record], progress: bool) -> _Floats:
    faces = aligner.stream([r.image for r in records], [r.box for r in records], refine=0, read_ahead=READ_AHEAD)
    bar = progress_bar(faces, "look", total=len(records), unit="face", disable=not progress)
    return np.stack([face.points.astype(np.float64) for face in bar])


def _turns(points: _Floats, frame: Frame) -> NDArray[np.complex128]:
    return turns(points, np.ones(points.shape[:2], np.bool_), frame.mean)


def _bent(points: _Floats, mean: _Floats, order: NDArray[np.intp]) -> _Floats:
    """(N, K, 2) what is not symmetrical in the faces, once aligned to the mean."""
    shapes = aligned(points, np.ones(points.shape[:2], np.bool_), mean)
    return (shapes - shapes[:, order] * (-1, 1)) / 2


def _least_absolute(terms: _Floats, values: NDArray[np.complex128], weights: _Floats) -> NDArray[np.complex128]:
    """(N, T) terms, (N, K) values and weights -> (T, K) coefficients, by iteratively reweighted least squares."""
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
