"""`FaceDetector` with YuNet's real file, which it gets as a user's detector does; and detectors of the user's own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from loopback_hub import LoopbackHub
from numpy.typing import NDArray

from hih_align import CheckpointError, FaceDetector, WeightsUnavailableError
from hih_align.detection import given, scan, yunet

Array = NDArray[Any]

#: Eyes, nose tip and mouth corners of the astronaut, read by eye from an enlarged image.
FIVE = np.array([(203.2, 101.3), (246.8, 103.1), (225.4, 127.6), (202.2, 140.0), (244.0, 141.2)])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.delenv("HIH_ALIGN_WEIGHTS", raising=False)
    with LoopbackHub() as server:
        server.connect(monkeypatch, tmp_path / "home")
        yield server


@pytest.fixture(scope="module")
def file(shared: Path) -> Path:
    return shared / "weights" / yunet.FILE


@pytest.fixture(scope="module")
def detector(file: Path) -> FaceDetector:
    return FaceDetector(file)


# where the detector gets its file


def test_from_the_hub_once(hub: LoopbackHub, file: Path, astronaut: Array) -> None:
    hub.add_repo(yunet.REPOSITORY, {yunet.FILE: file.read_bytes(), "README.md": b"#"})
    lazy = FaceDetector()
    assert hub.requests == []  # no request before the file is needed
    assert len(lazy.detect(astronaut)) == 1
    asked = len(hub.requests)
    assert asked > 0
    hub.stop()
    assert len(FaceDetector.from_pretrained("yunet").detect(astronaut)) == 1
    assert len(hub.requests) == asked


def test_from_the_users_folder(hub: LoopbackHub, file: Path, monkeypatch: pytest.MonkeyPatch, astronaut: Array) -> None:
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(file.parent))
    assert len(FaceDetector.from_pretrained().detect(astronaut)) == 1
    assert hub.requests == []


def test_no_file_and_no_network(hub: LoopbackHub, astronaut: Array) -> None:
    hub.stop()
    with pytest.raises(WeightsUnavailableError, match=r"detector: face_detection_yunet_2023mar\.onnx") as caught:
        FaceDetector().detect(astronaut)
    for part in ("HIH_ALIGN_WEIGHTS", f"hf download {yunet.REPOSITORY} {yunet.FILE}", "boxes"):
        assert part in str(caught.value)


def test_a_damaged_file(hub: LoopbackHub, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_repo(yunet.REPOSITORY, {yunet.FILE: file.read_bytes()})
    hub.corrupt_next(yunet.FILE)
    FaceDetector.from_pretrained()  # the file is downloaded once more
    (tmp_path / yunet.FILE).write_bytes(b"onnx")
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(tmp_path))
    with pytest.raises(CheckpointError, match="SHA-256"):
        FaceDetector.from_pretrained()


def program(code: str, *files: Path, **environment: str) -> str:
    """Run a program; return its standard error."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    ).stderr


def test_opencv_prints_no_warning(file: Path) -> None:
    """OpenCV's own warning about its target, one per detector, is suppressed.

    Afterwards OpenCV's log level is the same as before.
    """
    code = (
        "import cv2, sys, numpy as np; from hih_align import FaceDetector\n"
        "log = getattr(cv2.utils, 'logging', cv2); before = log.getLogLevel()\n"
        "FaceDetector(sys.argv[1]).detect(np.zeros((90, 90, 3), np.uint8))\n"
        "assert log.getLogLevel() == before"
    )
    assert program(code, file) == ""


@pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="before OpenCV 5 there is one engine")
@pytest.mark.parametrize("engine", ["2", "3", "4"])
def test_detection_works_with_each_engine_of_opencv(file: Path, engine: str, tmp_path: Path, astronaut: Array) -> None:
    """OpenCV 5 has its own graph engine, an automatic choice, and ONNX Runtime in builds that include it."""
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), astronaut[:, 60:400, ::-1])
    code = (
        "import sys; from hih_align import FaceDetector\nassert len(FaceDetector(sys.argv[1]).detect(sys.argv[2])) == 1"
    )
    program(code, file, photo, OPENCV_FORCE_DNN_ENGINE=engine)


