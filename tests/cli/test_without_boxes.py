"""`hih-align align` without boxes: a photograph, a folder, and a folder that is continued."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
from click.testing import Result
from numpy.typing import NDArray
from typer.testing import CliRunner

from hih_align import FaceAligner
from hih_align.cli.app import app


def run(*words: object, weights: Path | str, code: int = 0) -> Result:
    environment = {"HIH_ALIGN_TRACEBACK": None, "HIH_ALIGN_WEIGHTS": str(weights), "HF_HUB_OFFLINE": "1"}
    options = ("--model", "HIH_N", "--refine", 0, "--device", "cpu")
    result = CliRunner().invoke(app, ["align", *map(str, (*words, *options))], env=environment)
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def weights(shared: Path) -> Path:
    return shared / "weights"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images of two faces, one face and no face; and with a file that is not an image."""
    face = skimage.data.astronaut()[40:250, 130:330]
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, image in (
        ("a two.png", np.concatenate((face, face), 1)),
        ("b.JPG", face),
        ("c.png", np.full((60, 80, 3), 100, np.uint8)),
    ):
        PIL.Image.fromarray(image).save(photos / name, quality=95)
    (photos / "notes.txt").write_text("no image")
    (photos / "more").mkdir()
    return photos


def faces(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_photograph(weights: Path, folder: Path) -> None:
    found = faces(run(folder / "a two.png", weights=weights).stdout)
    assert [(face["file"], face["index"]) for face in found] == [("a two.png", 0), ("a two.png", 1)]
    assert all(face["detection_score"] > 0.8 for face in found)
    centres = sorted(float(np.mean(face["points"], 0)[0]) for face in found)
    assert centres[1] - centres[0] == pytest.approx(200, abs=3)


def test_a_photograph_without_faces(weights: Path, folder: Path, tmp_path: Path) -> None:
    result = run(folder / "c.png", weights=weights)
    assert (result.stdout, result.stderr) == ("", f"{folder / 'c.png'}: no face was found\n")
    run(folder / "c.png", "--json", tmp_path / "c.json", weights=weights)
    assert json.loads((tmp_path / "c.json").read_text()) == []


def test_photographs_in_unknown_formats_are_named(weights: Path, folder: Path) -> None:
    """A raw file beside its JPEG file, and the files that macOS adds, are no further photographs."""
    for name in ("d.HEIC", "e.nef", "b.NEF", "._b.JPG"):
        (folder / name).write_bytes(b"no image")
    result = run(folder, weights=weights, code=1)
    assert [face["file"] for face in faces(result.stdout)] == ["a two.png", "a two.png", "b.JPG"]
    left = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert left == [
        f"left out: image '{folder / name}' cannot be read: Pillow does not know its format"
        for name in ("d.HEIC", "e.nef")
    ]
    assert f"hih-align: 2 images of {folder} cannot be read and are left out, first d.HEIC" in result.stderr
    for name in ("a two.png", "b.JPG", "c.png"):
        (folder / name).unlink()
    assert "holds no images" in run(folder, weights=weights, code=1).stderr


def test_an_interrupted_folder_is_continued(
    weights: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "faces.jsonl"
    run(folder, "--json", path, "--out", tmp_path / "drawn", weights=weights)
    whole = path.read_text()
    assert [(f["file"], f["index"]) for f in faces(whole)] == [("a two.png", 0), ("a two.png", 1), ("b.JPG", 0)]
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["a two.png", "b.JPG", "c.png"]

    seen: list[str] = []
    stream = FaceAligner.stream

    def spying(self: FaceAligner, images: Any, *rest: Any, **options: Any) -> Any:
        images = list(images)
        seen.extend(image.name for image in images)
        return stream(self, images, *rest, **options)

    monkeypatch.setattr(FaceAligner, "stream", spying)
    # the run was killed within a line, between the two faces of an image: the image is aligned again
    first, second, last = whole.splitlines(keepends=True)
    for held, todo in (
        (first + second[:40], ["a two.png", "b.JPG", "c.png"]),
        (first + second + last, ["b.JPG", "c.png"]),
    ):
        seen.clear()
        path.write_text(held)
        run(folder, "--json", path, weights=weights)
        assert seen == todo
        assert path.read_text() == whole


def test_no_images(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no images" in run(tmp_path / "empty", weights=weights).stderr


@pytest.mark.parametrize("output", ["json", "coco"])
@pytest.mark.parametrize("boxes", [False, True])
def test_unreadable_images_are_left_out(weights: Path, folder: Path, tmp_path: Path, output: str, boxes: bool) -> None:
    """One damaged photograph does not end the work of a night; it is named, and the exit status is 1."""
    (folder / "aa cut.jpg").write_bytes((folder / "b.JPG").read_bytes()[:2000])
    (folder / "c empty.png").touch()
    words: list[object] = [folder, "--out", tmp_path / "drawn", "--format", output, "--model", "HIH_N"]
    if boxes:
        named = ("a two.png", "aa cut.jpg", "b.JPG", "c empty.png")
        (tmp_path / "boxes.csv").write_text("".join(f"{name},46,40,144,160\n" for name in named))
        words += ["--boxes", tmp_path / "boxes.csv"]
    path = tmp_path / ("labels.json" if output == "coco" else "faces.jsonl")
    errors = run(*words, "--json", path, weights=weights, code=1).stderr
    assert re.search(r"left out: image '.*aa cut.jpg' cannot be read: ", errors)
    assert re.search(
        r"hih-align: 2 images of .*photos cannot be read and are left out, first aa cut.jpg$", errors.strip()
    )
    done = ["a two.png", "b.JPG"] if boxes else ["a two.png", "b.JPG", "c.png"]
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == done
    if output == "coco":
        assert [Path(image["file_name"]).name for image in json.loads(path.read_text())["images"]] == done
    else:
        assert [f["file"] for f in faces(path.read_text())] == ["a two.png"] * (1 if boxes else 2) + ["b.JPG"]


def test_no_detector(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    result = run(folder / "b.JPG", weights=tmp_path, code=1)
    assert "detector: face_detection_yunet_2023mar.onnx" in result.stderr
    assert str(tmp_path) in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_invalid_boxes_are_refused_as_before(weights: Path, folder: Path, astronaut: NDArray[np.uint8]) -> None:
    result = run(folder, "--bbox", 1, 2, 3, 4, weights=weights, code=1)
    assert "is a folder: expected --boxes with a file" in result.stderr
