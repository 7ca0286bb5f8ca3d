"""The correction of landmarks by each other: what it learns, where it lies, and how an aligner applies it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from hih_align import FaceAligner, HIHNet
from hih_align.data.annotations import Dataset, Record, read_dataset
from hih_align.evaluation import correction
from hih_align.evaluation.correction import ENOUGH, correct, learn_correction
from hih_align.evaluation.evaluate import evaluate
from hih_align.hub.checkpoints import (
    CORRECTION,
    Checkpoint,
    load_config,
    load_network,
    save_checkpoint,
    save_config,
)
from hih_align.hub.config import CheckpointError, Config, read_config
from hih_align.method.readout import Readout, from_weights, pick
from hih_align.method.sizes import SIZES
from hih_align.schemes import W300

#: Landmarks of jaw, brows and nose. The regression of all 68 landmarks takes much longer.
SOME = W300.select(range(36))


def faces(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Found and labelled points of made faces at any place, size and roll, with a systematic error of the jaw."""
    rng = np.random.default_rng(seed)
    mean = np.random.default_rng(9).normal(size=36) + 1j * np.random.default_rng(8).normal(size=36)
    mean = (mean - mean.conj()[np.asarray(SOME.permutation)]) / 2  # the same as its mirror image
    shape = mean + rng.normal(size=(count, 36), scale=0.05) + 1j * rng.normal(size=(count, 36), scale=0.05)
    wrong = shape.copy()
    wrong[:, :17] += (0.4 * (shape - mean).real + 0.2j * (shape - mean).imag)[:, 17:34] + 0.1j
    wrong += rng.normal(size=(count, 36), scale=0.003)
    pose = rng.uniform(40, 90, (count, 1)) * np.exp(1j * rng.uniform(-3, 3, (count, 1)))
    place = rng.uniform(0, 500, (count, 1)) * (1 + 0.5j)
    found, target = (np.stack((z.real, z.imag), -1) for z in (wrong * pose + place, shape * pose + place))
    return found, target


def random_correction(seed: int = 0, landmarks: int = 68) -> Readout:
    rng = np.random.default_rng(seed)
    noise, mirrored = 0.01 * rng.normal(size=(2, landmarks, landmarks, 2)) @ (1, 1j)
    weights = np.eye(landmarks) + noise
    upright = np.arange(landmarks) * (1 + 0.3j) - (landmarks - 1) / 2 * (1 + 0.3j)
    mirrored -= mirrored.mean(-1, keepdims=True)
    return from_weights(weights / weights.sum(-1, keepdims=True), mirrored, upright)


def error(found: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - target, axis=-1).mean())


def test_it_learns_systematic_errors_of_faces_at_any_place_size_and_roll() -> None:
    found, target = faces(600)
    scheme = replace(SOME, mirror=None)  # the made errors are not symmetric
    learnt = correct([found], target, np.ones(found.shape[:2], bool), scheme)
    others, truth = faces(50, seed=1)
    assert error(learnt.points(others), truth) < 0.15 * error(others, truth)


