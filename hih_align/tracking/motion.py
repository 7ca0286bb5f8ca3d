"""The motion of a face between two frames, from the pixels.

Each frame is resampled to a view: a small square in which the landmarks of all frames lie at the same place, as far as
a similarity (rotation, scale, shift) allows. So the motion from view to view is small, whatever the motion of the face
was. Sparse optical flow (Lucas and Kanade, by OpenCV) measures it at each landmark. The flow at all landmarks together
gives the motion of the face much more precisely than the landmarks do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ..crops import similarity, warp

#: Side of a view in pixels.
VIEW = 160

#: Size of a face in its view: root mean square distance of its landmarks from their mean, in pixels.
RADIUS = 0.22 * VIEW

#: Side of the window of the optical flow, in pixels. Odd.
WINDOW = 15

#: A flow of more than this share of the face's size is an error of the flow.
FARTHEST = 0.15

#: Distance from the common motion at which the weight of a landmark's flow is halved, in shares of the face's size.
OUTLIER = 0.004

#: The motion is known where the flow was found at this share of the landmarks at least.
ENOUGH = 1 / 3

#: Points as x + iy.
Complex: TypeAlias = NDArray[np.complex128]


def placed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Landmarks (K, 2) moved and scaled, without rotation, to the middle of a view and to the size `RADIUS`."""
    centred = points - points.mean(0)
    return centred * (RADIUS / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-9)) + (VIEW - 1) / 2


@dataclass(frozen=True, eq=False)
class View:
    """A face of one frame, resampled.

    Attributes:
        pixels: (VIEW, VIEW) uint8, grey, of fixed mean and contrast.
        matrix: (2, 3) affine from pixels of the frame to pixels of the view.
    """

    pixels: NDArray[np.uint8]
    matrix: NDArray[np.float64]

    @classmethod
    def of(cls, frame: NDArray[np.uint8], points: NDArray[np.float64], places: NDArray[np.float64]) -> View:
        """The view in which landmarks (K, 2) lie at ``places`` (K, 2), in the least-squares sense."""
        matrix = similarity(points, places)
        grey = cv2.cvtColor(warp(frame, matrix, VIEW), cv2.COLOR_RGB2GRAY)
        mean, deviation = (float(value.item()) for value in cv2.meanStdDev(grey))
        # a change of exposure is no motion
        gain = 48 / max(deviation, 4.0)
        return cls(np.asarray(cv2.convertScaleAbs(grey, alpha=gain, beta=128 - gain * mean), np.uint8), matrix)

    def inside(self, points: NDArray[np.float64]) -> Complex:
        """Points (K, 2) of the frame in the view, as (K,) x + iy."""
        x, y = self.matrix[:, :2] @ points.T + self.matrix[:, 2:]
        inside: Complex = x + 1j * y
        return inside

    def outside(self, inside: Complex) -> NDArray[np.float64]:
        """The inverse of `inside`: (K, 2)."""
        points = np.stack((inside.real, inside.imag), -1) - self.matrix[:, 2]
        return np.asarray(np.linalg.solve(self.matrix[:, :2], points.T).T, np.float64)


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of a face from one view to the next: ``factor * z + shift``, and what each landmark does beside it.

    Attributes:
        factor, shift: the similarity of the whole face, in pixels of the view.
        rest: (K,) how far each landmark moved relative to the face as a whole, x + iy in pixels of the new view. It is
            0 where the flow was not found.
    """

    factor: complex
    shift: complex
    rest: Complex


def motion(before: View, now: View, points: Complex) -> Motion | None:
    """The motion of a face from one view to the next.

    Args:
        before, now: views of two frames.
        points: (K,) landmarks in the view ``before``.

    Returns:
        The motion; None where the flow is found at too few landmarks.
    """
    start = np.stack((points.real, points.imag), -1).astype(np.float32)
    end, found, _ = cv2.calcOpticalFlowPyrLK(
        before.pixels,
        now.pixels,
        start,
        start.copy(),
        winSize=(WINDOW, WINDOW),
        maxLevel=0,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 15, 0.01),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    moved = end.astype(np.float64) @ (1, 1j)
    known = found.ravel().astype(bool) & (abs(moved - points) < FARTHEST * RADIUS)
    if known.sum() < max(2, ENOUGH * len(points)):
        return None
    source, target = points[known], moved[known]
    weights = np.ones(len(source))
    factor, shift = 1 + 0j, 0j
    for _ in range(5):  # iteratively reweighted least squares, Cauchy's weights
        weights /= weights.sum()
        a, b = (weights * source).sum(), (weights * target).sum()
        spread = float((weights * abs(source - a) ** 2).sum())
        if not spread > 1e-6:
            return None
        factor = complex((weights * (target - b) * (source - a).conj()).sum() / spread)
        shift = complex(b - factor * a)
        weights = 1 / (1 + (abs(factor * source + shift - target) / (OUTLIER * RADIUS)) ** 2)
    return Motion(factor, shift, np.where(known, moved - (factor * points + shift), 0))
