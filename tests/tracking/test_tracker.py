"""`FaceTracker`, on faces made of coloured dots, whose positions are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_aligner import DOT_SCHEME, dot_aligner, dots_of, paint, small_aligner

from hih_align import FaceAligner, Landmarks
from hih_align.crops import extended, tight_box
from hih_align.detection import Detections
from hih_align.scores import Calibration
from hih_align.tracking import FaceTracker
from hih_align.tracking import tracker as tracker_module

Array = NDArray[Any]
SIZE = (240, 400)


class Finder:
    """A detector that knows the faces' boxes and returns them with a small error. It counts its calls."""

    def __init__(self) -> None:
        self.boxes: list[Any] = []
        self.asked = 0

    def __call__(self, image: Array) -> Array:
        self.asked += 1
        return np.reshape(self.boxes, (-1, 4)) + np.array((3, -2, 2, 4))


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return dot_aligner()


@pytest.fixture
def finder() -> Finder:
    return Finder()


def box_at(x: float, y: float, side: float = 60) -> Array:
    return np.array((x, y, x + side, y + 1.1 * side))


def follow(
    tracker: FaceTracker, finder: Finder, boxes: Callable[[int], Sequence[Array]], frames: int, start: int = 0
) -> list[Any]:
    found = []
    for frame in range(start, start + frames):
        finder.boxes = list(boxes(frame))
        found.append(tracker.update(paint(*SIZE, finder.boxes), frame / 30))
    return found


def test_a_face_is_detected_once_and_followed(aligner: FaceAligner, finder: Finder) -> None:
    tracker = FaceTracker(aligner, detector=finder, smooth=False, every=1000)

    def boxes(frame: int) -> list[Array]:
        return [box_at(20 + 0.4 * frame**2, 40 + 2 * frame)]  # accelerating, to 20 px per frame at the end

    for frame, faces in enumerate(follow(tracker, finder, boxes, 26)):
        assert faces.ids.tolist() == [0]
        np.testing.assert_allclose(faces.points[0], dots_of(boxes(frame)[0]), atol=0.4)
    assert finder.asked == 1


def test_smoothed_points_of_a_still_face_are_where_the_face_is(aligner: FaceAligner, finder: Finder) -> None:
    tracker = FaceTracker(aligner, detector=finder)
    faces = follow(tracker, finder, lambda n: [box_at(60, 40)], 12)
    np.testing.assert_allclose(faces[-1].points[0], dots_of(box_at(60, 40)), atol=0.4)
    assert faces[-1][0].to_dict()["id"] == 0


def test_points_as_they_were_found_stay_beside_the_smoothed_ones(aligner: FaceAligner, finder: Finder) -> None:
    def boxes(frame: int) -> list[Array]:
        return [box_at(60 + 3 * (frame % 2), 40), *([box_at(220, 90)] if frame > 3 else [])]  # one trembles

    def raw() -> Landmarks:
        assert tracker.raw is not None
        return tracker.raw

    tracker = FaceTracker(aligner, detector=finder, every=1)
    assert tracker.raw is None
    plain = follow(FaceTracker(aligner, detector=finder, every=1, smooth=False), finder, boxes, 8)
    for frame, expected in enumerate(plain):
        (smooth,) = follow(tracker, finder, boxes, 1, frame)
        assert raw().ids.tolist() == smooth.ids.tolist() == [0, 1][: len(boxes(frame))]
        np.testing.assert_array_equal(raw().points, expected.points)
        np.testing.assert_array_equal(raw().scores, smooth.scores)
    assert np.abs(smooth.points[0] - raw().points[0]).max() > 0.01
    tracker.reset()
    assert tracker.raw is None


def test_while_no_face_is_tracked_every_frame_is_searched(aligner: FaceAligner, finder: Finder) -> None:
    tracker = FaceTracker(aligner, detector=finder, every=1000)
    found = follow(tracker, finder, lambda n: [box_at(50, 50)] if n >= 3 else [], 5)
    assert [len(faces) for faces in found] == [0, 0, 0, 1, 1]
    assert found[0].points.shape == (0, 6, 2)
    assert found[0].ids.shape == (0,)
    assert finder.asked == 4


def test_additional_faces_get_new_ids(aligner: FaceAligner, finder: Finder) -> None:
    tracker = FaceTracker(aligner, detector=finder, every=4)
    found = follow(tracker, finder, lambda n: [box_at(20, 50), box_at(250, 60)][: 1 if n < 2 else 2], 10)
    assert [faces.ids.tolist() for faces in found] == [[0]] * 4 + [[0, 1]] * 6
    assert finder.asked == 3


