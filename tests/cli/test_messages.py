"""The messages for a new user who has forgotten something."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from hih_align.cli import models
from hih_align.cli.app import app
from hih_align.data.annotations import read_dataset
from hih_align.hub.manifest import manifest_path
from hih_align.training.outcome import Result
from hih_align.training.run_folder import describe, write_run

NAMES = [f"q{n}" for n in range(12)]


def run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"HIH_ALIGN_TRACEBACK": None})
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of two faces with twelve landmarks that the user has defined."""
    random = np.random.default_rng(0)
    points = random.uniform(20, 80, (12, 2))
    images, annotations = [], []
    for n in range(2):
        PIL.Image.fromarray(random.integers(0, 256, (100, 100, 3), np.uint8)).save(tmp_path / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png"})
        rows = np.column_stack((points + n, np.full(12, 2)))
        annotations.append(
            {"id": n, "image_id": n, "category_id": 1, "bbox": [15, 15, 70, 70], "keypoints": rows.ravel().tolist()}
        )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "face", "keypoints": NAMES}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    return tmp_path / "mine.json"


def scheme(data: Path, **keys: object) -> Path:
    (data.parent / "scheme.json").write_text(json.dumps({"id": "mine", "names": NAMES} | keys))
    return data.parent / "scheme.json"


def test_a_forgotten_scheme(data: Path) -> None:
    words = ["train", "--recipe", "finetune", "--init", "HIH_T/300w", "--data", data, "--out", data.parent / "run"]
    error = run(*words, code=1).stderr
    assert "keypoints has 36 numbers, expected 3 for each of 68 landmarks of scheme '300w'" in error
    assert (
        "the data have 12 landmarks (q0, q1, q2, q3, ...): name their scheme (on the command line by --scheme)" in error
    )


def test_a_forgotten_recipe(data: Path) -> None:
    for more in ([], ["--out", data.parent / "run"]):
        words = ["train", "--data", data, *more]
        assert "recipe is missing: pass for example --recipe 300w" in run(*words, code=1).stderr
        error = run(*words, "--init", "HIH_T/300w", code=1).stderr
        assert "recipe is missing: pass for example --recipe finetune, which starts from --init" in error
        assert "300w" not in error


def test_a_run_that_does_not_exist(data: Path) -> None:
    error = run("train", "--resume", "--out", data.parent / "run", code=1).stderr
    assert f"out: {data.parent / 'run'} holds no run that could be resumed" in error


