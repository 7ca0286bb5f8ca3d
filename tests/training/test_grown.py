"""Fine-tuning on few faces: only new heads learn, and the start network does not change."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_faces import any_box, faces, no_box, no_curve  # noqa: F401
from safetensors.torch import load_file

from hih_align import FaceAligner
from hih_align.crops import tight_box
from hih_align.data.annotations import Dataset
from hih_align.data.records import Labels
from hih_align.evaluation.evaluate import evaluate
from hih_align.hub.checkpoints import WEIGHTS_FILE
from hih_align.hub.config import Config, read_config
from hih_align.method.decoder import Decoder
from hih_align.method.losses import LossSettings
from hih_align.method.network import HIHNet
from hih_align.method.readout import from_weights
from hih_align.method.sizes import Size
from hih_align.schemes import Scheme, scheme_from_dict
from hih_align.training import looking, outcome
from hih_align.training.beginning import new_shares
from hih_align.training.few import Few
from hih_align.training.grown import Grown, mixed, repeats
from hih_align.training.learner import HIH
from hih_align.training.matching import Match
from hih_align.training.outcome import Result
from hih_align.training.recipe import Stage, load_recipe
from hih_align.training.sampling import Order, Source
from hih_align.training.schedule import AGAIN, Schedule
from hih_align.training.trainer import Trainer, train

KNOWN = scheme_from_dict({"id": "known", "names": [f"k{i}" for i in range(6)], "mirror": [[0, 1], [2, 3], [4, 5]]})
SIZE = Size(2, width=0.125, head_channels=32, input_size=128)


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("init")
    size = SIZE._replace(stacks=1)
    FaceAligner(HIHNet(6, *size), Config(KNOWN, **size._asdict(), name="own/known")).save_pretrained(folder)
    return folder


RECIPE = load_recipe("finetune", overrides={"epochs": 3, "batch": 3, "precision": "no", "few.views": 12, "lr": 1e-3})


@pytest.fixture(scope="module")
def whole(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Trainer, Result]:
    """A run and its result."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "OFF", np.inf)  # as `any_box`
        trainer = Trainer(RECIPE, [Source(faces[0])], out, val=faces[1], init=init, progress=False)
        return trainer, trainer.run()


@pytest.fixture
def grown() -> Grown:
    torch.manual_seed(0)
    read = np.zeros((2, 6), complex)
    read[0, 3] = 1
    read[1, [1, 5]] = 0.75 + 0.1j, 0.25 - 0.1j
    readout = from_weights(read)
    return Grown(HIHNet(6, *SIZE).eval(), readout, readout.sources, Decoder(), [0.5, 1.0])


def test_new_heads_begin_as_copies_of_the_start_networks_heads(grown: Grown) -> None:
    torch.manual_seed(0)
    start = HIHNet(6, *SIZE).eval()
    images = torch.randn(2, 3, 128, 128)
    integer, decimal = start(images)
    output = grown(images)
    torch.testing.assert_close(output.integer[:, :, :6], integer)
    torch.testing.assert_close(output.subpixel[:, :6], decimal)  # type: ignore[index]
    torch.testing.assert_close(output.integer[:, :, 6:], integer[:, :, [3, 1]])
    torch.testing.assert_close(output.subpixel[:, 6:], decimal[:, [3, 1]])  # type: ignore[index]


def test_a_landmark_that_is_the_same_as_an_old_one_keeps_its_point() -> None:
    matches = [Match("a", "k0", 0, 1.0, 1.0, 12, how) for how in ("same", "near", "from scratch")]
    assert new_shares(matches, Few(share=0.4)) == [0.0, 0.4, 1.0]
    old = from_weights(np.eye(3, dtype=complex))
    weights = mixed(old, [0.0, 0.4, 1.0]).weights
    np.testing.assert_allclose(weights, np.hstack((np.diag([1, 0.6, 0]), np.diag([0, 0.4, 1]))))


def test_only_new_heads_learn_from_features(grown: Grown) -> None:
    images = torch.randn(2, 3, 128, 128)
    grown.train()
    before = {name: value.clone() for name, value in grown.state_dict().items()}
    seen = grown.features(images)
    assert seen.dtype == torch.float16
    output = grown(seen)
    whole = grown(images)
    for kept, direct in ((output.integer, whole.integer[:, -1:, 6:]), (output.subpixel, whole.subpixel[:, 6:])):
        torch.testing.assert_close(kept, direct, rtol=0, atol=0.01 * float(direct.abs().max()))
    (output.integer.sum() + output.subpixel.sum()).backward()
    learning = {name for name, parameter in grown.named_parameters() if parameter.grad is not None}
    assert learning == {"integer.weight", "integer.bias", "decimal.weight", "decimal.bias"}
    for name, value in grown.state_dict().items():
        assert torch.equal(value, before[name]), name  # statistics do not change either