def test_the_network_gets_squares_of_one_size(detector: FaceDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    """With this file, ONNX Runtime refuses inputs of any other size (opencv/opencv#28769)."""
    shapes = set()
    inner = detector._loaded()

    def spying(square: Array) -> Any:
        shapes.add(square.shape)
        return inner(square)

    monkeypatch.setattr(detector, "_network", spying)
    for shape in ((50, 60, 3), (700, 3000, 3), (640, 640, 3)):
        detector.detect(np.zeros(shape, np.uint8))
    assert shapes == {(640, 640, 3)}


# detections


@pytest.mark.parametrize("scale", [0.5, 1, 3])
def test_the_astronaut(detector: FaceDetector, astronaut: Array, astronaut_box: Any, scale: float) -> None:
    side = round(512 * scale)
    found = detector.detect(cv2.resize(astronaut, (side, side), interpolation=cv2.INTER_AREA))
    found = found[found.scores > 0.8]  # the helmet is found, too, with a score of 0.73
    assert found.boxes.shape == (1, 4)
    assert found.points.shape == (1, 5, 2)
    assert {found.boxes.dtype, found.scores.dtype, found.points.dtype} == {np.dtype(np.float32)}
    assert found.scores[0] > 0.8
    assert scan.overlap(np.array(astronaut_box) * scale, found.boxes.astype(float))[0][0] > 0.5
    np.testing.assert_allclose(found.points[0], FIVE * scale, atol=6 * max(scale, 0.5))
    assert abs(found.rolls[0] - 2.4) < 4
    assert np.asarray(found).shape == (1, 5)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_rotated_images(detector: FaceDetector, astronaut: Array, quarters: int) -> None:
    """In images turned by quarter turns counter-clockwise, boxes, points and roll turn with the image."""
    found = detector.detect(np.rot90(astronaut, quarters))
    upright = detector.detect(astronaut)
    assert len(found) == 1
    assert abs((found.rolls[0] - upright.rolls[0] + 90 * quarters + 180) % 360 - 180) < 3
    middle = 511 / 2
    # multiplying by i turns clockwise in an image, where y points down
    back = (found.points[0] - middle) @ (1, 1j) * 1j**quarters
    np.testing.assert_allclose(np.stack((back.real, back.imag), 1) + middle, upright.points[0], atol=3)


def test_rotations_are_tried_only_when_no_upright_face_is_certain(detector: FaceDetector, astronaut: Array) -> None:
    both = np.concatenate((astronaut, np.rot90(astronaut, 2)), 1)
    found = detector.detect(both)
    assert found.scores.max() > 0.9
    np.testing.assert_array_equal(FaceDetector(detector._path, rotations=()).detect(both).boxes, found.boxes)


def test_small_and_large_faces_of_one_photograph(detector: FaceDetector, astronaut: Array) -> None:
    """80 px faces in 6000 x 4000 pixels, beside a face of 2000 px: each is found once, and the largest is first."""
    image = np.full((4000, 6000, 3), 90, np.uint8)
    face = astronaut[60:240, 140:320]
    image[200:3400, 200:3400] = cv2.resize(face, (3200, 3200), interpolation=cv2.INTER_CUBIC)
    small = cv2.resize(face, (125, 125), interpolation=cv2.INTER_AREA)
    places = [(4000, 300), (5111, 2222), (3777, 3801), (5800, 3300)]
    for x, y in places:
        image[y : y + 125, x : x + 125] = small
    found = detector.detect(image)
    assert len(found) == 5
    assert (found.scores > 0.6).all()
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).max(1)
    assert sides[0] > 1500
    assert (sides[1:] < 125).all()
    centres = (found.boxes[1:, :2] + found.boxes[1:, 2:]) / 2
    for place in places:
        assert np.linalg.norm(centres - place - 62, axis=1).min() < 25


@pytest.mark.parametrize("image", ["coffee", "brick"])
def test_no_face_is_an_empty_result(detector: FaceDetector, image: str) -> None:
    found = detector.detect(getattr(skimage.data, image)())
    assert (found.boxes.shape, found.scores.shape, found.points.shape) == ((0, 4), (0,), (0, 5, 2))
    assert found.rolls.shape == (0,)
    assert list(found) == []


def test_tiny_images(detector: FaceDetector) -> None:
    for shape in ((1, 1, 3), (1, 3000, 3), (9, 4, 3)):
        assert len(detector.detect(np.zeros(shape, np.uint8))) == 0


