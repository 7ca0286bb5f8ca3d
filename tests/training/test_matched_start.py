"""Fine-tuning starts from landmarks that are matched by position, and is never worse than its start."""

from __future__ import annotations

import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from made_faces import TINY, any_box, faces, no_box, no_curve  # noqa: F401
from safetensors.torch import load_file
from torch import nn

from hih_align import FaceAligner
from hih_align.crops import tight_box
from hih_align.data.annotations import Dataset
from hih_align.evaluation import calibrate
from hih_align.evaluation.evaluate import evaluate
from hih_align.evaluation.results import Report
from hih_align.hub.config import Config, read_config
from hih_align.method.decoder import Decoder
from hih_align.method.network import HIHNet
from hih_align.schemes import scheme_from_dict
from hih_align.training import looking
from hih_align.training.adaptation import adapt
from hih_align.training.beginning import Beginning, crops_of_start
from hih_align.training.curve import curve_figure
from hih_align.training.optimizer import SCRATCH_RATE, make_optimizer
from hih_align.training.outcome import gain, keep_network
from hih_align.training.recipe import load_recipe
from hih_align.training.run_folder import Progress
from hih_align.training.sampling import Source
from hih_align.training.trainer import Trainer, train
from hih_align.training.warmstart import load_start

KNOWN = scheme_from_dict({"id": "known", "names": [f"k{i}" for i in range(6)], "mirror": [[0, 1], [2, 3], [4, 5]]})


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("init")
    FaceAligner(HIHNet(6, *TINY), Config(KNOWN, **TINY._asdict(), name="HIH_N/known")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("boxes", ["any_box", "no_box"])
def test_the_start_is_measured_in_the_boxes_and_crops_that_it_needs(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    boxes: str,
) -> None:
    """The run has crops of another size, and perhaps the boxes of the faces do not suit the start network."""
    request.getfixturevalue(boxes)
    changes = {"epochs": 1, "batch": 6, "precision": "no", "few.below": 0, "calibrate": "no", "crop_ratio": 1.3}
    trainer = Trainer(
        load_recipe("finetune", overrides=changes),
        [Source(faces[0])],
        tmp_path / "run",
        val=faces[1],
        init=init,
        progress=False,
    )
    assert trainer.matched is not None
    assert trainer.matched.config.refine == (boxes == "no_box")
    assert (trainer.matched.rebox is None) == (boxes == "any_box")
    keep_network(tmp_path / "start", trainer.matched.learner, trainer.matched.config)
    trainer.run()
    expected = evaluate(FaceAligner.from_pretrained(tmp_path / "start"), faces[1], progress=False).overall.nme
    assert trainer.progress.start == pytest.approx(expected, abs=0.02)


@pytest.mark.usefixtures("no_box")
def test_the_whole_network_is_trained_in_the_boxes_that_the_start_needs(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
) -> None:
    changes = {"epochs": 2, "batch": 6, "precision": "no", "few.below": 0, "calibrate": "no"}
    recipe = load_recipe("finetune", overrides=changes)
    trainer = Trainer(recipe, [Source(faces[0])], tmp_path / "whole", init=init, progress=False)
    assert trainer.matched is not None
    seen = looking.look(FaceAligner.from_pretrained(init), faces[0], progress=False)
    for record, points in zip(trainer.faces.records, seen.points, strict=True):
        np.testing.assert_allclose(record.box, tight_box(points))
    trainer.run()
    kept = read_config(tmp_path / "whole" / "last" / "config.json")
    assert kept.readout is None  # the whole network was trained
    assert (kept.refine, kept.crop_ratio, kept.box) == (1, seen.config.crop_ratio, trainer.matched.config.box)
    # a run that goes on has the same boxes
    stopped = Trainer(recipe, [Source(faces[0])], tmp_path / "run", init=init, progress=False)
    interrupt(stopped)
    assert not stopped.run().completed
    train(recipe, [Source(faces[0])], tmp_path / "run", init=init, resume=True, progress=False)
    ours, theirs = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.usefixtures("any_box")
def test_a_run_of_another_size_has_a_result_of_this_size(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
) -> None:
    """The start does not stay in best/, even if training makes the network worse."""
    changes = {"epochs": 1, "batch": 6, "precision": "no", "calibrate": "no", "lr": 1e-9}
    narrower = {"size": "N", "width": 0.0625, "head_channels": 64}
    recipe = load_recipe("finetune", overrides=changes | narrower)
    result = train(recipe, [Source(faces[0])], tmp_path, val=faces[1], init=init, progress=False)
    assert result.completed
    assert read_config(tmp_path / "best" / "config.json").width == 0.0625


def interrupt(trainer: Trainer) -> None:
    """Let a trainer get a signal in its first step."""
    step = trainer._step

    def stopping(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        step(*args)

    trainer._step = stopping  # type: ignore[method-assign]


@pytest.mark.usefixtures("any_box")
def test_a_run_from_scratch_can_be_resumed(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
) -> None:
    """Its last layers have a rate of their own, and a resumed run does not look at the start network again."""
    changes = {"epochs": 2, "batch": 6, "precision": "no", "few.below": 0, "calibrate": "no", "min_steps": 1}
    recipe = load_recipe("finetune", overrides=changes)
    whole = train(recipe, [Source(faces[0])], tmp_path / "whole", init=init, progress=False)
    stopped = Trainer(recipe, [Source(faces[0])], tmp_path / "run", init=init, progress=False)
    assert stopped.matched is not None
    assert {match.how for match in stopped.matched.matching.matches} == {"from scratch"}
    interrupt(stopped)
    assert not stopped.run().completed
    resumed = train(recipe, [Source(faces[0])], tmp_path / "run", init=init, resume=True, progress=False)
    assert (resumed.completed, resumed.steps) == (True, whole.steps)
    ours, theirs = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("run", "whole"))
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.usefixtures("any_box")
def test_further_training_of_a_model_keeps_its_crops_and_its_decoder(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    tmp_path: Path,
) -> None:
    """With other crops or another decoder, the epochs would be much worse than the start with the same weights."""
    scheme, init = faces[0].scheme, tmp_path / "init"
    own = Decoder("expectation", 4, 2.0, 0.5, shift=(0.2, -0.1), bias=0.05)
    config = Config(scheme, **TINY._asdict(), name="HIH_N/corners", crop_ratio=2.0, decoder=own)
    FaceAligner(HIHNet(4, *TINY), config).save_pretrained(init)
    changes = {"epochs": 2, "batch": 6, "precision": "no", "few.below": 0, "calibrate": "no", "min_steps": 1}
    recipe = load_recipe("finetune", overrides=changes)
    how: dict[str, Any] = {"val": faces[1], "init": init, "progress": False}
    trainer = Trainer(recipe, [Source(faces[0])], tmp_path / "run", **how)
    assert trainer.matched is not None
    assert (trainer.recipe.crop_ratio, trainer.recipe.store_margin) == (2.0, 3.2)
    assert trainer.decoder == trainer.matched.config.decoder
    assert (trainer.decoder.power, trainer.decoder.shift[1]) == (2.0, -0.1)
    interrupt(trainer)
    assert not trainer.run().completed
    resumed = Trainer(recipe, [Source(faces[0])], tmp_path / "run", resume=True, **how)
    assert (resumed.config.crop_ratio, resumed.decoder) == (2.0, trainer.decoder)

    start = load_start(str(init), scheme)
    records = faces[0].records
    by = np.array((-20.0, -20, 20, 20))
    wide = [replace(r, boxes=r.boxes | {"annotated": r.box + by}) for r in records]
    assert crops_of_start(start, recipe, records, scheme) == 2.0
    assert crops_of_start(start, recipe, wide, scheme) == recipe.crop_ratio  # the crops would be too wide
    assert crops_of_start(start, replace(recipe, crop_ratio=1.5), records, scheme) == 1.5
    asked = replace(recipe, decoder=Decoder(power=5.0))
    for taken, expected in ((recipe, replace(own, shift=(-0.05, -0.1))), (asked, Decoder(power=5.0))):
        begun = Beginning(trainer.model, taken, SimpleNamespace(config=config))  # type: ignore[arg-type]
        assert begun.decoder(replace(scheme, mirror=None)) == expected  # learns the bias of the labels itself


@pytest.mark.usefixtures("any_box")
def test_a_run_without_gain_returns_its_start_and_warns(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibrate, "SURE", -1e9)  # without the rule, the faces would choose another decoder
    recipe = load_recipe(
        "finetune", overrides={"epochs": 1, "batch": 6, "lr": 1e-12, "precision": "no", "few.below": 0}
    )
    assert recipe.match
    with pytest.warns(UserWarning, match="training gained nothing"):
        result = train(recipe, [Source(faces[0])], tmp_path, val=faces[1], init=init, progress=False)
    config = read_config(tmp_path / "best" / "config.json")
    assert config.readout is not None
    assert config.readout.heads == 6
    adapted = adapt(init, faces[0], progress=False).aligner.config
    assert (config.decoder, config.refine) == (adapted.decoder, adapted.refine)
    assert config.calibration
    report = evaluate(FaceAligner.from_pretrained(tmp_path), faces[1], progress=False)
    assert result.nme is not None
    assert report.overall.nme == pytest.approx(result.nme, abs=0.02)
    start = read_config(tmp_path / "last" / "config.json")
    assert start.readout is None  # the trained network has its own heads


@pytest.mark.usefixtures("any_box")
@pytest.mark.parametrize(("gains", "taken"), [((0.3, -0.29), True), ((-0.3, -0.2), False)])
def test_an_epoch_replaces_the_start_only_if_its_error_is_lower(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gains: tuple[float, float],
    taken: bool,
) -> None:
    """The errors of the epoch are those of the start less these gains, in turns."""
    recipe = load_recipe("finetune", overrides={"epochs": 1, "batch": 6, "precision": "no", "few.below": 0})
    trainer = Trainer(recipe, [Source(faces[0])], tmp_path, val=faces[1], init=init, progress=False)
    assert trainer.val is not None
    measure = trainer.val.measure
    gained: dict[int, Any] = {}

    def measured(*arguments: Any) -> Report:
        report: Report = measure(*arguments)
        gained[id(report)] = np.resize(gains if trainer.progress.steps else 0.0, len(report.records))
        return report

    monkeypatch.setattr(trainer.val, "measure", measured)
    monkeypatch.setattr(Report, "nme", property(lambda report: 3.0 - gained[id(report)]))
    monkeypatch.setattr(trainer, "_calibrate", lambda: None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = trainer.run()
    assert result.nme is not None
    assert (result.nme < 3.0) == taken
    assert any("training gained nothing" in str(w.message) for w in caught) != taken


@pytest.mark.usefixtures("any_box")
def test_heads_start_from_the_matched_landmarks(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
) -> None:
    recipe = load_recipe("finetune", overrides={"epochs": 1, "batch": 6, "precision": "no", "few.below": 0})
    trainer = Trainer(recipe, [Source(faces[0])], tmp_path, init=init, progress=False)
    assert trainer.matched is not None
    sources = trainer.matched.matching.sources
    theirs = trainer.matched.learner.network.decimal_head.predict.weight
    ours = trainer.model.network.decimal_head.predict.weight  # type: ignore[union-attr]
    torch.testing.assert_close(ours, theirs[torch.from_numpy(sources)])


def test_a_run_has_a_minimum_of_steps_unless_epochs_are_set() -> None:
    recipe = load_recipe("finetune", overrides={"min_steps": 100})
    few, many = recipe.with_steps(20), recipe.with_steps(2000)
    assert few.epochs * 2 >= 100  # each epoch has two steps
    assert few.epochs // few.validate_every == recipe.epochs
    assert few.stages[0].warmup == few.validate_every
    assert few.ema < recipe.ema
    assert many == recipe
    assert load_recipe("finetune", overrides={"epochs": 3}).with_steps(20).epochs == 3
    assert np.isclose(few.ema, 1 - 20 / (few.epochs * 2))


def test_landmarks_of_the_start_network_that_no_validation_face_has() -> None:
    report = SimpleNamespace(landmark_nme=np.array([np.nan, 2.0, 4.0]))
    for coinciding, expected in (([0], None), ([0, 1], 2.0), ([], None)):
        trainer = SimpleNamespace(matched=SimpleNamespace(coinciding=np.array(coinciding, int)))
        assert Trainer._there(trainer, report) == expected  # type: ignore[arg-type]


def test_the_last_message_reports_the_start_and_the_untouched_network() -> None:
    assert gain(Progress(best=2.0, start=3.0)) == "start, without training: nme 3.000; best: nme 2.000"
    said = gain(Progress(best=2.0, start=3.0, calibrated=1.8))  # both are said: the second one is the last line's
    assert said.endswith("best: nme 2.000, and 1.800 after calibration")
    said = gain(Progress(best=2.0, start=3.0, calibrated=2.3), reboxed=True)
    assert "2.300 after calibration and in the boxes of the faces (before: in boxes of" in said
    assert "shifted" not in said
    said = gain(Progress(best=2.0, start=3.0, untouched=2.5, best_there=1.9))
    assert said.endswith("landmarks that coincide with those of the start network: start network 2.500, best 1.900")


def test_the_curve_shows_the_start() -> None:
    epoch = {"seconds": 60, "stage": 0, "size": 64, "loss": 1.0, "nme": 8.0}
    above, _ = curve_figure([epoch | {"start": 7.0}] * 2).axes
    assert [*above.lines[-1].get_ydata()] == [7.0, 7.0]
    assert "best NME 7.00" in above.get_title()
    assert len(curve_figure([epoch] * 2).axes[0].lines) == 1


def test_landmarks_from_scratch_learn_faster() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Conv2d(2, 3, 1))
    optimizer = make_optimizer(model, load_recipe("finetune"), (model[1],))
    rates = {id(p): group["rate"] for group in optimizer.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == [1.0, 1.0, SCRATCH_RATE, SCRATCH_RATE]
    model[0].requires_grad_(False)
    learning = [p for group in make_optimizer(model, load_recipe("finetune")).param_groups for p in group["params"]]
    assert {id(p) for p in learning} == {id(p) for p in model[1].parameters()}
