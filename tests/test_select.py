"""An aligner for some of a network's landmarks, and readouts in each runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hih_align import FaceAligner, crops
from hih_align.boxes import next_box
from hih_align.hub.config import Config
from hih_align.method.network import HIHNet
from hih_align.method.readout import from_weights
from hih_align.method.sizes import SIZES
from hih_align.schemes import W300, Scheme

CHOSEN = [36, 45, 30, 8]
BOX = (40.0, 30.0, 200.0, 190.0)


@pytest.fixture(scope="module")
def whole() -> FaceAligner:
    torch.manual_seed(0)
    size = SIZES["HIH_N"]
    return FaceAligner(HIHNet(68, *size), Config(W300, **size._asdict(), name="HIH_N/300w", refine=1))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (240, 240, 3), np.uint8)


def test_points_and_scores_are_those_of_the_whole_network(whole: FaceAligner, picture: np.ndarray) -> None:
    some = whole.select(CHOSEN)
    there, here = whole.align(picture, BOX, refine=0), some.align(picture, BOX)
    np.testing.assert_array_equal(here.points, there.points[CHOSEN])
    np.testing.assert_array_equal(here.scores, there.scores[CHOSEN])
    assert some.scheme.names == tuple(W300.names[i] for i in CHOSEN)
    assert some.scheme.mirror == ((0, 1),)
    assert dict(some.scheme.normalizers) == {"inter-ocular": ((0,), (1,))}
    assert some.config.name == "HIH_N/300w-4"


def test_names_and_an_own_scheme(whole: FaceAligner, picture: np.ndarray, tmp_path: Path) -> None:
    own = Scheme("mine", ("a", "b", "c", "d"), mirror=((0, 1),))
    some = whole.select([W300.names[i] for i in CHOSEN], own)
    some.save_pretrained(tmp_path)
    loaded = FaceAligner.from_pretrained(tmp_path)
    assert loaded.scheme == own
    face = loaded.align(picture, BOX, mirror=True)
    np.testing.assert_array_equal(face.points, some.align(picture, BOX, mirror=True).points)
    again = loaded.select(["d", "a"])
    np.testing.assert_array_equal(again.align(picture, BOX).points, loaded.align(picture, BOX).points[[3, 0]])


def test_wrong_landmarks_are_named(whole: FaceAligner) -> None:
    for landmarks, message in (([68], "has 0..67"), (["pupil"], "'pupil'"), ([1, 1], "twice"), ([], "is empty")):
        with pytest.raises(ValueError, match=message):
            whole.select(landmarks)
    with pytest.raises(ValueError, match="has 1 landmarks, landmarks names 2"):
        whole.select([0, 1], Scheme("one", ("a",)))


def test_no_box_for_refining_is_estimated_from_some_of_the_points(whole: FaceAligner, picture: np.ndarray) -> None:
    with pytest.raises(ValueError, match="refine is 1"):
        whole.select(CHOSEN).align(picture, BOX, refine=1)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_each_runtime_applies_a_readout(whole: FaceAligner, picture: np.ndarray, tmp_path: Path, backend: str) -> None:
    if backend != "torch":
        pytest.importorskip(backend)
    weights = np.zeros((2, 68), complex)
    weights[0, [36, 45]] = 0.5
    weights[1, [27, 30]] = -0.2j, 1 + 0.2j
    readout = from_weights(weights)
    config = replace(whole.config, scheme=Scheme("two", ("a", "b")), readout=readout, refine=0)
    mixed = FaceAligner(whole.network, config)
    mixed.save_pretrained(tmp_path)
    face = FaceAligner.from_pretrained(tmp_path, backend=backend).align(picture, BOX)
    there = whole.align(picture, BOX, refine=0)
    np.testing.assert_allclose(face.points, readout.points(there.points), atol=2e-3)
    np.testing.assert_allclose(face.scores[1], there.scores[30], atol=1e-4)


def test_boxes_extend_beyond_the_points_as_in_training() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(50, 150, (40, 9, 2))
    tight = crops.tight_box(points)
    reach = (0.1, 0.5, 0.2, -0.05)
    boxes = crops.extended(tight, reach)
    np.testing.assert_allclose(crops.reach_of(boxes, tight), reach, atol=1e-4)
    image = np.zeros((300, 300, 3), np.uint8)
    np.testing.assert_allclose(next_box(tight[0], points[0], image, 0.0, reach), boxes[0])