@pytest.mark.parametrize("reaches", [(0.6,), (0.0, 0.15, -0.1)])
def test_a_face_is_followed_once_whatever_the_boxes_of_the_detector(
    aligner: FaceAligner, reaches: Sequence[float]
) -> None:
    """Boxes of whole heads overlap little with the tight boxes of the points. Some detectors find a face twice."""
    own = box_at(150, 80)
    boxes = [extended(own, (reach,) * 4) for reach in reaches]
    tracker = FaceTracker(aligner, detector=lambda image: boxes, every=2)
    for _ in range(5):
        assert tracker.update(paint(*SIZE, [own])).ids.tolist() == [0]  # type: ignore[union-attr]


def test_a_turned_face_is_found_with_scores_that_are_not_calibrated(
    astronaut: Array, astronaut_box: tuple[float, float, float, float]
) -> None:
    """The detector knows the roll. Such scores do not show it."""
    plain = FaceAligner.from_pretrained("HIH_N")
    upright = plain.align(astronaut, astronaut_box)
    x1, y1, x2, y2 = 511 - np.array(astronaut_box)
    found = Detections(
        np.array([[x2, y2, x1, y1]], np.float32), np.ones(1, np.float32), 511 - upright.five_points()[None]
    )
    tracker = FaceTracker(plain.with_config(replace(plain.config, calibration={})), detector=lambda image: found)
    faces = tracker.update(astronaut[::-1, ::-1])
    np.testing.assert_allclose(faces.points[0], 511 - upright.points, atol=2)


def test_a_face_whose_points_collapse_is_lost(aligner: FaceAligner, finder: Finder) -> None:
    """With a low limit of the score, points mean nothing before the face is lost, and have no box."""
    tracker = FaceTracker(aligner, detector=finder, least=0)
    found = follow(tracker, finder, lambda frame: [box_at(100, 80)] if frame < 2 else [], 8)
    assert [len(faces) for faces in found] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert np.ptp(found[2].points, axis=1).tolist() == [[0, 0]]


def test_faces_whose_landmarks_can_only_have_low_scores_are_followed(aligner: FaceAligner, finder: Finder) -> None:
    low = aligner.with_config(replace(aligner.config, calibration={aligner.decoder.method: Calibration(0.4, -1.8)}))
    found = follow(FaceTracker(low, detector=finder), finder, lambda frame: [box_at(100 + frame, 60)], 3)
    assert [list(faces.ids) for faces in found] == [[0], [0], [0]]
    assert float(found[-1].score.max()) < 0.25
    assert finder.asked == 1


def test_a_lost_face_keeps_its_id_for_a_while(aligner: FaceAligner, finder: Finder) -> None:
    tracker = FaceTracker(aligner, detector=finder, every=2, keep=0.5)

    def boxes(frame: int) -> list[Array]:
        return [] if 5 <= frame < 10 or 15 <= frame < 40 else [box_at(100, 50)]

    found = follow(tracker, finder, boxes, 45)
    assert [len(faces) for faces in found] == [len(boxes(n)) for n in range(45)]
    assert found[12].ids.tolist() == [0]
    assert found[42].ids.tolist() == [1]  # the face returns after more than half a second
    assert all(float(faces.score.min()) >= 0.5 for faces in found if len(faces))


def test_two_faces_that_cross_keep_their_ids(aligner: FaceAligner, finder: Finder) -> None:
    """One face is above the other; their boxes overlap by a fifth while they pass."""
    tracker = FaceTracker(aligner, detector=finder, every=3, smooth=False)

    def boxes(frame: int) -> list[Array]:
        way = 0.3 * min(frame, 20) ** 2 + 8 * max(frame - 20, 0)
        return [box_at(20 + way, 20), box_at(310 - way, 110)]

    for frame, faces in enumerate(follow(tracker, finder, boxes, 34)):
        assert sorted(faces.ids.tolist()) == [0, 1]
        for index, number in enumerate(faces.ids):
            np.testing.assert_allclose(faces.points[index], dots_of(boxes(frame)[number]), atol=2)


def test_a_frame_of_another_size_restarts_the_tracker(aligner: FaceAligner, finder: Finder) -> None:
    tracker = FaceTracker(aligner, detector=finder, every=1000)
    follow(tracker, finder, lambda n: [box_at(50, 50)], 3)
    finder.boxes = [box_at(120, 80)]
    faces = tracker.update(paint(300, 300, finder.boxes), 1.0)
    assert faces.ids.tolist() == [1]
    np.testing.assert_allclose(faces.points[0], dots_of(finder.boxes[0]), atol=0.5)
    assert finder.asked == 2


