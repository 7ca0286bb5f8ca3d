"""Advice: sentences about likely mistakes in labelled faces, or in the result of a network.

Most mistakes of a first attempt show in the errors, in the boxes, or in how the labels lie relative to the landmarks of
a network that knows faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..crops import reach_of
from ..data.records import named, whole
from ..schemes import Scheme
from ..schemes.scheme import Group

if TYPE_CHECKING:
    from ..data.annotations import Record
    from ..evaluation.results import Report
    from .matching import Matching

Five = tuple[Group, Group, Group, Group, Group]

#: An NME above this, in percent, is not a good result.
HIGH = 10.0

#: A face is listed if its error is more than this many times the median.
TIMES = 10.0

#: A mirror pair is doubtful if a landmark lies further than this from the mirror image of the other; share of the face.
MIRROR = 0.12

#: Landmarks show an eye, the nose tip or a mouth corner if their mean lies no further from it; share of the face.
FIVE = 0.04

#: Below this median height, a network sees no faces. On faces it is 0.69 (profiles) to 0.88, on faces that lie on their
#: side 0.51 to 0.69, and in boxes of four times the size of a face 0.2 to 0.43 (HIH_N, HIH_T and HIH_B).
SEEN = 0.55

#: Allowed difference between the boxes of training and validation, in shares of a box.
TIGHTNESS = 0.15

#: A curve still falls steeply if its last fifth is lower than the part before by this share.
STEEP = 0.05

#: Largest number of names in a sentence.
NAMED = 5


def advice(
    report: Report,
    matching: Matching | None = None,
    found: NDArray[np.float64] | None = None,
    source: Scheme | None = None,
) -> tuple[str, ...]:
    """Sentences about likely mistakes in a result.

    Args:
        report: the errors.
        matching: the matching of the landmarks with those of a network, if there is one.
        found: (N, H, 2) points of that network on the faces of the report.
        source: scheme of the H landmarks.
    """
    said = [*high_error(report), *odd_faces(report), *outside_box(report)]
    if matching is not None:
        said += scratch(matching)
    if found is not None and source is not None:
        said += doubtful_mirror(found, report.target, source, report.scheme)
    return tuple(said)


def high_error(report: Report) -> list[str]:
    """A sentence if the NME is above `HIGH`."""
    nme = report.overall.nme
    if not nme > HIGH:
        return []
    return [
        f"the NME is {nme:.1f} %, above {HIGH:g} %: look at the faces with their points (hih-align data "
        "check --sheet). "
        "Common reasons: the labels are not in the order of the scheme's names, the boxes are not those of the faces, "
        "or there are too few faces or steps"
    ]


def odd_faces(report: Report) -> list[str]:
    """A sentence about faces whose error is more than `TIMES` the median."""
    errors = report.nme
    if not (known := errors[~np.isnan(errors)]).size:
        return []
    worst = [i for i in np.argsort(-np.nan_to_num(errors)) if errors[i] > TIMES * np.median(known)]
    if not worst:
        return []
    names = ", ".join(f"{named(report.records[i])}: {errors[i]:.0f} %" for i in worst[:NAMED])
    more = "" if len(worst) <= NAMED else f" and {len(worst) - NAMED} more"
    return [f"{len(worst)} faces have more than {TIMES:g} times the median error, mostly label errors: {names}{more}"]


def outside_box(report: Report) -> list[str]:
    """A sentence about landmarks that lie outside the boxes of their faces, further than the crop reaches."""
    boxes, target = report.boxes, report.target
    side = (boxes[:, 2:] - boxes[:, :2]).max(-1)[:, None]
    beyond = np.maximum(boxes[:, None, :2] - target, target - boxes[:, None, 2:]).max(-1) / side
    with np.errstate(invalid="ignore"):
        out = np.flatnonzero((beyond > 0.1).any(-1))
    if len(out) <= 0.02 * len(boxes):
        return []
    return [
        f"{len(out)} of {len(boxes)} faces have points further outside their box than a tenth of its side, first "
        f"{named(report.records[out[0]])}: the network sees little beyond the box"
    ]


def scratch(matching: Matching) -> list[str]:
    """A sentence about landmarks without a related landmark in the start network."""
    lost = [m for m in matching.matches if m.how == "from scratch"]
    if not lost:
        return []
    names = ", ".join(f"{m.landmark!r} (spread {m.spread:.0f} %)" for m in lost[:NAMED])
    more = "" if len(lost) <= NAMED else f" and {len(lost) - NAMED} more"
    return [
        f"no landmark of the start network follows {names}{more}: without training the result there is a guess, and "
        "training needs more steps (min_steps). Are they labelled at the same place of every face?"
    ]


def unseen(heights: NDArray[np.float64]) -> list[str]:
    """A sentence if a network sees no faces in most boxes. ``heights`` (N, H) are those of its heatmaps."""
    median = float(np.median(heights.mean(-1)))
    if median >= SEEN:
        return []
    return [
        f"the network sees no face in most boxes: the median of its scores is {median:.2f}, and on faces it is "
        "0.7 or more. Common reasons: boxes of more than three times the size of the face, such as the whole "
        "photograph (without boxes, the tight boxes of the landmarks are used), faces that lie on their side, or faces "
        "of a few pixels"
    ]


def doubtful_mirror(
    found: NDArray[np.float64], target: NDArray[np.float64], source: Scheme, scheme: Scheme
) -> list[str]:
    """A sentence about mirror pairs of ``scheme`` that are not mirror images on these faces.

    ``found`` (N, H, 2) gives the frame of each face. ``target`` (N, K, 2) holds NaN for a landmark without a label.
    """
    order = scheme.permutation
    places = places_in_frame(found, target, source)
    if order is None or places is None:
        return []
    apart = abs(-places.conj()[order] - places)
    wrong = [k for k in range(len(scheme)) if k <= order[k] and apart[k] > MIRROR]
    if not wrong:
        return []
    pairs = ", ".join(f"{scheme.names[k]!r} with {scheme.names[order[k]]!r}" for k in wrong[:NAMED])
    more = "" if len(wrong) <= NAMED else f" and {len(wrong) - NAMED} more"
    return [
        f"the mirror table of scheme {scheme.id!r} exchanges {pairs}{more}, which are not mirror images on these "
        "faces (a landmark in no pair is its own mirror image)"
    ]


def places_in_frame(
    found: NDArray[np.float64], target: NDArray[np.float64], source: Scheme
) -> NDArray[np.complex128] | None:
    """(K,) median places of the labels in the upright frame of the network's faces, in shares of a face's longer side.

    Real part 0 is the symmetry line of the face. NaN for a landmark that is never labelled. None if the network's
    scheme has no mirror pairs.
    """
    order = source.permutation
    if order is None:
        return None
    z = np.asarray(found, np.float64) @ (1, 1j)
    centre = ((z + z[:, order]) / 2).mean(-1)  # a point of the symmetry line
    left = np.arange(len(order)) < order
    across = (z[:, order] - z)[:, left].mean(-1)  # the direction to the right
    turn = across.conj() / np.maximum(abs(across), 1e-9)
    own = (z - centre[:, None]) * turn[:, None]
    side = np.maximum(np.ptp(own.real, axis=-1), np.ptp(own.imag, axis=-1))
    places = ((target @ (1, 1j)) - centre[:, None]) * (turn / side)[:, None]
    known = ~np.isnan(places)
    return np.array(
        [
            complex(np.median(p[w].real), np.median(p[w].imag)) if w.any() else complex(np.nan, np.nan)
            for p, w in zip(places.T, known.T, strict=True)
        ]
    )


def guessed_mirror(places: NDArray[np.complex128], tolerance: float = MIRROR) -> tuple[tuple[int, int], ...]:
    """Pairs of landmarks that are the nearest mirror images of each other, from the places of `places_in_frame`."""
    apart = np.nan_to_num(abs(-places.conj()[:, None] - places[None]), nan=np.inf)
    nearest = apart.argmin(-1)
    return tuple(
        (a, int(b))
        for a, b in enumerate(nearest)
        if a < b and nearest[b] == a and apart[a, b] < tolerance and apart[a, b] < max(apart[a, a], apart[b, b])
    )


def guessed_five(
    places: NDArray[np.complex128], mirror: Sequence[tuple[int, int]], five: NDArray[np.complex128]
) -> Five | None:
    """The five groups of `Scheme.five`: each is a landmark that lies at the point, or else two with their mean there.

    Args:
        places: (K,) places of the landmarks, by `places_in_frame`.
        mirror: the mirror pairs of the landmarks. The groups on the right are the mirror images of those on the left.
        five: (5,) places of the five points, by `places_in_frame`.

    None if one of the five has no group.
    """
    order = np.arange(len(places))
    for a, b in mirror:
        order[[a, b]] = b, a
    one: list[Group] = [(k,) for k in range(len(places))]
    two: list[Group] = [(a, b) for a in range(len(places)) for b in range(a + 1, len(places))]

    def nearest(groups: Sequence[Group], place: complex) -> Group | None:
        apart = np.array([abs(places[list(group)].mean() - place) for group in groups])
        near = np.flatnonzero(apart <= FIVE)  # False for NaN
        return groups[near[apart[near].argmin()]] if near.size else None

    def sides(left: int, right: int) -> tuple[Group, Group] | None:
        place = (five[left] - five[right].conjugate()) / 2
        paired = [[group for group in groups if (order[list(group)] != group).all()] for groups in (one, two)]
        group = nearest(paired[0], place) or nearest(paired[1], place)
        return None if group is None else (group, tuple(int(order[k]) for k in group))

    middle = [[group for group in groups if set(order[list(group)]) == set(group)] for groups in (one, two)]
    nose = nearest(middle[0], complex(0, five[2].imag)) or nearest(middle[1], complex(0, five[2].imag))
    eyes, corners = sides(0, 1), sides(3, 4)
    return None if eyes is None or nose is None or corners is None else (*eyes, nose, *corners)


def other_boxes(train: Sequence[Record], val: Sequence[Record]) -> list[str]:
    """A sentence if the boxes of validation faces lie differently around the points than those of training faces."""
    reaches = []
    for records in (train, val):
        known = whole(records)  # the tight box of some landmarks is smaller
        if not known:
            return []
        tight = np.array([r.boxes["landmarks"] for r in known], np.float64)
        reaches.append(reach_of(np.array([r.box for r in known], np.float64), tight))
    if np.abs(np.subtract(reaches[0], reaches[1])).max() <= TIGHTNESS:
        return []
    texts = [", ".join(f"{100 * share:.0f} %" for share in reach) for reach in reaches]
    return [
        "the boxes of training and validation faces differ. Beyond the tight box of the points they reach (left, top, "
        f"right, bottom) {texts[0]} in training and {texts[1]} in validation. A network learns where points lie in "
        "the box"
    ]


def falling(curve: Sequence[float]) -> list[str]:
    """A sentence if a validation curve still falls steeply at its end."""
    if len(curve) < 5:
        return []
    last = max(len(curve) // 5, 1)
    before, after = min(curve[:-last]), min(curve[-last:])
    if after > (1 - STEEP) * before:
        return []
    return [
        f"the validation error still falls steeply, from {before:.2f} to {after:.2f} % in the last {last} epochs: more "
        "steps (min_steps, or epochs) would lower it further"
    ]
