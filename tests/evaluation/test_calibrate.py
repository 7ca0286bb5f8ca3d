"""`calibrate`, on a few real validation faces."""

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
from hih_align.data.annotations import Dataset, read_dataset
from hih_align.data.records import stack_labels
from hih_align.evaluation.calibrate import BOXES, Chosen, calibrate, fit_curve, markdown, measured_bias
from hih_align.evaluation.evaluate import evaluate
from hih_align.evaluation.metrics import clearly_lower
from hih_align.evaluation.refining import WORTH
from hih_align.hub.checkpoints import save_config
from hih_align.hub.config import read_config
from hih_align.hub.manifest import read_manifest
from hih_align.method.decoder import Decoder
from hih_align.roll import roll_of
from hih_align.schemes import W300


@pytest.fixture(scope="module")
def aligner() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N")


@pytest.fixture(scope="module")
def faces(shared: Path) -> Dataset:
    """Faces that are upright.

    `align` rotates other faces and runs a second pass, but decoders are chosen on the first pass.
    """
    whole = read_dataset(shared / "data/300w_val/annotations.json", "300w")
    known, points, _ = stack_labels(whole.records)
    rolls = roll_of(np.stack([points[:, list(group)].mean(1) for group in W300.five or ()], 1))
    upright = [record for record, roll in zip(known, rolls, strict=True) if abs(roll) < 5]
    return replace(whole, records=tuple(upright[:5]))


@pytest.fixture(scope="module")
def bad(aligner: FaceAligner) -> FaceAligner:
    """A network with a bad decoder, so that another one is clearly better."""
    worse = Decoder("expectation", None, 1.0, 2.0)
    return FaceAligner(aligner.network, replace(aligner.config, decoder=worse))


@pytest.fixture(scope="module")
def chosen(bad: FaceAligner, faces: Dataset) -> Chosen:
    return calibrate(bad, faces)


def test_the_best_decoder_is_chosen(chosen: Chosen) -> None:
    best = chosen.config.decoder
    assert best.method == "expectation"
    ours = {decoder: error for decoder, error in chosen.decoders.items() if decoder.method == "expectation"}
    unmoved = min(error for decoder, error in ours.items() if decoder.shift == (0.0, 0.0))
    assert chosen.decoders[best] == (min(ours.values()) if min(ours.values()) < (1 - WORTH) * unmoved else unmoved)
    assert len(set(chosen.decoders.values())) > 10, "the candidates hardly differ: they were not tried"
    assert chosen.faces == 5


@pytest.fixture(scope="module")
def four(faces: Dataset) -> Dataset:
    return replace(faces, records=faces.records[:4])


@pytest.fixture(scope="module")
def kept(aligner: FaceAligner, four: Dataset) -> Chosen:
    return calibrate(aligner, four, boxes=BOXES, progress=False)


def test_a_decoder_that_is_hardly_better_is_not_taken(kept: Chosen, aligner: FaceAligner) -> None:
    """One of forty decoders is better on four faces, but not by more than chance."""
    assert kept.config.decoder == aligner.config.decoder
    assert min(kept.decoders.values()) < kept.decoders[kept.config.decoder]


def test_clearly_lower() -> None:
    lower = np.array([2.0, 3.0, 4.0, np.nan])
    assert clearly_lower(lower, lower + 0.1)  # by the same amount on all faces
    assert clearly_lower(lower, lower + np.array([0.3, 0.1, 0.0, 0.0]))  # 0.133, standard error 0.088
    assert not clearly_lower(lower, lower + np.array([0.3, 0.1, 0.0, 0.0]), 2.0)
    assert not clearly_lower(lower, lower + np.array([0.4, -0.1, 0.0, 0.0]))  # 0.100, standard error 0.153
    assert not clearly_lower(lower, lower - 0.1)
    assert not clearly_lower(lower, lower)
    assert not clearly_lower(lower[:1], lower[:1] + 1)


def test_errors_are_those_of_evaluate(chosen: Chosen, aligner: FaceAligner, faces: Dataset) -> None:
    shifted = min((d for d in chosen.decoders if d.shift != (0.0, 0.0)), key=chosen.decoders.__getitem__)
    for decoder in (Decoder("expectation", 4, 2.0, 1.0), shifted):
        with_it = FaceAligner(aligner.network, aligner.config, decode=decoder)
        reports = [evaluate(with_it, faces, box=box, refine=0, progress=False) for box in BOXES]
        assert chosen.decoders[decoder] == pytest.approx(np.mean([r.nme.mean() for r in reports]), abs=1e-3)