def test_reset(aligner: FaceAligner, finder: Finder) -> None:
    tracker = FaceTracker(aligner, detector=finder)
    follow(tracker, finder, lambda n: [box_at(50, 50)], 3)
    tracker.reset()
    assert follow(tracker, finder, lambda n: [box_at(50, 50)], 1)[0].ids.tolist() == [1]  # times start again


@pytest.mark.parametrize("time", [0.1, 0.05, float("nan")])
def test_times_must_increase(aligner: FaceAligner, finder: Finder, time: float) -> None:
    tracker = FaceTracker(aligner, detector=finder)
    frame = np.zeros((50, 60, 3), np.uint8)
    tracker.update(frame, 0.1)
    with pytest.raises(ValueError, match=f"time is {time}, expected seconds, more than"):
        tracker.update(frame, time)
    tracker.update(frame)  # 1/30 s later
    with pytest.raises(ValueError, match=r"time is '0:10', expected seconds$"):
        FaceTracker(aligner, detector=finder).update(frame, "0:10")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every is 0"),
        ({"every": 1.5}, r"every is 1\.5"),
        ({"keep": -1}, "keep is -1"),
        ({"least": 2}, "least is 2"),
        ({"smooth": 0.5}, r"smooth is 0\.5, expected True, False or Smoothing"),
        ({"detector": "yunet"}, "detector is str, expected a function"),
    ],
)
def test_bad_settings(aligner: FaceAligner, options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        FaceTracker(aligner, **options)


def test_a_scheme_without_five_points() -> None:
    with pytest.raises(ValueError, match="expected a scheme that defines five points"):
        FaceTracker(small_aligner(replace(DOT_SCHEME, five=None)))


def test_a_face_that_returns_beside_the_place_where_it_was_lost(aligner: FaceAligner, finder: Finder) -> None:
    """For example, a face that the image's edge cut off.

    A face that returns half its box's side away keeps its id. A face that returns two sides away gets a new id.
    """
    for back, number in ((130, 0), (225, 1)):
        tracker = FaceTracker(aligner, detector=finder, every=2, keep=1)

        def boxes(frame: int, back: int = back) -> list[Array]:
            return [] if 5 <= frame < 10 else [box_at(100 if frame < 5 else back, 50)]

        found = follow(tracker, finder, boxes, 14)
        assert found[4].ids.tolist() == [0]
        assert found[12].ids.tolist() == [number]


def test_a_face_that_turns_at_once_is_aligned_in_the_box_of_its_points(
    finder: Finder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expected box is then far from the face. The face is aligned again, with an accurate box."""
    monkeypatch.setattr(tracker_module, "ELSEWHERE", 0.05)  # farther away these crops would not show the whole face
    aligner = dot_aligner()
    tracker = FaceTracker(aligner, detector=finder, smooth=False, every=1000)
    asked: list[Any] = []
    align = aligner.align
    aligner.align = lambda image, boxes, **options: asked.append(np.asarray(boxes)) or align(image, boxes, **options)  # type: ignore[assignment,func-returns-value]

    def boxes(frame: int) -> list[Array]:
        return [box_at(40 + 3.5 * min(frame, 16 - frame), 80)]

    found = follow(tracker, finder, boxes, 12)
    assert [len(faces) for faces in found] == [1] * 12
    points = np.array([faces.points[0] for faces in found])
    truth = np.array([dots_of(boxes(frame)[0]) for frame in range(12)])
    assert np.abs(points - truth).max() < 0.5
    # two calls in frame 0: no face is tracked, then one is detected. Frame 1 expects rest, frame 9 the same motion
    assert len(asked) == 12 + 1 + 2


@pytest.mark.parametrize("change", ["box", "selected"])
def test_boxes_that_reach_beyond_the_points(aligner: FaceAligner, change: str) -> None:
    """A model of own or of selected landmarks needs larger boxes than the tight boxes of its points."""
    if change == "selected":
        changed = aligner.select(DOT_SCHEME.names[:5], replace(DOT_SCHEME, names=DOT_SCHEME.names[:5], contours=()))
    else:
        changed = aligner.with_config(replace(aligner.config, box=(0.5, 0.5, 0.5, 0.5)))
    tracker = FaceTracker(changed, detector=lambda image: boxes, smooth=False, every=2)
    for frame in range(8):
        own = box_at(150 + 2 * frame, 80)
        dots = dots_of(own)[: len(changed.scheme)]
        boxes = extended(tight_box(dots), (0.5, 0.5, 0.5, 0.5))[None]
        faces = tracker.update(paint(*SIZE, [own]))
        assert faces.ids is not None
        assert faces.ids.tolist() == [0]
        np.testing.assert_allclose(faces.points[0], dots, atol=1.5)
        np.testing.assert_allclose(tracker._tracks[0].box, boxes[0], atol=6)