def test_an_interrupted_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It exits like other interrupted commands, and goes on as it was begun, from any folder."""
    broken = json.loads(data.read_text())
    broken["annotations"][0]["keypoints"] = [1, 2, 2]
    data.write_text(json.dumps(broken))
    split = tmp_path / "split.txt"
    split.write_text("\n".join(image["file_name"] for image in broken["images"][1:]) + "\n")
    seen: list[Any] = []

    def stopped(recipe: Any, sources: Any, out: Path, **options: Any) -> Result:
        seen.append((options["skip_bad"], options["val"].chosen))
        write_run(out, describe(recipe, sources, options["val"], None) | {"skip_bad": options["skip_bad"]})
        return Result(tmp_path / "run", False, 0, 1, None, None)

    monkeypatch.setattr("hih_align.training.trainer.train", stopped)
    monkeypatch.chdir(tmp_path)
    more = ["--val", data, "--val-where", "split.txt", "--skip-bad", "--scheme", scheme(data)]
    begun = run("train", "--recipe", "300w", "--data", data, *more, "--out", tmp_path / "run", code=130)
    assert "continue with: hih-align train --resume --out" in begun.stderr
    monkeypatch.chdir("/")
    run("train", "--resume", "--out", tmp_path / "run", code=130)
    assert seen == [(True, str(split))] * 2


def test_an_unknown_key_of_a_recipe(data: Path) -> None:
    words = ["train", "--recipe", "finetune", "--init", "HIH_T/300w", "--data", data, "--set", "epoch=3"]
    error = run(*words, "--out", data.parent / "run", code=1).stderr
    assert "unknown keys ['epoch']" in error
    for key in ("epochs", "lr", "batch", "schedule", "warmup"):
        assert f"'{key}'" in error


def test_a_mirror_without_pairs(data: Path) -> None:
    error = run("data", "check", data, "--scheme", scheme(data, mirror=[]), code=1).stdout
    assert "mirror has no pairs, so each landmark would be its own mirror image" in error
    assert "such as [[0, 1]], or leave mirror out" in error
    # a face whose landmarks are all on its midline has no pairs, so here an empty mirror is correct
    content = json.loads(data.read_text())
    for annotation in content["annotations"]:
        annotation["keypoints"] = (
            np.column_stack((np.full(12, 50), np.arange(20, 80, 5), np.full(12, 2))).ravel().tolist()
        )
    data.write_text(json.dumps({**content, "annotations": content["annotations"][:1]}))
    assert len(read_dataset(data, str(scheme(data, mirror=[])))) == 1


def test_warnings_are_one_line_without_source_code(data: Path) -> None:
    before = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # as Python's own function does; pytest replaces it
        warnings.showwarning = lambda message, *_, **__: sys.stderr.write(
            warnings.formatwarning(message, UserWarning, "file.py", 1, "source")
        )
        error = run("data", "check", data, "--scheme", scheme(data)).stderr
    assert "hih-align: warning: scheme 'mine' has no mirror table: training will not mirror faces\n" in error
    assert "file.py" not in error
    assert "source" not in error
    assert warnings.formatwarning is before


def test_a_missing_image_is_named_once(data: Path) -> None:
    for name in ("gone.png", "/nowhere/gone.png"):
        content = json.loads(data.read_text())
        content["images"][1]["file_name"] = name
        data.write_text(json.dumps(content))
        with pytest.raises(FileNotFoundError) as error:
            read_dataset(data, str(scheme(data)))
        assert str(error.value).count("gone.png") == 1
        assert ("does not exist, looked in " in str(error.value)) == (name == "gone.png")
    assert str(error.value).endswith("image '/nowhere/gone.png' does not exist")


def test_models_prints_short_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(manifest_path().parent)
    text = run("models").stdout
    assert str(Path.cwd()) not in text
    assert re.search(r"^HIH_S/300w .* weights/HIH_S_300w\.safetensors ", text, re.M)
    monkeypatch.setattr(models, "local_weights", lambda row: None)
    text = run("models").stdout
    assert "set the environment variable HIH_ALIGN_WEIGHTS to their folder" in text
    assert "HIH_S_300w.safetensors" in text.splitlines()[-1]


def test_worst_faces_are_listed_line_by_line() -> None:
    from types import SimpleNamespace

    from hih_align.evaluation import report

    image = SimpleNamespace(image=Path("a/b.png"))
    assert report.worst_lines(SimpleNamespace(records=[image, image], nme=[3.0, 14.25]), [1, 0]) == [
        "Worst faces:", "", "- 14.2 %, b.png", "- 3.0 %, b.png", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"),
            "CUDA out of memory. Tried to",
        ),
        (MemoryError("Unable to allocate 3.2 GiB for an array"), "Unable to allocate 3.2 GiB"),
        (MemoryError(), "take smaller batches"),
    ],
)
def test_no_memory_is_no_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def fail() -> Any:
        raise error

    monkeypatch.setattr(models, "read_manifest", fail)
    assert f"hih-align: out of memory: {message}" in run("models", code=1).stderr
    error = RuntimeError("a fault")  # any other is a fault of the program
    with pytest.raises(RuntimeError, match="a fault"):
        CliRunner().invoke(app, ["models"], catch_exceptions=False)


def test_a_name_that_the_standard_output_cannot_show_is_no_error(data: Path) -> None:
    """On Windows a pipe or a file has an encoding with few letters."""
    out = data.parent / "モデル"
    words = ["-m", "hih_align", "data", "pack", str(data), "--scheme", str(scheme(data)), "--out", str(out)]
    encoding = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, *words], env=os.environ | encoding, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u30e2\\u30c7\\u30eb: 2 faces" in done.stdout
    assert (out / "annotations.json").is_file()