def test_threads_and_pickles(detector: FaceDetector, astronaut: Array) -> None:
    expected = detector.detect(astronaut)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(detector.detect, [astronaut] * 8):
            np.testing.assert_array_equal(found.boxes, expected.boxes)
    again = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(again.detect(astronaut).points, expected.points)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, r"threshold is 1\.5"),
        ({"sizes": []}, "sizes is empty"),
        ({"sizes": [0]}, r"sizes is \[0\]"),
        ({"rotations": [45]}, r"rotations is \[45\].*\[90, 180, 270\]"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FaceDetector(**options)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="detector is 'retina', expected 'yunet'"):
        FaceDetector.from_pretrained("retina")
    with pytest.raises(FileNotFoundError, match="no such file"):
        FaceDetector(tmp_path / "none.onnx")


# detectors of the user's own

IMAGE = np.zeros((100, 200, 3), np.uint8)


@pytest.mark.parametrize(
    "boxes",
    [
        [[1, 2, 30, 40], [5, 6, 90, 80]],
        np.array([[1, 2, 30, 40, 0.5], [5, 6, 90, 80, 0.75]]),
        torch.tensor([[1, 2, 30, 40], [5, 6, 90, 80]]),
        torch.tensor([[1, 2, 30, 40, 0.5], [5, 6, 90, 80, 0.75]]).bfloat16(),
        [torch.tensor([1.0, 2, 30, 40], requires_grad=True), torch.tensor([5.0, 6, 90, 80], requires_grad=True)],
    ],
)
def test_results_of_other_detectors(boxes: Any) -> None:
    """The package sorts the boxes of a user's detector: the largest is first."""
    found = given.detections(lambda image: boxes, IMAGE)
    assert found.boxes.tolist() == [[5, 6, 90, 80], [1, 2, 30, 40]]
    assert found.scores.tolist() == ([0.75, 0.5] if len(boxes[0]) == 5 else [1, 1])
    assert found.rolls.tolist() == [0, 0]


def test_other_detectors_get_an_array_that_pytorch_takes() -> None:
    """A frame of OpenCV, whose channels the caller has reversed, has a negative stride."""
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    seen: list[torch.Tensor] = []
    given.detections(lambda rgb: seen.append(torch.from_numpy(rgb)) or [], picture[..., ::-1])  # type: ignore[func-returns-value]
    np.testing.assert_array_equal(seen[0].numpy(), picture[..., ::-1])


@pytest.mark.parametrize("key", [0, [[0], [1]]])
def test_detections_are_indexed_by_one_dimension(key: Any) -> None:
    """Such as the result of np.argwhere, which would give damaged boxes."""
    found = given.detections(lambda image: [[1, 2, 30, 40], [5, 6, 90, 80]], IMAGE)
    with pytest.raises(TypeError, match="detections are indexed by slice, mask or a list of numbers"):
        found[key]


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 4)), np.zeros((0, 5))])
def test_other_detectors_find_nothing(nothing: Any) -> None:
    assert len(given.detections(lambda image: nothing, IMAGE)) == 0


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda i: None, TypeError, "returned None.*return an empty array"),
        (lambda i: "faces", TypeError, "returned str"),
        (lambda i: [1, 2, 3, 4], ValueError, r"returned an array of shape \(4,\), expected boxes \(N, 4\)"),
        (lambda i: np.zeros((2, 15)), ValueError, r"shape \(2, 15\)"),
        (lambda i: [[0.1, 0.1, 0.2, 0.2]], ValueError, "detector .*fractions"),
        (lambda i: [[9, 9, 1, 1]], ValueError, "detector .*x1 < x2"),
    ],
)
def test_bad_detectors(answer: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        given.detections(answer, IMAGE)


def test_opencv_gets_no_path(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows it opens no file below a folder such as C:/Users/名前, which holds the Hub's cache."""
    folder = tmp_path / "名前"
    folder.mkdir()
    (folder / yunet.FILE).write_bytes(file.read_bytes())
    create = cv2.FaceDetectorYN.create
    asked: list[Any] = []

    def watched(*arguments: Any) -> Any:
        asked.extend(arguments)
        return create(*arguments)

    monkeypatch.setattr("cv2.FaceDetectorYN", SimpleNamespace(create=watched))
    assert len(FaceDetector(folder / yunet.FILE).detect(skimage.data.astronaut())) == 1
    assert not [one for one in asked if "名前" in str(one)]
