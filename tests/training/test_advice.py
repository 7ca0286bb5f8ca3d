"""Advice after a first training run: one sentence for each fault, and none for correct faces."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from hih_align.crops import tight_box
from hih_align.data.records import Labels, Record
from hih_align.evaluation.results import Report, Settings
from hih_align.method.decoder import Decoder
from hih_align.schemes import Scheme
from hih_align.training.advice import advice, doubtful_mirror, falling, other_boxes, scratch
from hih_align.training.matching import match

FOUR = Scheme("four", ("left", "right", "nose", "chin"), mirror=((0, 1),), normalizers={"eyes": ((0,), (1,))})
SHAPE = np.array([[-1, -1], [1, -1], [0, 0], [0, 2]], float)
COUNT = 20


def labels() -> np.ndarray:
    """Faces (20, 4, 2) with 100 px between the eyes."""
    rng = np.random.default_rng(0)
    return 50 * SHAPE + rng.uniform(200, 300, (COUNT, 1, 2)) + rng.normal(0, 1, (COUNT, 4, 2))


def records(points: np.ndarray, margin: float = 10.0) -> tuple[Record, ...]:
    tight = tight_box(points)
    return tuple(
        Record(
            Path(f"{n}.png"),
            Labels(p, np.ones(4)),
            {"annotated": box + np.array((-margin, -margin, margin, margin)), "landmarks": box},
            key=f"#{n}",
        )
        for n, (p, box) in enumerate(zip(points, tight, strict=True))
    )


def report(target: np.ndarray, found: np.ndarray, margin: float = 10.0) -> Report:
    faces = records(target, margin)
    settings = Settings(decoder=asdict(Decoder()), normalizer="eyes", keep=None, calibrated=False)
    boxes = np.array([face.box for face in faces])
    return Report(
        "m", "d", FOUR, settings, faces, boxes, found.astype(np.float32), np.ones(found.shape[:2], np.float32)
    )


def test_correct_faces_get_no_advice() -> None:
    target = labels()
    matching = match(target, target, np.ones((COUNT, 4), bool), FOUR, FOUR)
    assert advice(report(target, target + 1), matching, target, FOUR) == ()
    assert falling([9, 8, 7.5, 7.4, 7.39, 7.38, 7.38, 7.38, 7.38, 7.38]) == []
    assert other_boxes(records(target), records(target)) == []


def test_a_high_error() -> None:
    target = labels()
    (said,) = advice(report(target, target + np.array((12, 0))))
    assert said.startswith("the NME is 12.1 %, above 10 %")


def test_a_face_of_ten_times_the_median_error() -> None:
    target = labels()
    found = target + np.array((1.0, 0))
    found[7] += 30
    (said,) = advice(report(target, found))
    assert "1 faces have more than 10 times the median error" in said
    assert "#7 (" in said


def test_points_outside_the_box() -> None:
    target = labels()
    (said,) = advice(report(target, target, margin=-40))
    assert said.startswith("20 of 20 faces have points further outside their box than a tenth of its side, first #0")


def test_a_mirror_table_whose_pairs_are_not_mirror_images() -> None:
    target = labels()
    wrong = Scheme("wrong", FOUR.names, mirror=((0, 2),))
    (said,) = doubtful_mirror(target, target, FOUR, wrong)
    assert "'left' with 'nose'" in said
    assert "'right' with 'right'" in said
    assert doubtful_mirror(target, target, FOUR, FOUR) == []


def test_boxes_that_are_tighter_in_training_than_in_validation() -> None:
    target = labels()
    (said,) = other_boxes(records(target, 0), records(target, 40))
    assert "0 %, 0 %, 0 %, 0 % in training and 27 %, 27 %, 27 %, 27 % in validation" in said


def test_boxes_around_faces_of_some_labels_are_not_compared() -> None:
    """The tight box of three landmarks is smaller, but the box of the face is the same."""
    target = labels()
    some = []
    for face in records(target):
        assert face.labels is not None
        own = replace(face.labels, weights=np.array([1.0, 1, 1, 0]))
        some.append(replace(face, labels=own, boxes=dict(face.boxes) | {"landmarks": tight_box(own.points[:3])}))
    assert other_boxes(some, records(target)) == []
    assert other_boxes([*some, *records(target, 40)[:3]], records(target)) != []


def test_a_curve_that_still_falls() -> None:
    (said,) = falling([20, 18, 16, 14, 12, 11, 10, 9, 8, 7])
    assert "from 9.00 to 7.00 % in the last 2 epochs" in said


def test_a_landmark_without_a_related_landmark() -> None:
    target = labels()
    found = target.copy()
    own = target.copy()
    own[:, 3] = np.random.default_rng(1).uniform(0, 500, (COUNT, 2))
    (said,) = scratch(match(found, own, np.ones((COUNT, 4), bool), FOUR, Scheme("own", ("a", "b", "c", "d"))))
    assert "'d' (spread" in said
