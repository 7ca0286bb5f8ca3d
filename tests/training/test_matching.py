"""Landmarks matched by position, on synthetic faces for which the correct result is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hih_align.schemes import Scheme
from hih_align.training.advice import doubtful_mirror, guessed_mirror, places_in_frame
from hih_align.training.matching import cross_validated, match

#: Left eye, right eye, nose, two corners of the mouth, chin.
SHAPE = np.array([[-30, -20], [30, -20], [0, 5], [-20, 30], [20, 30], [0, 60]], float)
OLD = Scheme("old", ("l", "r", "nose", "ml", "mr", "chin"), mirror=((0, 1), (3, 4)))
NEW = Scheme("new", ("pupil_l", "pupil_r", "chin", "brow_l", "brow_r"), mirror=((0, 1), (3, 4)))
#: Positions of the new landmarks: both eyes, the chin, and points 20 above each eye in the face's own frame.
PLACES = np.stack([SHAPE[0], SHAPE[1], SHAPE[5], SHAPE[0] - (0, 20), SHAPE[1] - (0, 20)])


def faces(count: int, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A network's points (N, 6, 2) and labels (N, 5, 2) for rotated and scaled faces."""
    rng = np.random.default_rng(seed)
    angle, scale = rng.uniform(-0.6, 0.6, count), rng.uniform(0.7, 1.5, count)
    turn = np.stack((np.stack((np.cos(angle), np.sin(angle)), -1), np.stack((-np.sin(angle), np.cos(angle)), -1)), 1)
    shift = rng.uniform(80, 200, (count, 1, 2))
    opened = rng.normal(0, 3, (count, 1)) * np.array([0, 0, 0, 0, 0, 1.0])  # the chin moves independently
    shape = SHAPE + np.stack((0 * opened, opened), -1)
    place = np.repeat(PLACES[None], count, 0)
    place[:, 2] = shape[:, 5]
    found = scale[:, None, None] * shape @ turn + shift + rng.normal(0, noise, shape.shape)
    return found, scale[:, None, None] * place @ turn + shift + rng.normal(0, noise, place.shape)


def test_landmarks_start_from_related_landmarks() -> None:
    found, points = faces(30)
    matching = match(found, points, np.ones(points.shape[:2], bool), OLD, NEW)
    assert [(m.source, m.how) for m in matching.matches[:3]] == [("l", "same"), ("r", "same"), ("chin", "same")]
    assert [m.how for m in matching.matches[3:]] == ["near", "near"]
    fresh, truth = faces(200, noise=0.0, seed=1)
    errors = np.linalg.norm(matching.readout.points(fresh) - truth, axis=-1).mean(0)
    assert errors[:3].max() < 1e-6  # the same points
    assert errors[3:].max() < 1.0  # an offset of 20 in the face's own frame, which follows the face's roll and size
    assert "pupil_l    l" in matching.text()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_faces_take_the_nearest_landmark(count: int) -> None:
    """On so few faces any landmark can have the least spread. With one face, all have a spread of 0."""
    for seed in range(6):
        found, points = faces(count, seed=seed)
        matching = match(found, points, np.ones((count, 5), bool), OLD, replace(NEW, mirror=None))
        assert [m.source for m in matching.matches] == ["l", "r", "chin", "l", "r"]


def test_left_and_right_have_mirrored_weights() -> None:
    found, points = faces(15)
    readout = match(found, points, np.ones(points.shape[:2], bool), OLD, NEW).readout
    order = OLD.permutation
    np.testing.assert_allclose(readout.weights[4], readout.weights[3].conj()[order], atol=1e-6)


def test_a_landmark_that_moves_independently_starts_from_scratch() -> None:
    found, points = faces(30)
    points[:, 2] += np.random.default_rng(3).normal(0, 30, (30, 2))
    found_how = [m.how for m in match(found, points, np.ones((30, 5), bool), OLD, NEW).matches]
    assert found_how[2] == "from scratch"
    assert "from scratch" not in found_how[:2]


def test_faces_with_wrong_points_do_not_change_the_result() -> None:
    found, points = faces(40)
    found[:4] += np.random.default_rng(0).normal(0, 60, found[:4].shape)
    readout = match(found, points, np.ones((40, 5), bool), OLD, NEW).readout
    fresh, truth = faces(200, noise=0.0, seed=1)
    assert np.linalg.norm(readout.points(fresh) - truth, axis=-1).mean() < 1.0


def test_missing_labels() -> None:
    found, points = faces(30)
    labelled = np.random.default_rng(0).random((30, 5)) < 0.6
    points[~labelled] = np.nan
    readout = match(found, points, labelled, OLD, NEW).readout
    fresh, truth = faces(200, noise=0.0, seed=1)
    assert np.linalg.norm(readout.points(fresh) - truth, axis=-1).mean() < 1.0
    labelled[:, 2] = False
    with pytest.raises(ValueError, match="'chin'"):
        match(found, points, labelled, OLD, NEW)


def test_cross_validation_does_not_use_the_faces_of_the_same_image() -> None:
    found, points = faces(20)
    labelled = np.ones(points.shape[:2], bool)
    groups = np.arange(20) // 2
    before = cross_validated(found, points, labelled, OLD, NEW, groups.tolist())
    assert not np.isnan(before).any()
    changed = points.copy()
    changed[4:6] += 50  # both faces of one photograph
    after = cross_validated(found, changed, labelled, OLD, NEW, groups.tolist())
    np.testing.assert_array_equal(after[4:6], before[4:6])
    assert not np.array_equal(after, before)


def test_mirror_pairs_are_proposed_and_checked() -> None:
    found, points = faces(20)
    places = places_in_frame(found, points, OLD)
    assert places is not None
    assert guessed_mirror(places) == ((0, 1), (3, 4))
    assert doubtful_mirror(found, points, OLD, NEW) == []
    wrong = replace(NEW, mirror=((0, 3), (1, 4)))
    assert "'pupil_l' with 'brow_l'" in doubtful_mirror(found, points, OLD, wrong)[0]
    assert "'pupil_l' with 'pupil_l'" in doubtful_mirror(found, points, OLD, replace(NEW, mirror=((3, 4),)))[0]
