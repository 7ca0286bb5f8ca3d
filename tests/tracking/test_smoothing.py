"""`tracking.smoothing` and `tracking.motion`: points are steady where a face rests, and not late where it moves.

The frames are a texture that moves in a known way. The found points are the true ones with noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align.roll import turn
from hih_align.tracking.motion import RADIUS, VIEW, View, motion, placed
from hih_align.tracking.smoothing import FaceFilter, Smoothing, share

Array = NDArray[Any]
SHAPE = np.random.default_rng(3).uniform(-50, 50, (68, 2))
SURE = np.full(68, 0.95)
SECONDS = 1 / 30
MIDDLE = np.array([150.0, 150.0])
TEXTURE: Array = cv2.GaussianBlur(np.random.default_rng(1).uniform(0, 255, (300, 300, 3)), (0, 0), 3)
TEXTURE = np.clip((TEXTURE - TEXTURE.mean()) * 8 + 128, 0, 255).astype(np.uint8)


def frame_of(matrix: Array, size: tuple[int, int] = (300, 300)) -> Array:
    """The texture, moved by a (2, 3) affine."""
    moved: Array = cv2.warpAffine(TEXTURE, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return moved


def shifted(x: float, y: float = 0.0) -> Array:
    return np.array([[1, 0, x], [0, 1, y]], float)


def turned(degrees: float) -> Array:
    matrix: Array = cv2.getRotationMatrix2D(MIDDLE.tolist(), -degrees, 1.0)
    return matrix


def apply(matrix: Array, points: Array) -> Array:
    moved: Array = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def noisy(path: Array, deviation: float = 0.2) -> Array:  # 0.5 % of the face
    return path + np.random.default_rng(0).normal(0, deviation, path.shape)


def smoothed(path: Array, frames: Sequence[Array], scores: Array = SURE) -> Array:
    face = FaceFilter(Smoothing())
    return np.array([face(points, scores, SECONDS, frame) for points, frame in zip(path, frames, strict=True)])


def test_the_low_pass_filter_by_hand() -> None:
    """A first-order filter: tau = 1 / (2 pi cutoff), share = 1 / (1 + tau / T)."""
    assert share(2.0, 0.1) == pytest.approx(1 / (1 + 1 / (2 * np.pi * 2 * 0.1)))


@pytest.mark.parametrize("matrix", [shifted(0.3, -0.4), turned(2.0), shifted(1.5, 1.0)], ids=["shift", "roll", "step"])
def test_motion_is_found_in_the_pixels(matrix: Array) -> None:
    """Between two views of the same place: the centre to 0.02, and the outermost landmark to 0.1 pixels of the view."""
    points = SHAPE + MIDDLE
    places = placed(points)
    first, second = (View.of(frame_of(m), points, places) for m in (shifted(0), matrix))
    found = motion(first, second, places @ (1, 1j))
    assert found is not None
    error = abs(found.factor * (places @ (1, 1j)) + found.shift - second.inside(apply(matrix, points)))
    assert error.mean() < 0.1
    assert error.max() < 0.2


def test_no_motion_is_found_where_nothing_is_seen() -> None:
    points = SHAPE + MIDDLE
    view = View.of(np.full((300, 300, 3), 90, np.uint8), points, placed(points))
    assert motion(view, view, np.full(68, VIEW / 2 + 0j)) is None


def test_a_view_maps_points_there_and_back() -> None:
    points = apply(turned(30), SHAPE * 1.7 + MIDDLE)
    view = View.of(frame_of(shifted(0)), points, placed(SHAPE))
    assert view.outside(view.inside(points)) == pytest.approx(points)
    assert np.sqrt((abs(view.inside(points) - view.inside(points).mean()) ** 2).mean()) == pytest.approx(RADIUS)


def test_a_resting_face_is_steady() -> None:
    truth = np.repeat((SHAPE + MIDDLE)[None], 90, 0)
    path = noisy(truth)
    raw, steady = path[30:], smoothed(path, [frame_of(shifted(0))] * 90)[30:]
    assert steady.std(0).mean() < 0.4 * raw.std(0).mean()
    assert np.abs(np.diff(steady, 2, axis=0)).mean() < 0.1 * np.abs(np.diff(raw, 2, axis=0)).mean()
    assert np.abs(steady.mean(0) - truth[0]).mean() < 0.15


@pytest.mark.parametrize("step", [5, 30])
def test_a_moving_face_is_not_late(step: int) -> None:
    """The points are less than a tenth of a frame late. They are steady within the face, and as a whole."""
    moves = [shifted(step * n) for n in range(40)]
    truth = np.array([apply(m, SHAPE + MIDDLE) for m in moves])
    steady = smoothed(noisy(truth), [frame_of(m, (300 + 40 * step, 300)) for m in moves])
    late = (truth - steady)[10:, :, 0].mean() / step
    assert abs(late) < 0.1
    assert (steady - truth)[10:].std(0).mean() < 0.5 * 0.2


def test_a_face_that_stops_is_there_at_once() -> None:
    moves = [shifted(min(12.0 * n, 240)) for n in range(40)]
    truth = np.array([apply(m, SHAPE + MIDDLE) for m in moves])
    steady = smoothed(truth, [frame_of(m, (600, 300)) for m in moves])
    assert np.abs(steady - truth)[20:].max() < 0.3


@pytest.mark.parametrize("degrees", [4.0, -9.0])
def test_a_turning_face(degrees: float) -> None:
    """The roll goes past 180 degrees without a jump."""
    moves = [turned(degrees * n) for n in range(90)]
    truth = np.array([apply(m, SHAPE + MIDDLE) for m in moves])
    assert truth[1] == pytest.approx(turn(SHAPE + MIDDLE, degrees, MIDDLE))
    steady = smoothed(noisy(truth), [frame_of(m) for m in moves])
    assert np.linalg.norm(steady - truth, axis=-1)[10:].mean() < 0.5


def test_a_blink_is_not_smoothed_away() -> None:
    """Four points move within the face and back in eight frames: at least 0.9 of the way, less than 0.3 frames late."""
    truth = np.repeat((SHAPE + MIDDLE)[None], 60, 0)
    way = 6 * np.sin(np.pi * np.clip((np.arange(60) - 30) / 8, 0, 1))
    blinking = truth.copy()
    blinking[:, :4, 1] += way[:, None]
    frames = [frame_of(shifted(0)).copy() for _ in range(60)]
    other = TEXTURE[::-1].copy()
    for frame, points in zip(frames, blinking, strict=True):
        for x, y in points[:4]:  # a small part of another texture lies around the point, and moves with it
            patch = cv2.getRectSubPix(other, (25, 25), (60 + x / 2 - (x / 2) % 1, 80.0))
            place = np.array([[1, 0, x - 12], [0, 1, y - 12]])
            moved = cv2.warpAffine(patch, place, (300, 300), flags=cv2.INTER_LINEAR)
            there = cv2.warpAffine(np.ones((25, 25), np.uint8), place, (300, 300)) > 0
            frame[there] = moved[there]
    seen = (smoothed(noisy(blinking), frames) - truth)[25:45, :4, 1].mean(1)
    assert seen.max() > 0.9 * 6
    middle = (np.arange(20) * seen).sum() / seen.sum()
    assert abs(middle - (np.arange(20) * way[25:45]).sum() / way[25:45].sum()) < 0.3


def test_a_change_of_exposure_moves_nothing() -> None:
    path = noisy(np.repeat((SHAPE + MIDDLE)[None], 60, 0))
    steady = smoothed(path, [(frame_of(shifted(0)) * (0.6 + 0.2 * (n % 3))).astype(np.uint8) for n in range(60)])
    assert np.abs(np.diff(steady, 2, axis=0)).mean() < 0.1 * np.abs(np.diff(path, 2, axis=0)).mean()


def test_pixels_that_say_nothing_do_no_harm() -> None:
    """A flat picture: the pose is that of the found points. A picture of something else: it is drawn to it."""
    truth = np.array([apply(shifted(3.0 * n), SHAPE + MIDDLE) for n in range(40)])
    flat = smoothed(truth, [np.full((300, 500, 3), 90, np.uint8)] * 40)
    assert np.abs(flat - truth).max() < 0.05
    wrong = smoothed(truth, [frame_of(shifted(0), (500, 300))] * 40)  # the texture rests, the points move
    assert np.linalg.norm(wrong - truth, axis=-1).mean() < 3


def test_uncertain_points_move_less() -> None:
    scores = SURE.copy()
    scores[:34] = 0.3
    steady = smoothed(noisy(np.repeat((SHAPE + MIDDLE)[None], 60, 0), 0.4), [frame_of(shifted(0))] * 60, scores)
    deviation = steady[20:].std(0).mean(-1)
    assert deviation[:34].mean() < 0.8 * deviation[34:].mean()


def test_points_that_have_collapsed_are_returned() -> None:
    face = FaceFilter(Smoothing())
    frame = frame_of(shifted(0))
    face(SHAPE + MIDDLE, SURE, SECONDS, frame)
    gone = np.zeros((68, 2))
    np.testing.assert_array_equal(face(gone, SURE, SECONDS, frame), gone)


@pytest.mark.parametrize("name", ["pose_cutoff", "pose_threshold", "cutoff", "threshold"])
def test_bad_settings(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is"):
        Smoothing(**{name: 0.0})
