"""Labels converted between annotation conventions, on real faces whose labels were moved by a known offset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hih_align import FaceAligner
from hih_align.cli.app import app
from hih_align.data.annotations import Dataset, Labels, Record, read_dataset
from hih_align.data.conventions import LEAST_FACES, Frame, harmonized, moved, offset
from hih_align.data.readers import coco
from hih_align.data.relabel import relabel
from hih_align.schemes import W300, scheme_from_dict

FACES = LEAST_FACES + 2  # one of them gets no labels


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", device="cpu")


@pytest.fixture(scope="module")
def faces(shared: Path) -> list[Record]:
    return list(read_dataset(shared / "data" / "300w_val" / "annotations.json", W300).records[:FACES])


@pytest.fixture
def few(faces: list[Record], monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """Faces for tests that run a network, in which fewer labels are enough."""
    monkeypatch.setattr("hih_align.data.conventions.LEAST_FACES", 12)
    return faces[:14]


def stacked(records: list[Record]) -> np.ndarray:
    return np.stack([r.labels.points for r in records if r.labels is not None])


@pytest.fixture(scope="module")
def frame(faces: list[Record]) -> Frame:
    return Frame.of(stacked(faces), W300)


@pytest.fixture(scope="module")
def known(frame: Frame) -> np.ndarray:
    """A known offset: up to 5 % of the face's radius, and 3 % more per unit of yaw.

    It is symmetrical under mirroring.
    """
    by = np.random.default_rng(0).uniform(-0.05, 0.05, (3, 68, 2)) * np.array((1, 0.6, 0))[:, None, None]
    mirrored = by[:, frame.permutation] * (-1, 1) * np.array((1, -1, 1))[:, None, None]
    return (by + mirrored) / 2


def elsewhere(records: list[Record], by: np.ndarray, frame: Frame) -> list[Record]:
    points = stacked(records)
    points = moved(points, points, by, frame)
    return [replace(record, labels=replace(record.labels, points=p)) for record, p in zip(records, points, strict=True)]


def test_the_mean_face_is_upright_and_symmetrical(frame: Frame) -> None:
    order, mean = frame.permutation, frame.mean
    np.testing.assert_allclose(mean[order] * (-1, 1), mean, atol=1e-9)
    assert mean[36, 0] < mean[45, 0]  # "left" means the left side of the image
    assert mean[8, 1] > mean[27, 1]  # the chin is below the eyes
    assert np.square(mean).sum(-1).mean() == pytest.approx(1)


def test_yaw_moves_the_nose_across(faces: list[Record], frame: Frame) -> None:
    """The yaw term follows the nose. Mirroring negates it; the face's scale, position and roll do not change it."""
    points = stacked(faces)
    terms = frame.terms(points)
    nose = (points[:, 30] - points[:, [36, 45]].mean(1))[:, 0] / np.ptp(points[..., 0], axis=1)
    assert abs(np.corrcoef(terms[:, 1], nose)[0, 1]) > 0.9
    assert np.square(terms[:, 1]).mean() == pytest.approx(1, rel=0.1)
    np.testing.assert_allclose(terms[:, 2], terms[:, 1] ** 2)
    mirrored = points[:, frame.permutation] * (-1, 1)
    np.testing.assert_allclose(frame.terms(mirrored), terms * (1, -1, 1), atol=1e-9)
    turned = 3 * points @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + 50
    np.testing.assert_allclose(frame.terms(turned), terms, atol=1e-9)


def test_moves_follow_scale_and_roll(frame: Frame) -> None:
    """For a face of 50 pixels' radius that lies on its side, "right" in the mean face is "down" in the image."""
    lying = (50 * np.stack((-frame.mean[:, 1], frame.mean[:, 0]), -1) + 100)[None]
    by = np.zeros((3, 68, 2))
    by[0, 30] = 0.1, 0.0
    by[:, 8] = np.nan
    step = moved(lying, lying, by, frame)[0] - lying[0]
    np.testing.assert_allclose(step[30], (0, 5), atol=1e-9)
    assert not np.delete(step, 30, axis=0).any()


def test_a_known_offset_is_recovered(faces: list[Record], frame: Frame, known: np.ndarray) -> None:
    found = offset(stacked(faces), elsewhere(faces, known, frame), frame)
    np.testing.assert_allclose(found, known, atol=0.002)