def test_new_heads_learn_points_without_the_shift_that_the_decoder_adds() -> None:
    torch.manual_seed(0)
    readout = from_weights(np.eye(6)[[3, 1]])
    moved = Grown(HIHNet(6, *SIZE).eval(), readout, readout.sources, Decoder(shift=(0.5, -0.25)), [1.0, 1.0])
    points, weights = torch.rand(2, 2, 2) * 20 + 4, torch.ones(2, 2)
    output = moved(moved.features(torch.randn(2, 3, 128, 128)))
    found = moved.loss(output, points, weights, LossSettings(), None).total
    expected = HIH.loss(moved, output, points - torch.tensor([0.5, -0.25]), weights, LossSettings(), None).total
    assert torch.equal(found, expected)
    assert not torch.equal(found, HIH.loss(moved, output, points, weights, LossSettings(), None).total)


def test_the_settled_network_contains_the_trained_heads(grown: Grown) -> None:
    torch.manual_seed(0)
    start, images = HIHNet(6, *SIZE).eval(), torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        for parameter in (*grown.integer.parameters(), *grown.decimal.parameters()):
            parameter.add_(torch.randn_like(parameter))
        integer, decimal = grown.settled()(images)
        learnt = grown(grown.features(images))
        before = start(images)
    torch.testing.assert_close(integer[:, :, :6], before[0])  # the heads of all stacks are kept
    torch.testing.assert_close(decimal[:, :6], before[1])
    torch.testing.assert_close(
        integer[:, -1:, 6:], learnt.integer, rtol=0, atol=0.01 * float(learnt.integer.abs().max())
    )
    torch.testing.assert_close(decimal[:, 6:], learnt.subpixel, rtol=0, atol=0.01 * float(learnt.subpixel.abs().max()))


def test_later_epochs_cost_less() -> None:
    stage = Stage(4, lr=1.0, size=64, batch=2)
    order = Order(np.zeros(8, np.int64), [1.0], seed=0)
    assert [Schedule([stage], order, fresh=2).cost(epoch) / Schedule([stage], order).cost(1) for epoch in range(5)] == [
        pytest.approx(cost) for cost in (0, 1, 2, 2 + AGAIN, 2 + 2 * AGAIN)
    ]
    assert Schedule([stage], order, fresh=2).cost(1, 2) == 6 * 2 * 64**2  # four steps an epoch


def test_a_landmark_is_the_mean_of_two_points() -> None:
    readout = from_weights(np.array([[1, 0], [0.5 + 0.5j, 0.5 - 0.5j]]))
    both = mixed(readout, [0.5, 1.0])
    points = np.random.default_rng(0).normal(size=(4, 2))
    read = readout.points(points[:2])
    np.testing.assert_allclose(both.points(points), [(read[0] + points[2]) / 2, points[3]])
    turned = from_weights(readout.weights, np.array([[0.3, -0.3], [0.2j, -0.2j]]), np.array([1, -1]))
    read = turned.points(points[:2])
    np.testing.assert_allclose(mixed(turned, [0.5, 1.0]).points(points), [(read[0] + points[2]) / 2, points[3]])


@pytest.mark.usefixtures("any_box")
def test_a_run_on_few_faces(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    whole: tuple[Trainer, Result],
    tmp_path: Path,
) -> None:
    trainer, result = whole
    assert isinstance(trainer.model, Grown)
    assert trainer.recipe.stages[0].lr == 1e-3
    assert trainer._kept is not None
    assert {epoch for epoch, _ in trainer._kept._kept} == {0, 1}
    again = Trainer(RECIPE, [Source(faces[0])], tmp_path, init=init, limit=0, progress=False)
    again.run()  # without memory the features are computed in each epoch
    assert again._kept is not None
    assert not again._kept._kept
    config = read_config(trainer.out / "last" / "config.json")
    assert config.heads == 6 + 4
    ours, anew = (load_file(folder / "last" / WEIGHTS_FILE) for folder in (trainer.out, tmp_path))
    assert all(torch.equal(anew[name], value) for name, value in ours.items())
    theirs = load_file(init / WEIGHTS_FILE)
    for name, value in theirs.items():
        # the start network's rows come first
        assert torch.equal(ours[name][tuple(slice(length) for length in value.shape)], value), name
    report = evaluate(FaceAligner.from_pretrained(trainer.out), faces[1], progress=False)
    assert result.nme == pytest.approx(report.overall.nme, abs=0.02)


