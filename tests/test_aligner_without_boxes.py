"""`FaceAligner` without boxes: a detector finds the faces first, the package's own or a user's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align import FaceAligner, FaceDetector
from hih_align.crops import tight_box
from hih_align.detection import yunet
from hih_align.passes import NOTHING
from hih_align.scores import Calibration

Array = NDArray[Any]

BOX = np.array((177.0, 80.0, 275.0, 200.0))


@pytest.fixture(scope="module")
def plain() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N", device="cpu")


@pytest.fixture
def aligner(plain: FaceAligner, shared: Path, monkeypatch: pytest.MonkeyPatch) -> FaceAligner:
    monkeypatch.setattr(plain, "detector", FaceDetector(shared / "weights" / yunet.FILE))
    return plain


def test_the_astronaut(aligner: FaceAligner, astronaut: Array) -> None:
    faces = aligner.align(astronaut)
    assert faces.points.shape == (1, 68, 2)
    known = aligner.align(astronaut, BOX)
    assert np.linalg.norm(faces.points[0] - known.points, axis=-1).mean() < 1
    assert faces.detection_scores is not None
    assert faces.detection_scores.shape == (1,)
    assert faces[0].detection_scores > 0.85
    assert faces[0].to_dict()["detection_score"] == pytest.approx(float(faces.detection_scores[0]))
    assert known.detection_scores is None
    assert "detection_score" not in known.to_dict()


def test_a_face_whose_landmarks_can_only_have_low_scores(aligner: FaceAligner, astronaut: Array) -> None:
    """An error of 5 % of the box is small for the landmarks of one eye, so their scores are low on each face."""
    low = replace(aligner.config, calibration={"expectation": Calibration(0.4, -1.8)})
    faces = aligner.with_config(low).align(astronaut)
    assert len(faces) == 1
    assert 0.1 < faces[0].score < NOTHING


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotated_images(aligner: FaceAligner, astronaut: Array, quarters: int) -> None:
    """The points rotate with the image, and the left side of the face keeps its name."""
    upright = aligner.align(astronaut)[0]
    face = aligner.align(np.rot90(astronaut, quarters))[0]
    back = (face.points - 511 / 2) @ (1, 1j) * 1j**quarters
    off = np.stack((back.real, back.imag), 1) + 511 / 2 - upright.points
    assert np.median(np.linalg.norm(off, axis=-1)) < 1  # the jaw moves more, because hair hides it
    assert abs((face.roll - upright.roll + 90 * quarters + 180) % 360 - 180) < 3


def test_no_face(aligner: FaceAligner) -> None:
    faces = aligner.align(np.full((300, 400, 3), 120, np.uint8))
    assert faces.points.shape == (0, 68, 2)
    assert len(faces) == 0
    assert faces.detection_scores is not None
    assert faces.detection_scores.shape == (0,)


def test_detections_that_are_not_faces_are_dropped(
    plain: FaceAligner, astronaut: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detector also returns the astronaut's helmet. Its landmarks have low scores, so the face is dropped.

    Boxes that the user gives are never dropped.
    """
    helmet = np.array([320.0, 380.0, 440.0, 500.0])
    monkeypatch.setattr(plain, "detector", lambda image: [helmet, BOX])
    faces = plain.align(astronaut)
    assert faces.bbox.tolist() == [BOX.tolist()]
    assert faces.detection_scores is not None
    assert faces.detection_scores.tolist() == [1]
    assert len(plain.align(astronaut, [helmet, BOX])) == 2


def test_batches(aligner: FaceAligner, astronaut: Array) -> None:
    """One call takes images with boxes, images without boxes, and images without faces."""
    nothing = np.full((80, 90, 3), 120, np.uint8)
    alone = aligner.align(astronaut)
    found = aligner.align_batch([astronaut, nothing, astronaut])
    assert [len(faces) for faces in found] == [1, 0, 1]
    np.testing.assert_allclose(found[2].points, alone.points, atol=5e-3)
    mixed = aligner.align_batch([astronaut, astronaut, nothing], [BOX, None, []])
    assert not mixed[0].several
    np.testing.assert_allclose(mixed[1].points, alone.points, atol=5e-3)
    assert len(mixed[2]) == 0


def test_bad_detectors(plain: FaceAligner, astronaut: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="detector is str, expected a function"):
        FaceAligner.from_pretrained("HIH_N", detector="retina")  # type: ignore[arg-type]
    monkeypatch.setattr(plain, "detector", lambda image: [[1, 2, 3]])
    with pytest.raises(ValueError, match=r"detector <lambda> returned an array of shape \(1, 3\).*in image number 0"):
        plain.align_batch([astronaut])


