"""Roll: by how much a face is turned in the picture's plane, from its points; and its box in its own frame.

Roll is in degrees and clockwise in the picture: a face with roll 90 has its forehead at the right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .crops import extended, tight_box

#: Left eye, right eye, nose tip and mouth corners of an upright frontal face, left in the picture (ArcFace's chips,
#: insightface's template, made symmetric).
UPRIGHT = np.array([[-17.6, -20.7], [17.6, -20.7], [0.0, -0.6], [-14.6, 20.0], [14.6, 20.0]])

#: x + iy of a point is its product with this.
_COMPLEX = np.array((1, 1j))

#: The conjugates of `UPRIGHT` about its mean.
_CONJUGATE = ((UPRIGHT - UPRIGHT.mean(0)) @ _COMPLEX).conj()


def roll_of(five: ArrayLike) -> NDArray[np.float64]:
    """Roll of faces, from the rotation in the least-squares similarity that maps an upright face onto five points.

    The eyes alone would not do: those of a face in profile lie beside each other, and the line through them says
    nothing.

    Args:
        five: (..., 5, 2) left eye, right eye, nose tip, left and right mouth corner, left in the picture of the face
            upright (`Landmarks.five_points`).

    Returns:
        (...) degrees in (-180, 180]; 0 where the points have collapsed or are not finite.
    """
    points = np.asarray(five, np.float64)
    with np.errstate(invalid="ignore"):
        z = (points - points.sum(-2, keepdims=True) / 5) @ _COMPLEX
        turned = z @ _CONJUGATE
    angle = np.degrees(np.angle(np.where(np.isfinite(turned), turned, 1.0)))
    return np.where(angle <= -180, 180.0, angle)


def turn(points: ArrayLike, degrees: ArrayLike, centre: ArrayLike = (0.0, 0.0)) -> NDArray[np.float64]:
    """Points turned clockwise about a centre.

    Args:
        points: (..., K, 2).
        degrees: (...), or one for all.
        centre: (..., 2), or one for all.

    Returns:
        (..., K, 2).
    """
    angle = np.radians(np.asarray(degrees, np.float64))[..., None]
    middle = np.asarray(centre, np.float64)[..., None, :]
    x, y = np.moveaxis(np.asarray(points, np.float64) - middle, -1, 0)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack((c * x - s * y, s * x + c * y), -1) + middle


def upright_box(points: ArrayLike, roll: ArrayLike, reach: Sequence[float] | None = None) -> NDArray[np.float64]:
    """The tight box of faces in their own frames, given where it lies when turned upright about its own centre.

    Args:
        points: (..., K, 2).
        roll: (...) degrees.
        reach: by how much the box is `crops.extended`; None: not at all.

    Returns:
        (..., 4) x1, y1, x2, y2: turned by ``roll`` about its centre it is the smallest such rectangle around the
        points. For roll 0 it is the tight box.
    """
    roll = np.asarray(roll, np.float64)
    box = tight_box(turn(points, -roll))
    box = box if reach is None else extended(box, reach)
    centre, half = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]) / 2
    there = turn(centre[..., None, :], roll)[..., 0, :]
    return np.concatenate((there - half, there + half), -1)
