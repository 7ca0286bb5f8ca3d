"""Roll: the rotation of a face in the plane of the picture, computed from its points, and the box of a turned face.

Roll is in degrees, clockwise in the picture. The forehead of a face with roll 90 is on the right.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .crops import fitting_box

#: Left eye, right eye, nose tip and mouth corners of an upright frontal face; left is left in the picture. They are the
#: points of ArcFace's chips (insightface's template), made symmetric.
UPRIGHT = np.array([[-17.6, -20.7], [17.6, -20.7], [0.0, -0.6], [-14.6, 20.0], [14.6, 20.0]])

#: The product of a point with this is x + iy.
_COMPLEX = np.array((1, 1j))

#: The complex conjugates of `UPRIGHT`, relative to its mean.
_CONJUGATE = ((UPRIGHT - UPRIGHT.mean(0)) @ _COMPLEX).conj()


def roll_of(five: ArrayLike) -> NDArray[np.float64]:
    """The roll of faces: the rotation of the least-squares similarity from an upright face to the five points.

    The eyes alone are not enough: in profile they lie close together, and the line through them means nothing.

    Args:
        five: (..., 5, 2) left eye, right eye, nose tip, left and right mouth corner (`Landmarks.five_points`). Left is
            left in the picture of the upright face.

    Returns:
        (...) degrees in (-180, 180]; 0 if the points have collapsed or are not finite.
    """
    points = np.asarray(five, np.float64)
    with np.errstate(invalid="ignore"):
        z = (points - points.sum(-2, keepdims=True) / 5) @ _COMPLEX
        turned = z @ _CONJUGATE
    angle = np.degrees(np.angle(np.where(np.isfinite(turned), turned, 1.0)))
    return np.where(angle <= -180, 180.0, angle)


def turn(points: ArrayLike, degrees: ArrayLike, centre: ArrayLike = (0.0, 0.0)) -> NDArray[np.float64]:
    """Rotate points clockwise about a centre.

    Args:
        points: (..., K, 2).
        degrees: (...), or one number for all.
        centre: (..., 2), or one point for all.

    Returns:
        (..., K, 2).
    """
    angle = np.radians(np.asarray(degrees, np.float64))[..., None]
    middle = np.asarray(centre, np.float64)[..., None, :]
    x, y = np.moveaxis(np.asarray(points, np.float64) - middle, -1, 0)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack((c * x - s * y, s * x + c * y), -1) + middle


def upright_box(points: ArrayLike, roll: ArrayLike, reach: Sequence[float] | None = None) -> NDArray[np.float64]:
    """The tight boxes of turned faces, each in the frame of its face.

    Args:
        points: (..., K, 2).
        roll: (...) degrees.
        reach: extends the box as `crops.extended` does; None: the box is tight.

    Returns:
        (..., 4) x1, y1, x2, y2. Turned by ``roll`` about its centre, the box is the smallest such rectangle around the
        points. For roll 0 it is the tight box.
    """
    roll = np.asarray(roll, np.float64)
    box = fitting_box(turn(points, -roll), reach)
    centre, half = (box[..., :2] + box[..., 2:]) / 2, (box[..., 2:] - box[..., :2]) / 2
    there = turn(centre[..., None, :], roll)[..., 0, :]
    return np.concatenate((there - half, there + half), -1)
