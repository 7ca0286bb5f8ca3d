"""`roll`: angles and boxes of faces that are rotated in the image plane."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hih_align.crops import tight_box
from hih_align.roll import UPRIGHT, roll_of, turn, upright_box

#: A face in profile that looks to the right. Its eyes are close together.
PROFILE = np.array([[30.0, 40.0], [33.0, 40.0], [45.0, 52.0], [33.0, 66.0], [35.0, 66.0]])


@given(st.floats(-179, 180), st.floats(0.1, 50), st.floats(-900, 900))
def test_roll_of_a_rotated_face(degrees: float, scale: float, shift: float) -> None:
    found = roll_of(turn(UPRIGHT * scale, degrees) + shift)
    assert found == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize("degrees", [-150, -20, 0, 60, 90, 180])
def test_roll_of_a_profile(degrees: float) -> None:
    """The roll of a profile depends mainly on the direction from the eyes to the mouth.

    A shift of an eye by one pixel rotates the line through the eyes by 18 degrees.
    """
    moved = PROFILE.copy()
    moved[1, 1] += 1
    off = roll_of(turn(np.stack((PROFILE, moved)), degrees)) - roll_of(np.stack((PROFILE, moved))) - degrees
    assert np.abs((off + 180) % 360 - 180).max() < 1e-6
    assert np.abs(roll_of(np.stack((PROFILE, moved)))).max() < 12


def test_clockwise_is_positive() -> None:
    """In an image y points down. If the eye on the right is lower, the face is rotated clockwise."""
    lower = UPRIGHT.copy()
    lower[:, 1] += 0.2 * lower[:, 0]
    assert 0 < roll_of(lower) < 15


@pytest.mark.parametrize("points", [np.zeros((5, 2)), np.full((5, 2), np.nan), np.full((5, 2), np.inf)])
def test_degenerate_points_have_no_roll(points: NDArray[np.float64]) -> None:
    assert roll_of(points) == 0


def test_rotation_by_hand() -> None:
    np.testing.assert_allclose(turn([[1.0, 0.0], [0.0, 1.0]], 90), [[0, 1], [-1, 0]], atol=1e-12)
    np.testing.assert_allclose(turn([[3.0, 2.0]], 180, (1.0, 1.0)), [[-1, 0]], atol=1e-12)


def test_upright_box_without_roll_is_the_tight_box() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
    np.testing.assert_allclose(upright_box(points, 0), tight_box(points))


@given(st.floats(-180, 180))
def test_upright_box_rotates_with_the_face(degrees: float) -> None:
    """The box has the sides of the upright face's box. Its centre rotates with the face."""
    points = np.random.default_rng(1).uniform(0, 100, (9, 2)) * (1, 1.4)
    box, upright = upright_box(turn(points, degrees, (400, 300)), degrees), tight_box(points)
    np.testing.assert_allclose(box[2:] - box[:2], upright[2:] - upright[:2])
    centre = (upright[:2] + upright[2:]) / 2
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, turn(centre[None], degrees, (400, 300))[0])
