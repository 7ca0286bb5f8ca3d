"""The bounding boxes of annotated faces: as annotated, as detectors give them, and as imprecise callers give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .annotations import Record

#: How far the boxes of detectors reach above the brows, as a share of the height from brows to chin. The boxes of
#: WFLW's detector ("rect") reach beyond the tight box of the points by 0.29 of its height at the top, and by 0.01 on
#: the other sides (medians).
FOREHEAD = 0.3


def square(boxes: ArrayLike) -> NDArray[np.float64]:
    """Squares that include the forehead, as detectors give them, from tight boxes (brows to chin).

    Args:
        boxes: (N, 4) x1, y1, x2, y2.

    Returns:
        (N, 4): the top of each box is raised by `FOREHEAD` of its height. The square has the centre and the longer
        side of the raised box.
    """
    tall = np.array(boxes, np.float64)
    tall[:, 1] -= FOREHEAD * (tall[:, 3] - tall[:, 1])
    centre = (tall[:, :2] + tall[:, 2:]) / 2
    half = (tall[:, 2:] - tall[:, :2]).max(-1, keepdims=True) / 2
    return np.concatenate((centre - half, centre + half), -1)


def jitter(boxes: ArrayLike, seed: int = 5) -> NDArray[np.float64]:
    """Boxes that are shifted and scaled at random, as imprecise callers give them.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        seed: seed of ``numpy.random.default_rng``. The shift of a face depends on its place among the N.

    Returns:
        (N, 4): each centre is shifted by up to 10 % of the box per axis, and each side is scaled by 0.8 to 1.3, all
        uniformly.
    """
    given = np.asarray(boxes, np.float64)
    centre, sides = (given[:, :2] + given[:, 2:]) / 2, given[:, 2:] - given[:, :2]
    rng = np.random.default_rng(seed)
    centre = centre + rng.uniform(-0.1, 0.1, (len(given), 2)) * sides
    sides = sides * rng.uniform(0.8, 1.3, (len(given), 1))
    return np.concatenate((centre - sides / 2, centre + sides / 2), -1)


#: Largest and smallest size of a box of the same face, relative to the other box.
_LARGER, _SMALLER = 1.6, 0.6


def of_face(box: ArrayLike, boxes: ArrayLike) -> NDArray[np.bool_]:
    """Which of N found boxes contain the same face as ``box``.

    Args:
        box: (4,) x1, y1, x2, y2.
        boxes: (N, 4).

    Returns:
        (N,) bool. It is True if each of the two boxes contains the centre of the other, and the longer side of the
        found box is 0.6 to 1.6 times that of ``box``.
    """
    own, found = np.asarray(box, np.float64), np.asarray(boxes, np.float64).reshape(-1, 4)
    centre, centres = (own[:2] + own[2:]) / 2, (found[:, :2] + found[:, 2:]) / 2
    ratio = (found[:, 2:] - found[:, :2]).max(1, initial=0) / (own[2:] - own[:2]).max()
    there = ((centres > own[:2]) & (centres < own[2:])).all(1)
    there &= ((centre > found[:, :2]) & (centre < found[:, 2:])).all(1)
    same: NDArray[np.bool_] = there & (ratio > _SMALLER) & (ratio < _LARGER)
    return same


#: The boxes that the aligner is given; see `face_boxes`.
Box = Literal["annotated", "landmarks", "rect", "square", "jitter"]


def face_boxes(records: Sequence[Record], box: Box = "annotated") -> NDArray[np.float64]:
    """(N, 4) boxes of the records, x1, y1, x2, y2.

    Args:
        records: N faces.
        box: "annotated": `Record.box`; "landmarks": the tight box of the labelled points; "rect": the detector's box
            that the file gives; "square" and "jitter": `square` and `jitter` of "annotated".

    Raises:
        ValueError: the name is unknown, or a record has no such box.
    """
    if box not in get_args(Box):
        raise ValueError(f"box is {box!r}, expected one of {list(get_args(Box))}")
    if box in ("landmarks", "rect"):
        if lacking := [record for record in records if box not in record.boxes]:
            first = lacking[0]
            raise ValueError(
                f"box is {box!r}, which {len(lacking)} of {len(records)} faces lack, first {first.key}, "
                f"which has {sorted(first.boxes)}"
            )
        return np.array([record.boxes[box] for record in records], np.float64).reshape(-1, 4)
    given = np.array([record.box for record in records], np.float64).reshape(-1, 4)
    if box == "annotated":
        return given
    return square(given) if box == "square" else jitter(given)
