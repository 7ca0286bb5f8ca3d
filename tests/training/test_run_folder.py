"""The folder of a run belongs to one process and one run, which may go on from anywhere."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from made_faces import SCHEME, faces, small, write_faces  # noqa: F401

from hih_align import FaceAligner
from hih_align.data.annotations import Dataset, read_dataset
from hih_align.hub.config import Config
from hih_align.method.network import HIHNet, Size
from hih_align.schemes import scheme_from_dict
from hih_align.training.outcome import DivergedError
from hih_align.training.run_folder import Claim
from hih_align.training.trainer import Source, Trainer, train

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
    other = os.open(tmp_path, os.O_RDONLY)  # its lock is that of another process
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another process trains in"):
        Trainer(small(), [Source(faces[0])], tmp_path, progress=False)
    assert not (tmp_path / "run.json").exists()
    os.close(other)
    trainer = Trainer(small(), [Source(faces[0])], tmp_path, progress=False)
    with pytest.raises(ValueError, match="another process trains in"):
        Claim(tmp_path, new=False)
    trainer.run()
    Claim(tmp_path, new=False).release()  # after a run the folder is free
    with pytest.raises(ValueError, match="another process has begun a run in"):
        Claim(tmp_path, new=True)


def test_a_run_goes_on_from_another_folder_and_after_its_data_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_faces(tmp_path / "here" / "data", 6, 0)
    start(tmp_path / "here" / "start")
    recipe = small(match=False)
    monkeypatch.chdir(tmp_path / "here")
    trainer = Trainer(recipe, [Source(read_dataset(file, CORNERS))], Path("run"), init="start", progress=False)
    monkeypatch.setattr(trainer, "_stopping", lambda: trainer.progress.steps >= 2)
    assert not trainer.run().completed
    assert json.loads(Path("run/run.json").read_text())["init"] == str(tmp_path / "here" / "start")

    shutil.move(tmp_path / "here" / "data", tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    moved = Source(read_dataset(tmp_path / "there" / file.name, CORNERS))
    run = tmp_path / "here" / "run"
    result = train(recipe, [moved], run, init=tmp_path / "here" / "start", resume=True, progress=False)
    assert result.completed
    written = json.loads((run / "run.json").read_text())
    assert written["data"][0]["path"] == str(tmp_path / "there" / file.name)

    other = read_dataset(write_faces(tmp_path / "other", 6, 7), CORNERS)  # as many faces, but others
    with pytest.raises(ValueError, match="holds another run, which differs in data"):
        train(recipe, [Source(other)], run, init=tmp_path / "here" / "start", resume=True, progress=False)


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
