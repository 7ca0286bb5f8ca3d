"""`tracking.smoothing`: points of a still face are stable, and points of a moving face do not lag."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align.roll import turn
from hih_align.tracking.smoothing import FaceFilter, Filter, MotionFilter, OneEuro, Steady

SHAPE = np.random.default_rng(3).uniform(-50, 50, (68, 2))
SURE = np.full(68, 0.95)
SECONDS = 1 / 30


def smoothed(path: NDArray[Any], scores: NDArray[np.float64] = SURE) -> NDArray[Any]:
    face = FaceFilter()
    return np.array([face(points, scores, SECONDS) for points in path])


def noisy(path: NDArray[Any], deviation: float) -> NDArray[Any]:
    return path + np.random.default_rng(0).normal(0, deviation, path.shape)


def test_the_low_pass_filter_by_hand() -> None:
    """Without the speed term, the filter is of first order: tau = 1 / (2 pi cutoff), share = 1 / (1 + tau / T)."""
    low = Filter(OneEuro(cutoff=2.0, speed=0.0))
    share = 1 / (1 + 1 / (2 * np.pi * 2 * 0.1))
    assert low(np.array([1.0]), 0.1).tolist() == [1.0]
    assert low(np.array([3.0]), 0.1) == pytest.approx([1 + 2 * share])
    # half the score halves the cut-off
    half = 1 / (1 + 1 / (2 * np.pi * 1 * 0.1))
    other = Filter(OneEuro(cutoff=2.0, speed=0.0))
    other(np.array([1.0]), 0.1)
    assert other(np.array([3.0]), 0.1, 0.5) == pytest.approx([1 + 2 * half])


def test_a_motion_at_constant_speed_does_not_lag() -> None:
    """At constant speed the output equals the input, and a sudden step is followed almost at once."""
    motion = MotionFilter(Steady())
    found = [float(motion(np.array([0.1 * n]), SECONDS)[0]) for n in range(40)]
    assert found[30:] == pytest.approx([0.1 * n for n in range(30, 40)], abs=1e-3)
    assert float(motion(np.array([9.0]), SECONDS)[0]) > 8.9


def test_a_fast_value_is_smoothed_less() -> None:
    slow, fast = Filter(OneEuro(1.0, 0.0)), Filter(OneEuro(1.0, 5.0))
    for value in np.arange(20.0):
        late, soon = slow(np.array([value]), SECONDS), fast(np.array([value]), SECONDS)
    assert 19 - soon < 1 < 19 - late


def test_a_still_face_is_stable() -> None:
    path = noisy(np.repeat(SHAPE[None], 90, 0), 0.5)
    raw, steady = path[30:], smoothed(path)[30:]
    assert steady.std(0).mean() < 0.5 * raw.std(0).mean()
    assert np.abs(np.diff(steady, 2, axis=0)).mean() < 0.3 * np.abs(np.diff(raw, 2, axis=0)).mean()
    assert np.abs(steady.mean(0) - SHAPE).mean() < 0.3


@pytest.mark.parametrize("step", [5, 30])
def test_a_moving_face_does_not_lag(step: float) -> None:
    """The face lags by less than half a frame, and its points are stable relative to each other."""
    way = np.arange(60)[:, None, None] * np.array([step, 0.0])
    path = noisy(SHAPE + way, 0.5)
    steady = smoothed(path)
    late = (path - steady)[20:, :, 0].mean() / step
    assert abs(late) < 0.5
    within = steady - steady.mean(1, keepdims=True)
    assert within[20:].std(0).mean() < 0.5 * 0.5


def test_a_face_that_stops_does_not_overshoot() -> None:
    way = np.minimum(np.arange(60), 30)[:, None, None] * np.array([12.0, 0.0])
    steady = smoothed(SHAPE + way)
    overshoot = (steady - SHAPE - way)[31:, :, 0]
    assert overshoot.max() < 0.5
    assert np.abs(overshoot[5:]).max() < 1


@pytest.mark.parametrize("degrees", [4.0, -9.0])
def test_a_rotating_face(degrees: float) -> None:
    """The smoothed points follow a rotation past 180 degrees without a jump."""
    path = np.array([turn(SHAPE, degrees * n) for n in range(90)])
    steady = smoothed(path)
    assert np.linalg.norm(steady - path, axis=-1)[10:].mean() < 0.5 * np.radians(abs(degrees)) * 40


def test_points_with_low_scores_move_less() -> None:
    scores = SURE.copy()
    scores[:34] = 0.1
    steady = smoothed(noisy(np.repeat(SHAPE[None], 60, 0), 0.5), scores)
    deviation = steady[20:].std(0).mean(-1)
    assert deviation[:34].mean() < 0.8 * deviation[34:].mean()


def test_collapsed_points_are_returned_unchanged() -> None:
    face = FaceFilter()
    face(SHAPE, SURE, SECONDS)
    gone = np.zeros((68, 2))
    np.testing.assert_array_equal(face(gone, SURE, SECONDS), gone)


@pytest.mark.parametrize("options", [{"cutoff": 0}, {"speed": -1}, {"speed_cutoff": 0}])
def test_bad_settings(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        OneEuro(**options)


@pytest.mark.parametrize("options", [{"cutoff": 0}, {"surprise": -1}, {"speed_cutoff": 0}])
def test_bad_settings_of_the_motion_filter(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        Steady(**options)
