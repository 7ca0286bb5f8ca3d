"""Where two sources put the same landmark, and labels moved from one source's convention to the other's.

Data sets of the same landmarks disagree on where some of them lie: how far up the jaw line begins, which spot of the
inner lip is "left of the middle". A network that learns from both ends between them, off by some per cent of the face
from either. A network's own points are a yardstick that both sources can be held to: the median over faces of label
minus found is the source's offset, and the difference of two offsets is what a label has to be moved by.

Offsets are (K, 2) in the frame of an upright mean face (`shapes.upright`), in units of its root mean square radius.
They are the same for left and right, and for every pose: meant for differences of a few per cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..aligner import READ_AHEAD, FaceAligner
from ..schemes import Scheme
from .annotations import Record
from .shapes import mean_shape, turns, upright

#: A landmark that fewer faces have labelled has no offset.
LEAST_FACES = 50


def reference_shape(points: NDArray[np.float64], scheme: Scheme) -> NDArray[np.float64]:
    """The mean face, (K, 2), that offsets are told in.

    Args:
        points: (N, K, 2) pixels, of faces of all poses.
        scheme: says which landmarks change places when a face is mirrored.

    Raises:
        ValueError: a scheme without mirror pairs.
    """
    if scheme.permutation is None:
        raise ValueError(f"scheme {scheme.id!r} has no mirror pairs")
    return upright(mean_shape(points, np.ones(points.shape[:2], np.bool_)), scheme.permutation)


def offset(
    found: NDArray[np.float64], records: Sequence[Record], mean: NDArray[np.float64], scheme: Scheme
) -> NDArray[np.float64]:
    """How far, and in which direction, a source's labels lie from what a network finds.

    Args:
        found: (N, K, 2) pixels, the network's points.
        records: the N faces; those without points do not count, labels count by their weight.
        mean: `reference_shape`.
        scheme: as there.

    Returns:
        (K, 2), the weighted median over faces and their mirror images; NaN where fewer than `LEAST_FACES` faces have
        the landmark or its partner labelled.
    """
    order = scheme.permutation
    assert order is not None  # reference_shape has seen to it
    known = [(f, r.points, r.weights) for f, r in zip(found, records, strict=True) if r.points is not None]
    if not known:
        return np.full_like(mean, np.nan)
    points = np.stack([f for f, _, _ in known])
    weights = np.stack([w for _, _, w in known if w is not None])
    labels = np.where(weights[..., None] > 0, np.stack([p for _, p, _ in known]), points)
    turn = turns(points, np.ones(weights.shape, np.bool_), mean)
    apart = turn[:, None] * ((labels - points) @ np.array([1, 1j]))
    both = np.concatenate((apart, -apart.conj()[:, order]))
    share = np.concatenate((weights, weights[:, order]))
    counts = (weights > 0).sum(0)
    enough = np.minimum(counts, counts[order]) >= LEAST_FACES
    middle = np.stack((_median(both.real, share), _median(both.imag, share)), -1)
    return np.where(enough[:, None], middle, np.nan)


def moved(
    points: NDArray[np.float64], labelled: NDArray[np.bool_], by: NDArray[np.float64], mean: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Faces' points moved by an offset.

    Args:
        points: (N, K, 2) pixels; anything where not labelled.
        labelled: (N, K); a face of fewer than two labelled points stays.
        by: (K, 2) as `offset` returns it, or a difference of two; landmarks at NaN stay.
        mean: `reference_shape`.
    """
    turn = turns(points, labelled, mean)
    step = np.nan_to_num(by) @ np.array([1, 1j]) / np.where(turn == 0, np.inf, turn)[:, None]
    return points + np.stack((step.real, step.imag), -1)


def harmonized(
    aligner: FaceAligner, reference: Sequence[Record], like: Sequence[Record], data: Sequence[Record]
) -> tuple[list[Record], NDArray[np.float64]]:
    """Faces whose labels are moved onto the convention of a reference.

    Args:
        aligner: the yardstick, best one that has learned from all of these sources; in their scheme.
        reference: faces labelled in the wanted convention.
        like: faces labelled in the convention of ``data``, often the same. Where a network errs on a kind of face, such
            as babies, take faces of another kind that were labelled by the same rules.
        data: the faces to be moved.

    Returns:
        The faces (those without points as they are), and the (K, 2) shift in units of the mean face's root mean square
        radius, NaN where a landmark stays.

    Raises:
        ValueError: a scheme without mirror pairs.
    """
    anchor, own = _find(aligner, reference), _find(aligner, like)
    mean = reference_shape(anchor, aligner.scheme)
    by = offset(anchor, reference, mean, aligner.scheme) - offset(own, like, mean, aligner.scheme)
    faces = []
    for record in data:
        if record.points is not None and record.weights is not None:
            labelled = record.weights > 0
            where = np.where(labelled[:, None], record.points, 0.0)
            points = moved(where[None], labelled[None], by, mean)[0]
            record = replace(record, points=points)
        faces.append(record)
    return faces, by


def _find(aligner: FaceAligner, records: Sequence[Record]) -> NDArray[np.float64]:
    faces = aligner.stream([r.image for r in records], [r.box for r in records], refine=0, read_ahead=READ_AHEAD)
    bar = tqdm(faces, "look", total=len(records), unit="face")
    return np.stack([face.points.astype(np.float64) for face in bar])


def _median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K) -> (K,) weighted medians; 0 where all weights are."""
    order = values.argsort(0)
    values, weights = np.take_along_axis(values, order, 0), np.take_along_axis(weights, order, 0)
    sums = weights.cumsum(0)
    at = (sums >= sums[-1:] / 2).argmax(0)
    return np.where(sums[-1] > 0, np.take_along_axis(values, at[None], 0)[0], 0.0)
