"""Steady points without lag: filters of a face's frame, and of its points within it.

The points are filtered in the face's own frame, so that a head that moves does not set them free to shake. Their filter
is a One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): a low-pass filter whose cut-off grows with speed. The frame
itself moves, and a One-Euro filter of it either lags or shakes. Its filter goes on at the speed it had, and its cut-off
grows with what it did not expect.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class OneEuro:
    """How strongly values are smoothed.

    Attributes:
        cutoff: of values that rest, Hz: lower is steadier.
        speed: how much the cut-off grows with speed, Hz per unit a second: higher lags less.
        speed_cutoff: of the speed itself, Hz.

    Raises:
        ValueError: a cut-off that is not positive, or a negative ``speed``.
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
    """How strongly a motion is smoothed.

    Attributes:
        cutoff: of a motion at an even speed, Hz: lower is steadier.
        surprise: how much the cut-off grows with the distance from where the motion was expected, Hz per unit a second.
        speed_cutoff: of the speed, Hz; it grows likewise.

    Raises:
        ValueError: a cut-off that is not positive, or a negative ``surprise``.
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


#: Of a face's frame: centre in shares of the face's size, logarithm of the size, roll in radians.
FRAME = Steady()

#: Of its points within the frame, in shares of the face's size.
POINTS = OneEuro(cutoff=1.0, speed=3.0, speed_cutoff=1.0)


class Filter:
    """A One-Euro filter of an array of values, each by itself.

    Args:
        settings: how strongly.
    """

    def __init__(self, settings: OneEuro) -> None:
        self._settings = settings
        self._value: NDArray[np.float64] | None = None
        self._raw: NDArray[np.float64] = np.zeros(0)
        self._speed: NDArray[np.float64] = np.zeros(0)

    def __call__(
        self, value: NDArray[np.float64], seconds: float, sure: NDArray[np.float64] | float = 1.0
    ) -> NDArray[np.float64]:
        """The smoothed values.

        Args:
            value: (..., D), of the shape of the first call. Speed is that of the whole last axis.
            seconds: since the last call, positive.
            sure: (..., 1) or one for all, in [0, 1]: the cut-off is multiplied by it, so that what is unsure does not
                shake.
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
    """A filter of a motion, (D,) values that move together.

    Args:
        settings: how strongly.
    """

    def __init__(self, settings: Steady) -> None:
        self._settings = settings
        self._value: NDArray[np.float64] | None = None
        self._speed: NDArray[np.float64] = np.zeros(0)

    def __call__(self, value: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
        """The smoothed values; ``seconds`` since the last call, positive."""
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
    """How much of a new value is taken by a first-order low-pass filter."""
    turns = 2 * np.pi * np.asarray(cutoff) * seconds
    return turns / (1 + turns)


class FaceFilter:
    """The filter of one face's points.

    Points are taken apart into a frame, the similarity (centre, size, roll) that maps the first shape onto them best,
    and what is left over within it. Both are filtered, and put together again.

    Args:
        frame, points: settings of either.
    """

    def __init__(self, frame: Steady = FRAME, points: OneEuro = POINTS) -> None:
        self._place, self._turn, self._points = MotionFilter(frame), MotionFilter(frame), Filter(points)
        self._shape: NDArray[np.complex128] = np.zeros(0, complex)
        self._size = 1.0
        self._angle = 0.0

    def __call__(self, points: NDArray[np.float64], scores: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
        """(K, 2) points, smoothed; the first are given back as they are.

        Args:
            points: (K, 2) in pixels.
            scores: (K,) in [0, 1].
            seconds: since the last call, positive.
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
        # rolls go on past 180 degrees
        self._angle += float((np.angle(turn) - self._angle + np.pi) % (2 * np.pi) - np.pi)
        place = self._place(np.array([centre.real, centre.imag]) / self._size, seconds) * self._size
        log_size, angle = self._turn(np.array([np.log(abs(turn)), self._angle]), seconds)
        local = (z - centre) / turn - self._shape
        steady = self._points(np.stack((local.real, local.imag), -1), seconds, scores[:, None]) @ (1, 1j)
        smooth = place @ (1, 1j) + np.exp(log_size + 1j * angle) * (self._shape + steady)
        return np.stack((smooth.real, smooth.imag), -1)
