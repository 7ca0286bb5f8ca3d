"""`passes`: which crops a face is seen in, with a network that is a few lines of arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from hih_align.crops import Crop
from hih_align.passes import Face, Rules, align_faces
from hih_align.roll import turn
from hih_align.runtime.backend import Photograph

#: Eyes, nose tip and corners of the mouth of an upright face, in shares of the side of its crop.
FIVE = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]])


class Upright:
    """Always reports an upright face in the crop. The score is ``sure`` where it is upright, else ``wrong``."""

    def __init__(self, roll: float, sure: float, wrong: float) -> None:
        self.roll, self.sure, self.wrong = roll, sure, wrong
        self.rolls: list[float] = []

    def __call__(self, images: Sequence[Photograph], crops: Sequence[Crop]) -> tuple[np.ndarray, np.ndarray]:
        self.rolls += [crop.roll for crop in crops]
        points = np.stack([crop.to_image(FIVE * crop.size) for crop in crops])
        away = [abs((crop.roll - self.roll + 180) % 360 - 180) for crop in crops]
        scores = [np.full(5, self.sure if angle < 30 else self.wrong, np.float32) for angle in away]
        return points, np.stack(scores)


@pytest.fixture
def rules() -> Rules:
    return Rules(ratio=1.25, refine=0, five=lambda points: points)


def align(roll: float, sure: float, wrong: float, rules: Rules) -> tuple[Face, Upright]:
    look = Upright(roll, sure, wrong)
    face = Face(Photograph(np.zeros((200, 200, 3), np.uint8)), np.array([50.0, 50, 150, 150]))
    align_faces([face], look, rules)
    return face, look


@pytest.mark.parametrize("wrong", [0.3, 0.56, 0.62])
def test_an_upside_down_face_whose_score_is_not_very_low_is_turned(wrong: float, rules: Rules) -> None:
    """Some networks give more than 0.5 to an upside-down face whose points are wrong."""
    face, look = align(180, 0.9, wrong, rules)
    assert look.rolls == [0, 90, 180, 270]
    assert face.roll == 180
    assert face.points is not None
    expected = turn((FIVE - 0.5) * 125, 180) + 100
    np.testing.assert_allclose(face.points, expected, atol=1)


def test_limits_are_lower_where_clear_landmarks_have_low_scores(rules: Rules) -> None:
    _, look = align(0, 0.4, 0.1, rules)
    assert len(look.rolls) == 4
    _, look = align(0, 0.4, 0.1, replace(rules, scale=0.5))
    assert look.rolls == [0]


def test_a_sure_face_pays_for_one_pass(rules: Rules) -> None:
    face, look = align(0, 0.7, 0.2, rules)
    assert look.rolls == [0]
    assert face.roll == 0


def test_an_unsure_upright_face_keeps_its_points(rules: Rules) -> None:
    face, look = align(0, 0.5, 0.45, rules)
    assert look.rolls == [0, 90, 180, 270]
    assert face.roll == 0
