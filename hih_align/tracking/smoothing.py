"""Smoothing without lag: the points of a face that is followed.

The points of a face are split into a pose (the similarity of place, size and roll) and the differences from the first
shape within the pose.

The pose moves from frame to frame by the motion that the pixels show (`motion`), and slowly towards the pose of the
found points. So the head's motion is not smoothed and not late, and noise of the found points does not shake it. The
differences within the pose have a low-pass filter for each point. Where the pixels show that a point moves relative to
the face, as in a blink, the point is moved.

In both filters a found value near the expected value is noise, and has little effect. A found value that is farther
away than noise is a motion, and is taken at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from .motion import RADIUS, Complex, View, motion, placed


@dataclass(frozen=True)
class Smoothing:
    """Settings of the filter. Distances are shares of the face's size: of the root mean square distance of its points
    from their mean, which is 0.63 of the distance of the outer eye corners for the 68 points.

    Attributes:
        pose_cutoff: cut-off in Hz with which the pose that the pixels show moves towards that of the found points.
        pose_threshold: a pose this far from the expected one is taken, rather than smoothed.
        cutoff: cut-off in Hz for the points within the pose. A lower value smooths more. The score of a point
            multiplies it, so that an uncertain point shakes less.
        threshold: a point this far from the expected place is taken, rather than smoothed. A lower score raises it: it
            is divided by the score.
        flow_threshold: a point whose pixels move this far between two frames, relative to the face, is moved by them.

    Raises:
        ValueError: a setting is not positive.
    """

    pose_cutoff: float = 0.5
    pose_threshold: float = 0.05
    cutoff: float = 0.2
    threshold: float = 0.05
    flow_threshold: float = 0.02

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(f"{field.name} is {value}, expected a positive number")


def share(cutoff: NDArray[np.float64] | float, seconds: float) -> NDArray[np.float64]:
    """The share of a new value that a first-order low-pass filter takes."""
    turns = 2 * np.pi * np.asarray(cutoff, np.float64) * seconds
    return np.asarray(turns / (1 + turns))


def _taken(
    cutoff: NDArray[np.float64] | float, seconds: float, distance: NDArray[np.float64] | float, threshold: float
) -> NDArray[np.float64]:
    """The share of a new value that is taken: that of the low-pass filter, and all of it beyond the threshold."""
    return np.asarray(1 - (1 - share(cutoff, seconds)) * np.exp(-((np.asarray(distance) / threshold) ** 2)))


class FaceFilter:
    """The filter of the points of one face.

    Args:
        settings: see `Smoothing`.
    """

    def __init__(self, settings: Smoothing) -> None:
        self._settings = settings
        self._view: View | None = None

    def __call__(
        self, points: NDArray[np.float64], scores: NDArray[np.float64], seconds: float, frame: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        """Filter the next points. The first points are returned unchanged, and so are points that have collapsed.

        Args:
            points: (K, 2) in pixels, K at least 2.
            scores: (K,) in [0, 1].
            seconds: time since the last call, positive.
            frame: (H, W, 3) uint8 RGB, in which the points were found.

        Returns:
            (K, 2) the smoothed points.
        """
        if not np.isfinite(points).all() or not np.ptp(points, axis=0).max() > 1e-3:
            return points
        if self._view is None:
            self._places = placed(points)
            self._shape: Complex = self._places[:, 0] + 1j * self._places[:, 1]
            self._view = View.of(frame, points, self._places)
            self._smooth: Complex = self._shape
            self._rest: Complex = np.zeros_like(self._shape)
            self._factor, self._shift = 1 + 0j, 0j
            return points
        before, self._view = self._view, View.of(frame, points, self._places)
        # in the view the pose of the found points is the identity: factor 1, shift 0
        moved = motion(before, self._view, self._smooth)
        if moved is None:
            self._factor, self._shift = 1 + 0j, 0j
        else:
            self._factor, self._shift = moved.factor * self._factor, moved.factor * self._shift + moved.shift
            flow = moved.rest / self._factor
            self._rest = self._rest + (1 - np.exp(-((abs(flow) / RADIUS / self._settings.flow_threshold) ** 2))) * flow
            self._draw_near(seconds)
        rest = self._view.inside(points) - self._shape
        away = abs(rest - self._rest) / RADIUS
        cutoff = self._settings.cutoff * scores
        self._rest = self._rest + _taken(cutoff, seconds, away * scores, self._settings.threshold) * (rest - self._rest)
        self._smooth = self._factor * (self._shape + self._rest) + self._shift
        return self._view.outside(self._smooth)

    def _draw_near(self, seconds: float) -> None:
        """Move the pose towards that of the found points."""
        middle = complex(self._shape.mean())
        centre = self._factor * middle + self._shift - middle
        turn = np.log(self._factor)
        away = float(np.hypot(abs(centre) / RADIUS, abs(turn)))
        left = 1 - float(_taken(self._settings.pose_cutoff, seconds, away, self._settings.pose_threshold))
        self._factor = complex(np.exp(left * turn))
        self._shift = middle + left * centre - self._factor * middle
