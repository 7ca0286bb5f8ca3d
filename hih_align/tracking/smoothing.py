"""Smoothing without lag: filters of a face's frame, and of its points within the frame.

The frame of a face is its centre, size and roll. The points are filtered within the frame, so that they do not shake
when the head moves. Their filter is a One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): a low-pass filter whose
cut-off grows with speed. For the frame, which moves, a One-Euro filter either lags or shakes. Its filter predicts the
motion from its speed, and its cut-off grows with the difference from the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OneEuro:
    """Settings of a One-Euro filter.

    Attributes:
        cutoff: cut-off for values at rest, in Hz. A lower value smooths more.
        speed: growth of the cut-off with speed, in Hz per unit per second. A higher value lags less.
        speed_cutoff: cut-off for the speed itself, in Hz.

    Raises:
        ValueError: a cut-off is not positive, or ``speed`` is negative.
    """

    cutoff: float = 1.0
    speed: float = 0.0
    speed_cutoff: float = 1.0

    def __post_init__(self) -> None:
        for name in ("cutoff", "speed_cutoff"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive frequency")
        if not self.speed >= 0:
            raise ValueError(f"speed is {self.speed}, expected 0 or more")


@dataclass(frozen=True)
class Steady:
    """Settings of the filter of a motion.

    Attributes:
        cutoff: cut-off for a motion at constant speed, in Hz. A lower value smooths more.
        surprise: growth of the cut-off with the distance from the predicted place, in Hz per unit per second.
        speed_cutoff: cut-off for the speed, in Hz; it grows in the same way.

    Raises:
        ValueError: a cut-off is not positive, or ``surprise`` is negative.
    """

    cutoff: float = 3.0
    surprise: float = 90.0
    speed_cutoff: float = 5.0

    def __post_init__(self) -> None:
        for name in ("cutoff", "speed_cutoff"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive frequency")
        if not self.surprise >= 0:
            raise ValueError(f"surprise is {self.surprise}, expected 0 or more")


#: For the frame: the centre in shares of the face's size, the logarithm of the size, and the roll in radians.
FRAME = Steady()

#: For the points within the frame, in shares of the face's size.
POINTS = OneEuro(cutoff=1.0, speed=3.0, speed_cutoff=1.0)


class Filter:
    """A One-Euro filter of an array of values.

    Args:
        settings: the settings of the filter.
    """

    def __init__(self, settings: OneEuro) -> None:
        self._settings = settings
        self._value: NDArray[np.float64] | None = None
        self._raw: NDArray[np.float64] = np.zeros(0)
        self._speed: NDArray[np.float64] = np.zeros(0)

    def __call__(
        self, value: NDArray[np.float64], seconds: float, sure: NDArray[np.float64] | float = 1.0
    ) -> NDArray[np.float64]:
        """Filter the next values.

        Args:
            value: (..., D), of the shape of the first call. The speed is that of the vector along the last axis.
            seconds: time since the last call, positive.
            sure: (..., 1), or one number, in [0, 1]. It multiplies the cut-off, so that uncertain values do not shake.

        Returns:
            The smoothed values.
        """
        if self._value is None:
            self._value, self._raw, self._speed = value.copy(), value.copy(), np.zeros_like(value)
            return value.copy()
        change = (value - self._raw) / seconds
        self._raw = value.copy()
        self._speed += _share(self._settings.speed_cutoff, seconds) * (change - self._speed)
        speed = np.linalg.norm(self._speed, axis=-1, keepdims=True)
        cutoff = (self._settings.cutoff + self._settings.speed * speed) * sure
        self._value = self._value + _share(cutoff, seconds) * (value - self._value)
        return self._value.copy()


class MotionFilter:
    """A filter of a motion: (D,) values that move together.

    Args:
        settings: the settings of the filter.
    """

    def __init__(self, settings: Steady) -> None:
        self._settings = settings
        self._value: NDArray[np.float64] | None = None
        self._speed: NDArray[np.float64] = np.zeros(0)

    def __call__(self, value: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
        """The smoothed values. ``seconds`` is the time since the last call, positive."""
        if self._value is None:
            self._value, self._speed = value.copy(), np.zeros_like(value)
            return value.copy()
        expected = self._value + self._speed * seconds
        more = self._settings.surprise * float(np.linalg.norm(value - expected)) / seconds
        smooth = expected + _share(self._settings.cutoff + more, seconds) * (value - expected)
        step = (smooth - self._value) / seconds - self._speed
        self._speed = self._speed + _share(self._settings.speed_cutoff + more, seconds) * step
        self._value = smooth
        return smooth.copy()


def _share(cutoff: NDArray[np.float64] | float, seconds: float) -> NDArray[np.float64]:
    """The share of a new value that a first-order low-pass filter takes."""
    turns = 2 * np.pi * np.asarray(cutoff) * seconds
    return turns / (1 + turns)


class FaceFilter:
    """The filter of the points of one face.

    Points are split into a frame (the similarity of centre, size and roll that maps the first shape onto them best) and
    the remaining differences within the frame. Both are filtered and combined again.

    Args:
        frame, points: settings of the two filters.
    """

    def __init__(self, frame: Steady = FRAME, points: OneEuro = POINTS) -> None:
        self._place, self._turn, self._points = MotionFilter(frame), MotionFilter(frame), Filter(points)
        self._shape: NDArray[np.complex128] = np.zeros(0, complex)
        self._size = 1.0
        self._angle = 0.0

    def __call__(self, points: NDArray[np.float64], scores: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
        """Filter the next points. The first points are returned unchanged.

        Args:
            points: (K, 2) in pixels.
            scores: (K,) in [0, 1].
            seconds: time since the last call, positive.

        Returns:
            (K, 2) the smoothed points.
        """
        z = points @ (1, 1j)
        if not len(self._shape):
            self._size = max(float(np.sqrt((abs(z - z.mean()) ** 2).mean())), 1e-3)
            self._shape = (z - z.mean()) / self._size
        centre = z.mean()
        # least squares: z = centre + turn * shape
        turn = (z - centre) @ self._shape.conj() / max(float((abs(self._shape) ** 2).sum()), 1e-12)
        if not abs(turn) > 1e-6 or not np.isfinite(turn):
            return points
        # let the roll continue past 180 degrees
        self._angle += float((np.angle(turn) - self._angle + np.pi) % (2 * np.pi) - np.pi)
        place = self._place(np.array([centre.real, centre.imag]) / self._size, seconds) * self._size
        log_size, angle = self._turn(np.array([np.log(abs(turn)), self._angle]), seconds)
        local = (z - centre) / turn - self._shape
        steady = self._points(np.stack((local.real, local.imag), -1), seconds, scores[:, None]) @ (1, 1j)
        smooth = place @ (1, 1j) + np.exp(log_size + 1j * angle) * (self._shape + steady)
        return np.stack((smooth.real, smooth.imag), -1)