def test_a_face_is_left_out_with_all_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the strength would be chosen on faces that were learnt from."""
    found, target = faces(201)
    learnt_from: list[NDArray[np.float64]] = []

    def recorded(points: NDArray[np.float64], *rest: object) -> Readout:
        learnt_from.append(points)
        return pick(36, range(36))

    monkeypatch.setattr("hih_align.evaluation.correction._correct", recorded)
    correct([found, -found], target, np.ones(found.shape[:2], bool), SOME)
    for points in learnt_from[:-1]:  # the last one is the result, from all faces
        exact, shifted = np.split(points, 2)
        assert 0 < len(exact) < len(found)
        np.testing.assert_array_equal(exact, -shifted)


def test_a_landmark_with_few_labels_stays() -> None:
    found, target = faces(300)
    labelled = np.ones(found.shape[:2], bool)
    labelled[ENOUGH - 1 :, 3] = False
    target[ENOUGH - 1 :, 3] = np.nan
    weights = correct([found, found], target, labelled, SOME).weights
    assert np.array_equal(weights[3], np.eye(36)[3])
    assert not np.array_equal(weights[4], np.eye(36)[4])


def test_it_is_kept_only_if_it_helps_on_other_faces(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels whose jaw lies lower than the network finds it, and labels where it does not."""
    monkeypatch.setattr(correction, "ENOUGH", 10)
    aligner = FaceAligner.from_pretrained("HIH_N")
    data = read_dataset(shared / "data/300w_val/annotations.json", "300w")
    few, some = (replace(data, records=data.records[part]) for part in (slice(3), slice(3, 13)))
    learnt = learn_correction(aligner, [(with_lower_jaws(some), 1.0)], with_lower_jaws(few), progress=False)
    assert learnt.useful, learnt.text()
    assert learnt.faces == 10
    measured = evaluate(learnt.aligner, with_lower_jaws(few), refine=0, progress=False).overall.nme
    assert measured == pytest.approx(learnt.after["annotated"])
    refused = learn_correction(aligner, [(with_lower_jaws(some), 1.0)], few, progress=False)
    assert not refused.useful
    assert refused.aligner.config.correction is None
    assert refused.text().endswith("it is not used")
    with pytest.raises(ValueError, match="is 2, expected a number"):
        learn_correction(aligner, [(some, 2)], few, progress=False)


def with_lower_jaws(data: Dataset) -> Dataset:
    def moved(record: Record) -> Record:
        assert record.labels is not None
        points = record.labels.points.copy()
        points[:17] += 0.3 * (points[8] - points[27])  # from the bridge of the nose to the chin
        return replace(record, labels=replace(record.labels, points=points))

    return replace(data, records=tuple(map(moved, data.records)))


def test_landmarks_that_are_computed_from_others_are_not_corrected(shared: Path) -> None:
    aligner = FaceAligner.from_pretrained("HIH_N").select([30])
    data = Dataset("none", aligner.scheme, (), shared)
    with pytest.raises(ValueError, match="computed from others"):
        learn_correction(aligner, [(data, 1.0)], data, progress=False)


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_an_aligner_applies_it(backend: str, astronaut: NDArray[np.uint8]) -> None:
    start = FaceAligner.from_pretrained("HIH_N")
    box = [177, 80, 275, 200]
    plain = start.with_config(replace(start.config, correction=None)).align(astronaut, box, refine=0)
    correction = random_correction()
    config = replace(start.config, correction=correction)
    aligner = FaceAligner(start.network, config, backend=backend)
    face = aligner.align(astronaut, box, refine=0)
    assert np.abs(correction.points(plain.points) - plain.points).max() > 0.5
    assert np.allclose(face.points, correction.points(plain.points), atol=0.02)
    assert np.allclose(face.scores, plain.scores, atol=2e-3)


def test_corrected_landmarks_can_be_picked(astronaut: NDArray[np.uint8]) -> None:
    """In PyTorch: `test_select` does it with a readout in each runtime, which converts the network once more."""
    start = FaceAligner.from_pretrained("HIH_N", device="cpu")
    aligner = start.with_config(replace(start.config, correction=random_correction()))
    box = [177, 80, 275, 200]
    face = aligner.align(astronaut, box, refine=0)
    picked = aligner.select([30, 8]).align(astronaut, box, refine=0)
    assert np.allclose(picked.points, face.points[[30, 8]], atol=0.02)


def test_the_papers_decoder_has_none(astronaut: NDArray[np.uint8]) -> None:
    start = FaceAligner.from_pretrained("HIH_N", decode="argmax")
    config = replace(start.config, correction=random_correction())
    with_it = FaceAligner(start.network, config, decode=start.decoder)
    box = [177, 80, 275, 200]
    assert np.array_equal(
        with_it.align(astronaut, box, refine=0).points,
        start.with_config(replace(start.config, correction=None)).align(astronaut, box, refine=0).points,
    )


