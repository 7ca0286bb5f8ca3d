"""`hih-align align --format coco`: its file is read back, checked, and continued after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
from click.testing import Result
from typer.testing import CliRunner

from hih_align import FaceAligner
from hih_align.cli.app import app
from hih_align.data.annotations import read_dataset
from hih_align.schemes import W300

MODEL = "HIH_N/300w"


def run(*words: object, weights: Path, code: int = 0) -> Result:
    environment = {"HIH_ALIGN_TRACEBACK": None, "HIH_ALIGN_WEIGHTS": str(weights), "HF_HUB_OFFLINE": "1"}
    result = CliRunner().invoke(app, [*map(str, words)], env=environment)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def align(*words: object, weights: Path, code: int = 0) -> Result:
    options = ("--format", "coco", "--model", MODEL, "--refine", 0, "--device", "cpu")
    return run("align", *words, *options, weights=weights, code=code)


@pytest.fixture
def weights(shared: Path) -> Path:
    return shared / "weights"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One image with two faces, one image with a face that needs its EXIF rotation, and one image without a face."""
    face = skimage.data.astronaut()[40:250, 130:330]
    folder = tmp_path / "photos"
    folder.mkdir()
    PIL.Image.fromarray(np.concatenate((face, face[:, ::-1]), 1)).save(folder / "two.png")
    turned = PIL.Image.fromarray(np.rot90(face, -1).copy())
    turned.getexif()[0x0112] = 8  # viewers rotate the image counter-clockwise
    turned.save(folder / "one.jpg", exif=turned.getexif(), quality=95)
    PIL.Image.fromarray(np.full((60, 80, 3), 100, np.uint8)).save(folder / "none.png")
    return folder


def test_a_folder_is_written_and_read_back(weights: Path, photos: Path) -> None:
    path = photos / "labels.json"
    align(photos, "--json", path, weights=weights)
    data = json.loads(path.read_text())
    assert [(i["file_name"], i["width"], i["height"]) for i in data["images"]] == [
        ("none.png", 80, 60),
        ("one.jpg", 200, 210),
        ("two.png", 400, 210),
    ]
    assert [a["image_id"] for a in data["annotations"]] == [2, 3, 3]
    assert [a["id"] for a in data["annotations"]] == [1, 2, 3]
    (category,) = data["categories"]
    assert (category["name"], category["keypoints"]) == ("face", list(W300.names))
    assert [1, 2] in category["skeleton"]
    lines = run("align", photos, "--model", MODEL, "--refine", 0, "--device", "cpu", weights=weights).stdout
    known = [json.loads(line) for line in lines.splitlines()]
    dataset = read_dataset(path, "300w")
    assert len(dataset.records) == 3
    for record, face, annotation in zip(dataset.records, known, data["annotations"], strict=True):
        assert record.labels is not None
        np.testing.assert_allclose(record.labels.points, face["points"], atol=2e-3)
        np.testing.assert_allclose(annotation["keypoint_scores"], face["scores"], atol=1e-4)
        assert annotation["score"] == pytest.approx(np.mean(face["scores"]), abs=1e-3)
    said = run("data", "check", path, "--scheme", "300w", weights=weights).stdout
    assert "3 faces" in said
    assert sorted(p.name for p in photos.iterdir()) == ["labels.json", "none.png", "one.jpg", "two.png"]


def test_an_interrupted_folder_is_continued(
    weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, stream = tmp_path / "labels.json", FaceAligner.stream

    def stopping(self: FaceAligner, images: Any, *rest: Any, **options: Any) -> Any:
        for number, faces in enumerate(stream(self, images, *rest, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield faces

    with monkeypatch.context() as patch:
        patch.setattr(FaceAligner, "stream", stopping)
        align(photos, "--json", path, weights=weights, code=130)
    partial = tmp_path / "labels.partial.jsonl"
    assert [json.loads(line)["file"] for line in partial.read_text().splitlines()] == ["one.jpg"]
    assert not path.exists()
    align(photos, "--json", path, weights=weights)
    data = json.loads(path.read_text())
    assert [i["file_name"] for i in data["images"]] == ["photos/none.png", "photos/one.jpg", "photos/two.png"]
    assert [a["image_id"] for a in data["annotations"]] == [2, 3, 3]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["labels.json", "photos"]
    assert len(read_dataset(path, "300w").records) == 3


def test_a_photograph_that_has_gone_is_left_out(weights: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    lines = run("align", photos, "--model", MODEL, "--refine", 0, "--device", "cpu", weights=weights).stdout
    (tmp_path / "labels.partial.jsonl").write_text(lines.splitlines()[0] + "\n")  # of one.jpg
    (photos / "one.jpg").unlink()
    align(photos, "--json", path, weights=weights)
    data = json.loads(path.read_text())
    assert [i["file_name"] for i in data["images"]] == ["photos/none.png", "photos/two.png"]
    assert [a["image_id"] for a in data["annotations"]] == [2, 2]


def test_one_photograph(weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = json.loads(align(photos / "two.png", "--json", "-", weights=weights).stdout)
    assert [i["file_name"] for i in data["images"]] == ["photos/two.png"]
    assert len(data["annotations"]) == 2
    data = json.loads(align(photos, "--json", "-", weights=weights).stdout)
    assert len(data["images"]) == 3


def test_names(weights: Path, photos: Path) -> None:
    for words, message in (
        ([], "json is missing: --format coco needs --json"),
        (["--json", "a.jsonl"], "json is a.jsonl, a name of JSON Lines"),
    ):
        assert message in align(photos, *words, weights=weights, code=1).stderr