def test_a_scheme_without_inter_ocular_distance(aligner: FaceAligner, faces: Dataset) -> None:
    few = replace(faces, records=faces.records[:1])
    for normalizers, unit in (({"mouth": ((48,), (54,))}, "mouth distance"), ({}, "longer side of the box")):
        scheme = replace(aligner.scheme, normalizers=normalizers)
        mine = FaceAligner(aligner.network, replace(aligner.config, scheme=scheme))
        chosen = calibrate(mine, replace(few, scheme=scheme), boxes=BOXES)
        assert f"in percent of the {unit}" in markdown(chosen)
        decoder = Decoder("expectation", 4, 2.0, 1.0)
        with_it = FaceAligner(aligner.network, mine.config, decode=decoder)
        reports = [evaluate(with_it, replace(few, scheme=scheme), box=box, refine=0, progress=False) for box in BOXES]
        assert chosen.decoders[decoder] == pytest.approx(np.mean([r.overall.nme for r in reports]), abs=1e-3)


def test_labels_with_an_offset_shift_the_decoder(kept: Chosen, aligner: FaceAligner, four: Dataset) -> None:
    """Labels that are moved by an offset, here 0.8 heatmap pixels, change the chosen shift by this offset."""
    side = aligner.config.input_size / 4  # of the heatmap
    records = [
        replace(
            r,
            labels=replace(
                r.labels, points=r.labels.points + np.array((0.8 * 1.25 * (r.box[2:] - r.box[:2]).max() / side, 0.0))
            ),
        )
        for r in four.records
        if r.labels is not None
    ]
    before = kept.config.decoder.shift
    after = calibrate(aligner, replace(four, records=tuple(records)), boxes=BOXES).config.decoder.shift
    assert after[0] - before[0] == pytest.approx(0.8, abs=0.15)
    assert after[1] == pytest.approx(before[1], abs=0.15)