def test_it_lies_in_the_file_of_weights(tmp_path: Path) -> None:
    network = HIHNet(68, *SIZES["HIH_N"])
    config = Config(W300, **SIZES["HIH_N"]._asdict(), correction=random_correction())
    save_checkpoint(tmp_path, network, config)
    assert "correction" not in json.loads((tmp_path / "config.json").read_text("utf-8"))
    checkpoint = Checkpoint(read_config(tmp_path / "config.json"), tmp_path / "model.safetensors")
    stored = load_config(checkpoint).correction
    assert stored is not None
    assert config.correction is not None
    assert np.allclose(stored.parts, config.correction.parts, atol=1e-6)
    same = load_network(checkpoint).state_dict()
    assert all((same[name] == value).all() for name, value in network.state_dict().items())


def test_a_file_without_mirrored_points_is_read(tmp_path: Path) -> None:
    """Older corrections have one sum for each landmark, and not two."""
    correction = replace(random_correction(), mirrored=(), upright=())
    save_checkpoint(tmp_path, HIHNet(68, *SIZES["HIH_N"]), Config(W300, **SIZES["HIH_N"]._asdict()))
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors.numpy.save(safetensors.numpy.load_file(path) | {CORRECTION: correction.parts}))
    stored = load_config(Checkpoint(read_config(tmp_path / "config.json"), path)).correction
    assert stored is not None
    assert np.allclose(stored.weights, correction.weights, atol=1e-6)
    assert not stored.mirrored


def test_a_new_config_replaces_it(tmp_path: Path) -> None:
    network = HIHNet(68, *SIZES["HIH_N"])
    config = Config(W300, **SIZES["HIH_N"]._asdict(), correction=random_correction())
    save_checkpoint(tmp_path, network, config)
    weights = tmp_path / "model.safetensors"
    stored = load_config(Checkpoint(replace(config, correction=None), weights))
    before = weights.read_bytes()
    save_config(str(tmp_path), replace(stored, refine=1))
    assert weights.read_bytes() == before, "the same correction was written again"
    save_config(str(tmp_path), replace(config, correction=random_correction(1)))
    other = load_config(Checkpoint(config, weights)).correction
    assert other is not None
    assert np.allclose(other.parts, random_correction(1).parts, atol=1e-6)
    save_config(str(tmp_path), replace(config, correction=None))
    assert CORRECTION not in safetensors.numpy.load_file(weights)
    assert load_config(Checkpoint(replace(config, correction=None), weights)).correction is None


def test_a_correction_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="correction has 9 landmarks, expected 68"):
        Config(W300, 1, correction=random_correction(landmarks=9))
    network = HIHNet(68, *SIZES["HIH_N"])
    config = Config(W300, **SIZES["HIH_N"]._asdict())
    save_checkpoint(tmp_path, network, config)
    path = tmp_path / "model.safetensors"
    for wrong in (np.ones((3, 3, 2), np.float32), np.ones(4, np.float32)):
        path.write_bytes(safetensors.numpy.save(safetensors.numpy.load_file(path) | {CORRECTION: wrong}))
        with pytest.raises(CheckpointError, match="correction"):
            load_config(Checkpoint(config, path))


def test_readouts_of_a_corrected_network_are_composed() -> None:
    correction = random_correction()
    config = Config(W300.select([30, 8]), 1, readout=pick(68, [30, 8]), correction=correction)
    assert config.reading is not None
    assert np.allclose(config.reading.weights, correction.weights[[30, 8]], atol=1e-8)
    assert np.allclose(config.reading.mirrored_weights, correction.mirrored_weights[[30, 8]], atol=1e-8)
    heads = np.random.default_rng(0).normal(size=(68, 2))
    assert np.allclose(config.reading.points(heads), correction.points(heads)[[30, 8]], atol=1e-6)
    assert config.sources.tolist() == [30, 8]
    assert replace(config, correction=None).reading == config.readout
    with pytest.raises(ValueError, match="both given"):  # the sum of mirrored points of mirrored points
        replace(config, readout=config.reading)
