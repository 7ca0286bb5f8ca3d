"""Landmarks in the formats of other programs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from hih_align import SCHEMES, Landmarks
from hih_align.data.annotations import read_dataset


@pytest.fixture
def faces() -> Landmarks:
    rng = np.random.default_rng(0)
    # a symmetrical face: each right point is the mirror image of its left partner
    order = SCHEMES["300w"].permutation
    points = rng.uniform((10, 10), (80, 150), (2, 68, 2))
    right = np.arange(68) > order
    points[:, right] = points[:, order[right]] * (-1, 1) + (160, 0)
    points[:, np.arange(68) == order, 0] = 80
    points = points.astype(np.float32)
    scores = np.where(np.arange(68) < 5, 0.2, 0.9).astype(np.float32)
    return Landmarks(points, np.stack((scores, scores)), SCHEMES["300w"], np.zeros((2, 4), np.float32), "HIH_T/300w")


def test_coco_is_read_back(faces: Landmarks, tmp_path: Path) -> None:
    """The package's own reader, as `hih-align data check` uses it, reads the same points, order and boxes."""
    PIL.Image.new("RGB", (160, 170)).save(tmp_path / "a.png")
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(faces.to_coco("a.png", 160, 170)))
    dataset = read_dataset(path, "300w")
    assert len(dataset.records) == 2
    for record, points in zip(dataset.records, faces.points, strict=True):
        assert record.labels is not None
        np.testing.assert_allclose(record.labels.points, points, atol=1e-3)
        np.testing.assert_allclose(record.box, [*points.min(0), *points.max(0)], atol=2e-3)


def test_coco_by_its_format(faces: Landmarks) -> None:
    data = faces.to_coco("a.png", 160, 170)
    assert data["images"] == [{"id": 1, "file_name": "a.png", "width": 160, "height": 170}]
    assert [a["id"] for a in data["annotations"]] == [1, 2]
    annotation, category = data["annotations"][0], data["categories"][0]
    assert (annotation["image_id"], annotation["category_id"], annotation["iscrowd"]) == (1, 1, 0)
    assert len(annotation["keypoints"]) == 3 * 68
    assert annotation["num_keypoints"] == 68
    assert annotation["keypoints"][2::3] == [1] * 5 + [2] * 63
    assert annotation["score"] == pytest.approx(np.mean([0.2] * 5 + [0.9] * 63), abs=1e-4)
    assert annotation["keypoint_scores"] == [0.2] * 5 + [0.9] * 63
    assert annotation["area"] == pytest.approx(annotation["bbox"][2] * annotation["bbox"][3], rel=1e-4)
    assert category["keypoints"] == list(SCHEMES["300w"].names)
    assert min(min(bone) for bone in category["skeleton"]) == 1
    assert max(max(bone) for bone in category["skeleton"]) <= 68
    assert json.loads(json.dumps(data)) == data


def test_one_face_and_none(faces: Landmarks) -> None:
    assert len(faces[0].to_coco("a.png", 9, 9)["annotations"]) == 1
    assert faces[:0].to_coco("a.png", 9, 9)["annotations"] == []


def test_coco_of_a_path_is_json(faces: Landmarks) -> None:
    (image,) = json.loads(json.dumps(faces.to_coco(Path("more", "a.png"), 9, 9)))["images"]
    assert image["file_name"] == "more/a.png"


def test_supervision(faces: Landmarks) -> None:
    pytest.importorskip("supervision")
    for some, count in ((faces, 2), (faces[1], 1), (faces[:0], 0)):
        key_points = some.to_supervision()
        np.testing.assert_array_equal(key_points.xy, some.points.reshape(-1, 68, 2))
        np.testing.assert_array_equal(key_points.keypoint_confidence, some.scores.reshape(-1, 68))
        assert len(key_points) == count