def test_wrong_labels_do_not_change_the_estimated_offset(faces: list[Record], frame: Frame, known: np.ndarray) -> None:
    some = elsewhere(faces, known, frame)
    some[::10] = [
        replace(r, labels=replace(r.labels, points=r.labels.points + 40)) for r in some[::10] if r.labels is not None
    ]
    found = offset(stacked(faces), some, frame)
    assert np.abs(found - known)[0].mean() < 0.01


def test_a_landmark_with_too_few_labels_has_no_offset(faces: list[Record], frame: Frame, known: np.ndarray) -> None:
    """Labels of weight 0 do not count. A landmark and its mirror partner are counted together."""
    some = elsewhere(faces, known, frame)
    for n, record in enumerate(some):
        assert record.labels is not None
        assert record.labels is not None
        weights, points = record.labels.weights.copy(), record.labels.points.copy()
        if n >= LEAST_FACES - 1:
            weights[0] = 0
            points[0] = np.nan
        some[n] = replace(record, labels=Labels(points, weights))
    found = offset(stacked(faces), some, frame)
    assert np.isnan(found[:, [0, 16]]).all()
    assert np.isfinite(np.delete(found, [0, 16], axis=1)).all()
    bare = [replace(record, labels=None) for record in faces]
    assert np.isnan(offset(stacked(faces), bare, frame)).all()


def test_a_scheme_without_mirror_pairs() -> None:
    scheme = scheme_from_dict({"id": "four", "names": ["a", "b", "c", "d"]})
    with pytest.raises(ValueError, match="four"):
        Frame.of(np.zeros((3, 4, 2)), scheme)


def test_labels_are_converted_back_through_a_network(
    aligner: FaceAligner,
    few: list[Record],
    frame: Frame,
    known: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels of another convention move back, by the difference between the network's points and each set of labels."""
    stream, given = aligner.stream, []

    def counted(images: list[Any], *others: Any, **options: Any) -> Any:
        given.extend(images)
        return stream(images, *others, **options)

    monkeypatch.setattr(aligner, "stream", counted)
    other = elsewhere(few, known, frame)
    other[0] = replace(other[0], labels=None)
    back, by = harmonized(aligner, few, other, other, progress=False)
    assert len(given) == 2 * len(few)  # the network runs once on each face
    assert back[0].labels is None
    np.testing.assert_allclose(by[0], -known[0], atol=0.02)
    radius = np.sqrt(np.square(stacked(few[1:]) - stacked(few[1:]).mean(1, keepdims=True)).sum(-1).mean(-1))
    off = [np.linalg.norm(stacked(some[1:]) - stacked(few[1:]), axis=-1).mean(1) / radius for some in (other, back)]
    assert off[1].mean() < 0.25 * off[0].mean()


def test_relabelling_keeps_the_convention_of_the_labels(
    aligner: FaceAligner, few: list[Record], frame: Frame, known: np.ndarray
) -> None:
    """A network with another convention does not pull machine-made labels towards its own points."""
    spread = np.full(68, 0.005)
    given = [replace(record, labels=replace(record.labels, spread=spread)) for record in elsewhere(few, known, frame)]
    new = relabel(aligner, Dataset("given", W300, tuple(given), Path()), ratio=3.0, boxes=1, progress=False)
    drift = offset(stacked(given), new, frame)
    assert np.abs(drift[0]).mean() < 0.15 * np.abs(known[0]).mean()


def test_the_command(few: list[Record], frame: Frame, known: np.ndarray, tmp_path: Path) -> None:
    coco.write(elsewhere(few, known, frame), W300, tmp_path / "other.json")
    coco.write(few, W300, tmp_path / "onto.json")
    out = tmp_path / "moved.json"
    arguments = ["data", "harmonize", "--model", "HIH_N/300w", "--device", "cpu", "--sample", "60"]
    arguments += ["--onto", str(tmp_path / "onto.json"), "--data", str(tmp_path / "other.json"), "--out", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"68 of 68 landmarks of {len(few)} faces moved" in result.output
    assert json.loads(out.read_text())["annotations"][0]["num_keypoints"] == 68
    other, found = (list(read_dataset(path, W300).records) for path in (tmp_path / "other.json", out))
    off = [np.linalg.norm(stacked(some) - stacked(few), axis=-1).mean() for some in (other, found)]
    assert off[1] < 0.25 * off[0]
