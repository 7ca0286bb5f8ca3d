"""The folder of a run belongs to one process and one run, which may go on from anywhere."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_faces import SCHEME, any_box, faces, no_curve, small, write_faces  # noqa: F401

from hih_align import FaceAligner
from hih_align.data.annotations import Dataset, read_dataset
from hih_align.evaluation.subsets import chosen_by
from hih_align.hub.config import Config
from hih_align.method.network import HIHNet
from hih_align.method.sizes import Size
from hih_align.schemes import scheme_from_dict
from hih_align.training.claim import Claim
from hih_align.training.outcome import DivergedError
from hih_align.training.recipe import load_recipe
from hih_align.training.run_folder import describe
from hih_align.training.sampling import Source
from hih_align.training.trainer import Trainer, train

CORNERS = scheme_from_dict(SCHEME)


def start(folder: Path) -> Path:
    """A model of the four landmarks."""
    torch.manual_seed(0)
    size = Size(1, width=0.25, head_channels=64, input_size=128)
    FaceAligner(HIHNet(4, *size), Config(CORNERS, **size._asdict())).save_pretrained(folder)
    return folder


def test_a_folder_with_a_model_is_refused(faces: tuple[Dataset, Dataset], tmp_path: Path) -> None:  # noqa: F811
    """The folder would be read as this model, and the trained one would never be used."""
    before = (start(tmp_path / "model") / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"out: .*model holds a model, expected another folder"):
        train(small(), [Source(faces[0])], tmp_path / "model", progress=False)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert not (tmp_path / "model" / "run.json").exists()


def test_a_second_process_is_refused(faces: tuple[Dataset, Dataset], tmp_path: Path) -> None:  # noqa: F811
    """It is refused before it reads anything there, and a folder that is refused is not left behind."""
    run = tmp_path / "run"
    run.mkdir()
    other = os.open(run, os.O_RDONLY)  # its lock is that of another process
    fcntl.flock(other, fcntl.LOCK_EX)
    (run / "run.json").write_text("{")
    with pytest.raises(ValueError, match="another process trains in"):
        Trainer(small(), [Source(faces[0])], run, resume=True, progress=False)
    (run / "run.json").unlink()
    os.close(other)
    with pytest.raises(ValueError, match="model is 'HIH_Q'"):
        Trainer(small(), [Source(faces[0])], tmp_path / "new", init="HIH_Q", progress=False)
    assert not (tmp_path / "new").exists()


def test_the_claim_to_a_folder(tmp_path: Path) -> None:
    first = Claim(tmp_path)
    second = Claim(tmp_path)  # a trainer that was not run gives way
    with pytest.raises(ValueError, match="another trainer of this process has"):
        first.begin()
    second.begin()
    with pytest.raises(ValueError, match="a run of this process goes on in"):
        Claim(tmp_path)
    child = os.fork()
    if not child:
        time.sleep(60)  # it has a copy of the descriptor
        os._exit(0)
    second.release()
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_run_goes_on_from_another_folder_and_after_its_data_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the start weights and the split file of the validation faces."""
    file, val = (write_faces(tmp_path / "here" / name, 6, seed) for seed, name in enumerate(("data", "val")))
    start(tmp_path / "here" / "start")
    (tmp_path / "here" / "split.txt").write_text("0.png\n3.png\n")
    recipe = small(match=False)

    def faces_of(folder: Path, path: Path) -> tuple[list[Source], Dataset]:
        chosen = read_dataset(folder / "val" / path.name, CORNERS)
        return [Source(read_dataset(folder / "data" / path.name, CORNERS))], chosen.where(
            chosen_by([str(folder / "split.txt")], chosen)
        )

    monkeypatch.chdir(tmp_path / "here")
    data, some = faces_of(tmp_path / "here", file)
    trainer = Trainer(recipe, data, Path("run"), val=some, init="start", progress=False)
    monkeypatch.setattr(trainer, "_stopping", lambda: trainer.progress.steps >= 2)
    assert not trainer.run().completed
    assert json.loads(Path("run/run.json").read_text())["init"] == str(tmp_path / "here" / "start")

    run = tmp_path / "here" / "run"
    labels = json.loads(file.read_text())
    labels["annotations"][0]["keypoints"][0] += 1
    (tmp_path / "here" / "data" / "other.json").write_text(json.dumps(labels))
    other = [Source(read_dataset(tmp_path / "here" / "data" / "other.json", CORNERS))]
    with pytest.raises(ValueError, match="holds another run, which differs in data"):
        train(recipe, other, run, val=some, init="start", resume=True, progress=False)

    there = tmp_path / "there"
    there.mkdir()
    for name in ("data", "val", "start", "split.txt"):
        shutil.move(tmp_path / "here" / name, there / name)
    monkeypatch.chdir(tmp_path)
    data, some = faces_of(there, file)
    assert val.name == file.name
    assert train(recipe, data, run, val=some, init="there/start", resume=True, progress=False).completed
    written = json.loads((run / "run.json").read_text())
    assert written["data"][0]["path"] == str(there / "data" / file.name)
    assert written["init"] == str(there / "start")


@pytest.mark.usefixtures("any_box")
def test_few_faces_go_on_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a run reads its start weights again, which were given by a relative path."""
    file = write_faces(tmp_path / "data", 6, 0)
    start(tmp_path / "start")
    changes = {"epochs": 2, "batch": 6, "precision": "no", "calibrate": "no"}
    recipe = load_recipe("finetune", overrides=changes)
    own = replace(CORNERS, id="own", names=("a", "b", "c", "d"))
    faces_of = read_dataset(file, own)
    monkeypatch.chdir(tmp_path)
    trainer = Trainer(recipe, [Source(faces_of)], Path("run"), init="start", progress=False)
    monkeypatch.setattr(trainer, "_stopping", lambda: trainer.progress.steps >= 1)
    assert not trainer.run().completed
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = json.loads((tmp_path / "run" / "run.json").read_text())["init"]
    assert train(recipe, [Source(faces_of)], tmp_path / "run", init=again, resume=True, progress=False).completed


@pytest.mark.parametrize("name", ["HIH_N", "HIH_N/300w"])
def test_a_folder_with_the_name_of_a_published_model_is_not_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    file = write_faces(tmp_path / "data", 2, 0)
    assert describe(small(), [Source(read_dataset(file, CORNERS))], None, name)["init"] == name


def test_weights_that_overflow_do_not_become_the_best(
    faces: tuple[Dataset, Dataset],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss of the last step is finite, and the weights after it are not."""
    trainer = Trainer(small(), [Source(faces[0])], tmp_path, val=faces[1], progress=False)
    finish = trainer._finish

    def overflowing(*arguments: Any) -> None:
        if trainer.progress.epoch == 1:
            with torch.no_grad():
                next(trainer.averaged.parameters()).fill_(torch.nan)
            arguments = (*arguments[:-1], trainer._validate(arguments[2], arguments[0]))
        finish(*arguments)

    monkeypatch.setattr(trainer, "_finish", overflowing)
    with pytest.raises(DivergedError, match="validation error is not finite after epoch 2"):
        trainer.run()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["progress"]["epoch"] == 1
    assert all(bool(torch.isfinite(value).all()) for value in state["ema"].values())