@pytest.mark.usefixtures("any_box")
def test_the_last_error_is_that_of_all_validation_faces(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although only some of them choose the settings."""
    monkeypatch.setattr(outcome, "CALIBRATION_FACES", 2)
    recipe = load_recipe("finetune", overrides={"epochs": 1, "batch": 6, "precision": "no"})
    result = train(recipe, [Source(faces[0])], tmp_path, val=faces[1], init=init, progress=False)
    assert "2 validation faces" in (tmp_path / "calibration.md").read_text("utf-8")
    report = evaluate(FaceAligner.from_pretrained(tmp_path), faces[1], progress=False)
    assert result.nme == pytest.approx(report.overall.nme, abs=1e-6)


@pytest.mark.usefixtures("any_box")
def test_nothing_is_trained_if_all_landmarks_are_the_start_networks(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
) -> None:
    start = FaceAligner.from_pretrained(init)
    own = Scheme("own", ("a", "b"))

    def relabelled(data: Dataset) -> Dataset:
        points = looking.look(start, data, progress=False).points[:, [4, 1]]
        labelled = [replace(r, labels=Labels(p, np.ones(2))) for r, p in zip(data.records, points, strict=True)]
        return Dataset(data.name, own, tuple(labelled), data.source)

    recipe = load_recipe("finetune", overrides={"epochs": 4, "batch": 6, "precision": "no"})
    train_faces, val_faces = map(relabelled, faces)
    with warnings.catch_warnings():  # it is no failure that nothing was gained
        warnings.filterwarnings("error", "training gained nothing")
        result = train(recipe, [Source(train_faces)], tmp_path, val=val_faces, init=init, progress=False)
    assert (result.completed, result.steps) == (True, 0)
    assert result.nme == pytest.approx(0, abs=0.1)
    tuned = FaceAligner.from_pretrained(tmp_path)
    assert (tuned.config.heads, tuned.calibrated) == (6, True)
    record = val_faces.records[0]
    picked = start.align(record.image, record.box).points[[4, 1]]
    np.testing.assert_allclose(tuned.align(record.image, record.box).points, picked, atol=1e-2)
    assert not (tmp_path / "metrics.jsonl").exists()
    again = train(recipe, [Source(train_faces)], tmp_path, val=val_faces, init=init, resume=True, progress=False)
    assert again.nme == result.nme
    assert FaceAligner.from_pretrained(tmp_path).config == tuned.config  # still calibrated


@pytest.mark.usefixtures("no_box")
def test_faces_get_boxes_that_suit_the_network(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
) -> None:
    recipe = load_recipe("finetune", overrides={"epochs": 1, "batch": 6, "precision": "no", "calibrate": "no"})
    trainer = Trainer(recipe, [Source(faces[0])], tmp_path, val=faces[1], init=init, progress=False)
    assert trainer.matched is not None
    start = FaceAligner.from_pretrained(init)
    seen = looking.look(start, faces[0], progress=False)
    assert trainer.val is not None
    for record, points in zip(trainer.faces.records, seen.points, strict=True):
        np.testing.assert_allclose(record.box, tight_box(points[None])[0])
    larger = seen.config.crop_ratio / start.config.crop_ratio
    points, _ = looking.look_twice(start, faces[1].records, larger, progress=False)
    np.testing.assert_allclose([record.box for record in trainer.val.faces.records], tight_box(points), atol=1e-3)
    trainer.run()
    kept = read_config(tmp_path / "last" / "config.json")
    assert (kept.refine, kept.crop_ratio) == (1, seen.config.crop_ratio)  # the aligner uses these boxes, too


@pytest.mark.usefixtures("any_box")
def test_a_setting_trains_the_whole_network(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    tmp_path: Path,
) -> None:
    recipe = load_recipe("finetune", overrides={"epochs": 1, "batch": 6, "precision": "no", "few.below": 6})
    trainer = Trainer(recipe, [Source(faces[0])], tmp_path, init=init, progress=False)
    assert len(faces[0]) == 6
    assert not isinstance(trainer.model, Grown)
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


@pytest.mark.usefixtures("any_box")
def test_a_resumed_run_reaches_the_same_weights(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    init: Path,
    whole: tuple[Trainer, Result],
    tmp_path: Path,
) -> None:
    how: dict[str, Any] = {"init": init, "progress": False}
    first = Trainer(RECIPE, [Source(faces[0])], tmp_path, **how)
    step, steps = first._step, iter(range(100))

    def stop(*args: Any) -> None:
        step(*args)
        first._stop.made = next(steps) == 4  # in the third epoch, which shows the images of the first epoch again

    first._step = stop  # type: ignore[method-assign]
    assert not first.run().completed
    assert train(RECIPE, [Source(faces[0])], tmp_path, resume=True, **how).completed
    parts = load_file(tmp_path / "last" / WEIGHTS_FILE)
    for name, value in load_file(whole[0].out / "last" / WEIGHTS_FILE).items():
        assert torch.equal(parts[name], value), name


def test_augmented_images_are_repeated() -> None:
    assert repeats(Few(views=400), 48) == 8
    assert repeats(Few(views=400), 500) == 1


def test_settings_of_stages_apply_to_few_faces() -> None:
    recipe = load_recipe("finetune", overrides={"lr": 1e-3, "epochs": 2})
    assert (recipe.few.lr, recipe.few.steps) == (1e-3, 0)
    assert load_recipe("finetune", overrides={"min_steps": 40}).few.steps == 40
    assert load_recipe("finetune", overrides={"lr": 1e-3, "few.lr": 1e-4}).few.lr == 1e-4
    with pytest.raises(ValueError, match="share"):
        Few(share=0)