def test_with_the_bias_mirrored_faces_have_the_same_points(
    aligner: FaceAligner, faces: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmeasured = replace(aligner.decoder, bias=0.3)
    assert measured_bias(aligner, unmeasured, faces.records) is unmeasured  # five faces are too few
    monkeypatch.setattr("hih_align.evaluation.calibrate.LEAST_MIRRORED", 5)
    measured = measured_bias(aligner, unmeasured, faces.records)
    away = {}
    for decoder in (unmeasured, measured):
        with_it = FaceAligner(aligner.network, aligner.config, decode=decoder)
        one, both = (evaluate(with_it, faces, refine=0, mirror=mirror, progress=False) for mirror in (False, True))
        pixels = 1.25 * one.box_sides / (aligner.config.input_size / 4)
        away[decoder] = float(np.median((both.points - one.points)[..., 0] / pixels[:, None]))
    assert away[unmeasured] - away[measured] == pytest.approx(0.3 - measured.bias, abs=0.005)
    assert abs(away[measured]) < 0.01


def test_the_shipped_decoders_have_their_bias() -> None:
    """Without it a mirrored face is up to 0.3 heatmap pixels off."""
    assert all(row.config.decoder.bias for row in read_manifest().values())


def test_the_command_measures_the_bias_alone(aligner: FaceAligner, shared: Path, tmp_path: Path) -> None:
    unmeasured = replace(aligner.config, decoder=replace(aligner.decoder, bias=0.0))
    model, data = tmp_path / "model", str(shared / "data/300w_val/annotations.json")
    FaceAligner(aligner.network, unmeasured).save_pretrained(model)
    words = ["calibrate", "--model", str(model), "--data", data, "--bias", "--write"]
    done = CliRunner().invoke(app, [*words, "--where", "id<=19"])
    assert "bias of the decoder: 0.0 heatmap pixels, kept: it needs mirror pairs and 20 faces" in done.output
    done = CliRunner().invoke(app, [*words, "--where", "id<=40"])
    assert done.exit_code == 0, done.output
    written = read_config(model / "config.json")
    assert f"bias of the decoder: {written.decoder.bias} heatmap pixels\n" in done.output
    assert written.decoder.bias == pytest.approx(aligner.decoder.bias, abs=0.02)
    assert replace(written, decoder=unmeasured.decoder) == replace(unmeasured, correction=None)
    refused = CliRunner().invoke(app, [*words, "--refining"])
    assert refused.exit_code == 2
    assert "expected no --correct and no --refining" in " ".join(refused.output.split())


def test_refining_is_chosen_only_if_it_reduces_the_error_enough(chosen: Chosen) -> None:
    mean = {n: np.mean([by_box[box] for box in BOXES]) for n, by_box in chosen.passes.items()}
    assert chosen.config.refine == int(mean[1] < (1 - WORTH) * mean[0])


def test_calibration_recovers_a_known_curve() -> None:
    rng = np.random.default_rng(0)
    height = rng.uniform(0, 1, 40000)
    close = (rng.uniform(size=height.shape) < 1 / (1 + np.exp(-(8 * height - 3)))).astype(float)
    curve = fit_curve(height, close)
    assert curve.slope == pytest.approx(8, abs=0.3)
    assert curve.bias == pytest.approx(-3, abs=0.15)


def test_few_points_give_a_curve_without_certain_probabilities() -> None:
    """The points are all found, all lost, or split by their height.

    No probability is 0 or 1, and no probability decreases with the height.
    """
    height = np.linspace(0.2, 0.8, 12)
    for close in (np.ones(12), np.zeros(12), (height > 0.5).astype(float), (height < 0.5).astype(float)):
        curve = fit_curve(height, close)
        probability = 1 / (1 + np.exp(-(curve.slope * height + curve.bias)))
        assert curve.slope >= 0
        assert 0.01 < probability.min() <= probability.max() < 0.99


def test_a_curve_of_few_close_points_still_separates_heights() -> None:
    """All points of ten easy faces are close. A crop without a face has heights near 0, and needs a low score."""
    height = np.random.default_rng(0).uniform(0.7, 0.95, 100)
    curve = fit_curve(height, np.ones(100))
    nothing, found = (1 / (1 + np.exp(-(curve.slope * h + curve.bias))) for h in (0.05, 0.85))
    assert nothing < 0.1
    assert found > 0.95


def test_scores_can_be_calibrated_without_choosing_a_decoder(aligner: FaceAligner, faces: Dataset) -> None:
    few = replace(faces, records=faces.records[:2])
    decoder = Decoder("expectation", 4, 2.0, 1.0, shift=(0.1, 0.0))
    mine = FaceAligner(aligner.network, replace(aligner.config, calibration={}, refine=0), decode=decoder)
    assert not mine.calibrated
    chosen = calibrate(mine, few, decoder=False, progress=False)
    assert (chosen.config.decoder, chosen.config.refine) == (decoder, 0)
    assert FaceAligner(aligner.network, chosen.config).calibrated
    assert f"with {decoder}\n" in markdown(chosen)  # no candidate without a shift was measured


def test_the_probabilities_of_both_decoders_increase_with_the_score(chosen: Chosen) -> None:
    assert set(chosen.config.calibration) == {"argmax", "expectation"}
    assert all(curve.slope > 0 for curve in chosen.config.calibration.values())


def test_choice_is_stored_in_a_folder(chosen: Chosen, aligner: FaceAligner, tmp_path: Path) -> None:
    aligner.save_pretrained(tmp_path)
    config = replace(chosen.config, refine=3)
    assert save_config(str(tmp_path), config) == tmp_path / "config.json"
    assert read_config(tmp_path / "config.json") == replace(config, correction=None)
    assert FaceAligner.from_pretrained(tmp_path).config == config


def test_choice_is_stored_in_the_manifest_and_nothing_else_changes(
    chosen: Chosen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hih_align.hub.manifest import manifest_path

    before = json.loads(manifest_path().read_text("utf-8"))
    copy = tmp_path / "weights_manifest.json"
    copy.write_text(json.dumps(before), "utf-8")
    monkeypatch.setattr("hih_align.hub.manifest.manifest_path", lambda: copy)
    save_config("HIH_N/300w", replace(chosen.config, refine=5))
    after = json.loads(copy.read_text("utf-8"))
    assert read_manifest()["HIH_N/300w"].config == replace(chosen.config, refine=5, correction=None)
    for old, new in zip(before["checkpoints"], after["checkpoints"], strict=True):
        assert {k: v for k, v in old.items() if k != "config"} == {k: v for k, v in new.items() if k != "config"}
        assert (old == new) == (old["id"] != "HIH_N/300w")
    with pytest.raises(ValueError, match=r"model is 'HIH_X'"):
        save_config("HIH_X", chosen.config)


def test_other_landmarks_are_refused(faces: Dataset) -> None:
    with pytest.raises(ValueError, match=r"dataset has scheme '300w'"):
        calibrate(FaceAligner.from_pretrained("HIH_T", "wflw"), faces)


def test_no_face_left_is_an_error(aligner: FaceAligner, faces: Dataset) -> None:
    with pytest.raises(ValueError, match="no face"):
        calibrate(aligner, faces, keep=lambda record: False)


def test_the_summary_names_the_choice(chosen: Chosen) -> None:
    text = markdown(chosen)
    assert f"refine={chosen.config.refine}" in text
    assert "5 validation faces" in text
    assert "| square | 5 |" in text


def test_several_conditions_of_the_command_must_all_hold(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def stopped(aligner: FaceAligner, dataset: Dataset, *, keep: Any, boxes: Any) -> Any:
        seen.extend(record.attributes["id"] for record in dataset.records if keep(record))
        raise ValueError("enough")

    monkeypatch.setattr("hih_align.cli.calibrate.choose", stopped)
    data = shared / "data/300w_val/annotations.json"
    words = ["calibrate", "--model", "HIH_N", "--data", str(data), "--where", "id<=5", "--where", "id>3"]
    done = CliRunner().invoke(app, words)
    assert "enough" in done.output
    assert seen == [4, 5]