def test_a_given_roll_is_used(plain: FaceAligner, astronaut: Array) -> None:
    """The face gets one pass, in a crop that is rotated by the given roll. A wrong roll is used as it is given."""
    upright = plain.align(astronaut, BOX, refine=0)
    turned = np.rot90(astronaut)  # rotated counter-clockwise: the roll is -90
    centre = (BOX[:2] + BOX[2:]) / 2
    middle = np.array((centre[1], 511 - centre[0]))
    box = np.concatenate((middle - (BOX[2:] - BOX[:2]) / 2, middle + (BOX[2:] - BOX[:2]) / 2))
    face = plain.align(turned, box, refine=0, roll=-90)
    back = np.stack((511 - face.points[:, 1], face.points[:, 0]), 1)
    np.testing.assert_allclose(back, upright.points, atol=0.5)
    assert plain.align(turned, box, refine=0, roll=0).score < 0.75 < face.score
    several = plain.align(turned, [box, box], refine=0, roll=[-90, 0])
    np.testing.assert_allclose(several.points[0], face.points, atol=1e-3)


@pytest.mark.parametrize(
    ("bbox", "roll", "message"),
    [
        (None, 5, "roll is 5 without bbox"),
        (BOX, [1, 2], r"roll has shape \(2,\), expected one number or \(1,\)"),
        ([BOX, BOX], [1], r"roll has shape \(1,\), expected one number or \(2,\)"),
        (BOX, np.nan, "roll is nan, expected finite"),
    ],
)
def test_bad_rolls(plain: FaceAligner, astronaut: Array, bbox: Any, roll: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain.align(astronaut, bbox, roll=roll)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_every_runtime_finds_the_same_faces(
    shared: Path, astronaut: Array, backend: str, converted_nano: Callable[[str], str]
) -> None:
    """The smallest network. The tests of the other networks are in tests/runtime."""
    found = FaceDetector(shared / "weights" / yunet.FILE)
    small = FaceAligner.from_pretrained(converted_nano(backend), device="cpu", backend=backend, detector=found)
    picture = np.concatenate((astronaut, np.rot90(astronaut)), 1)
    faces = small.align(picture)
    assert faces.points.shape == (2, 68, 2)
    assert sorted(np.round(faces.roll / 90).tolist()) == [-1, 0]
    known = FaceAligner.from_pretrained("HIH_N/300w", device="cpu", detector=found).align(picture)
    np.testing.assert_allclose(faces.points, known.points, atol=0.3)
    np.testing.assert_allclose(faces.scores, known.scores, atol=0.01)


def test_an_exact_box_gets_one_pass(shared: Path, astronaut: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """A detected face with an exact box gets one pass, too.

    A box that is far off gets two passes. A face on its side has a low score, so all quarter turns are tried.
    """
    aligner = FaceAligner.from_pretrained("HIH_N", device="cpu")
    aligner.detector = FaceDetector(shared / "weights" / yunet.FILE)
    aligner.config = replace(aligner.config, refine=1, refine_above=0.1)
    crops: list[int] = []
    look = aligner._pass

    def counted(images: Any, transforms: Any, mirror: bool) -> Any:
        crops.append(len(transforms))
        return look(images, transforms, mirror)

    exact = tight_box(aligner.align(astronaut, BOX).points)
    monkeypatch.setattr(aligner, "_pass", counted)
    side = float((exact[2:] - exact[:2]).max())
    turned = np.rot90(astronaut)
    middle = np.array(((exact[1] + exact[3]) / 2, 511 - (exact[0] + exact[2]) / 2))
    half = (exact[2:] - exact[:2])[::-1] / 2
    for image, box, passes in (
        (astronaut, exact, [1]),
        (astronaut, exact + 0.02 * side, [1]),
        (astronaut, [exact, exact], [2]),
        (astronaut, None, [1]),
        (astronaut, exact + 0.2 * side, [1, 1]),
        (astronaut, [exact, exact + 0.2 * side], [2, 1]),
        (turned, np.concatenate((middle - half, middle + half)), [1, 1, 1, 1]),
    ):
        crops.clear()
        aligner.align(image, box)
        assert crops == passes, (box, crops)


def test_errors_with_other_arguments_keep_their_message(plain: FaceAligner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors of a detector that reads JSON take more than a message."""
    aligner = plain
    monkeypatch.setattr(plain, "detector", lambda image: json.loads(""))
    with pytest.raises(ValueError, match=r"Expecting value.*; in image number 1"):
        list(aligner.stream([np.zeros((40, 40, 3), np.uint8)] * 2, [[[2, 2, 30, 30]], None]))
