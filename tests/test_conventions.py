"""Labels moved between conventions: on real faces whose labels were moved by a known amount."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hih_align import FaceAligner
from hih_align.cli import app
from hih_align.schemes import W300, scheme_from_dict
from hih_align.training.annotations import Dataset, Record, read_dataset
from hih_align.training.conventions import LEAST_FACES, harmonized, moved, offset, reference_shape
from hih_align.training.readers import coco
from hih_align.training.relabel import relabel

FACES = 60


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_T", device="cpu")


@pytest.fixture(scope="module")
def faces(shared: Path) -> list[Record]:
    return list(read_dataset(shared / "data" / "300w_val" / "annotations.json", W300).records[:FACES])


def stacked(records: list[Record]) -> np.ndarray:
    return np.stack([r.points for r in records if r.points is not None])


@pytest.fixture(scope="module")
def mean(faces: list[Record]) -> np.ndarray:
    return reference_shape(stacked(faces), W300)


@pytest.fixture(scope="module")
def known() -> np.ndarray:
    """An offset of up to 5 % of the face's radius that is the same for left and right."""
    order = np.array(W300.permutation)
    by = np.random.default_rng(0).uniform(-0.05, 0.05, (68, 2))
    return (by + by[order] * (-1, 1)) / 2


def elsewhere(records: list[Record], by: np.ndarray, mean: np.ndarray) -> list[Record]:
    points = stacked(records)
    points = moved(points, np.ones(points.shape[:2], bool), by, mean)
    return [replace(record, points=p) for record, p in zip(records, points, strict=True)]


def test_the_reference_shape_is_upright_and_symmetrical(mean: np.ndarray) -> None:
    order = np.array(W300.permutation)
    np.testing.assert_allclose(mean[order] * (-1, 1), mean, atol=1e-9)
    assert mean[36, 0] < mean[45, 0]  # left is the picture's left
    assert mean[8, 1] > mean[27, 1]  # the chin is below the eyes
    assert np.square(mean).sum(-1).mean() == pytest.approx(1)


def test_moves_follow_scale_and_roll(mean: np.ndarray) -> None:
    """A face of 50 pixels' radius that lies on its side: right in the mean face is down in the image."""
    lying = 50 * np.stack((-mean[:, 1], mean[:, 0]), -1) + 100
    by = np.zeros((68, 2))
    by[30] = 0.1, 0.0
    by[8] = np.nan
    step = moved(lying[None], np.ones((1, 68), bool), by, mean)[0] - lying
    np.testing.assert_allclose(step[30], (0, 5), atol=1e-9)
    assert not np.delete(step, 30, axis=0).any()


def test_an_offset_is_found_again(faces: list[Record], mean: np.ndarray, known: np.ndarray) -> None:
    found = offset(stacked(faces), elsewhere(faces, known, mean), mean, W300)
    np.testing.assert_allclose(found, known, atol=0.004)  # faces are not the mean face


def test_few_labels_tell_nothing(faces: list[Record], mean: np.ndarray, known: np.ndarray) -> None:
    """Nor do labels of no weight, wherever they lie; a landmark counts with its partner."""
    some = elsewhere(faces, known, mean)
    for n, record in enumerate(some):
        assert record.weights is not None
        assert record.points is not None
        weights, points = record.weights.copy(), record.points.copy()
        if n >= LEAST_FACES - 1:
            weights[0] = 0
            points[0] = np.nan
        some[n] = replace(record, weights=weights, points=points)
    found = offset(stacked(faces), some, mean, W300)
    assert np.isnan(found[[0, 16]]).all()
    assert np.isfinite(np.delete(found, [0, 16], axis=0)).all()
    bare = [replace(record, points=None, weights=None) for record in faces]
    assert np.isnan(offset(stacked(faces), bare, mean, W300)).all()


def test_a_scheme_without_mirror_pairs() -> None:
    scheme = scheme_from_dict({"id": "four", "names": ["a", "b", "c", "d"]})
    with pytest.raises(ValueError, match="four"):
        reference_shape(np.zeros((3, 4, 2)), scheme)


def test_labels_come_back_through_a_network(
    aligner: FaceAligner, faces: list[Record], mean: np.ndarray, known: np.ndarray
) -> None:
    """Labels of another convention are moved back, by what the network finds on either."""
    other = elsewhere(faces, known, mean)
    other[0] = replace(other[0], points=None, weights=None)
    back, by = harmonized(aligner, faces, other, other)
    assert back[0] is other[0]
    np.testing.assert_allclose(by, -known, atol=0.01)
    radius = np.sqrt(np.square(stacked(faces[1:]) - stacked(faces[1:]).mean(1, keepdims=True)).sum(-1).mean(-1))
    off = [np.linalg.norm(stacked(some[1:]) - stacked(faces[1:]), axis=-1).mean(1) / radius for some in (other, back)]
    assert off[1].mean() < 0.25 * off[0].mean()


def test_labelling_again_keeps_the_labels_convention(
    aligner: FaceAligner, faces: list[Record], mean: np.ndarray, known: np.ndarray
) -> None:
    """A network that puts its points elsewhere does not draw machines' labels there."""
    spread = np.full(68, 0.005)
    given = [replace(record, spread=spread) for record in elsewhere(faces, known, mean)]
    new = relabel(aligner, Dataset("given", W300, tuple(given), Path()), ratio=3.0, boxes=1, progress=False)
    drift = offset(stacked(given), new, mean, W300)
    assert np.abs(drift).mean() < 0.15 * np.abs(known).mean()


def test_the_command(faces: list[Record], mean: np.ndarray, known: np.ndarray, tmp_path: Path) -> None:
    coco.write(elsewhere(faces, known, mean), W300, tmp_path / "other.json")
    coco.write(faces, W300, tmp_path / "onto.json")
    out = tmp_path / "moved.json"
    arguments = ["data", "harmonize", "--model", "HIH_T", "--device", "cpu", "--sample", "60"]
    arguments += ["--onto", str(tmp_path / "onto.json"), "--data", str(tmp_path / "other.json"), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "68 of 68 landmarks of 60 faces moved" in result.output
    assert json.loads(out.read_text())["annotations"][0]["num_keypoints"] == 68
    other, found = (list(read_dataset(path, W300).records) for path in (tmp_path / "other.json", out))
    off = [np.linalg.norm(stacked(some) - stacked(faces), axis=-1).mean() for some in (other, found)]
    assert off[1] < 0.25 * off[0]
