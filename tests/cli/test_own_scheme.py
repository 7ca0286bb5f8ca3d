"""The commands in the README's order for a user's own landmarks, with `examples/five.json`.

This scheme has no inter-ocular distance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("accelerate")
pytest.importorskip("onnxruntime")

from hih_align import FaceAligner, export
from hih_align.cli.app import app
from hih_align.schemes import W300, load_scheme

FIVE = Path(__file__).resolve().parents[2] / "examples" / "five.json"
BOX = np.array((97.0, 80.0, 195.0, 200.0))


def run(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"HIH_ALIGN_TRACEBACK": None})
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def write_five(folder: Path, image: NDArray[np.uint8], numbers: range, aligner: FaceAligner) -> Path:
    """A COCO file with the astronaut's five points; in each image the face is at a slightly different position."""
    assert W300.five is not None
    folder.mkdir()
    images, annotations = [], []
    for n in numbers:
        picture = np.roll(image[:300, 80:380], (n, 2 * n), (0, 1))
        box = BOX + np.array((2 * n, n, 2 * n, n))
        points = aligner.align(picture, box, refine=0).points
        five = np.stack([points[list(group)].mean(0) for group in W300.five])
        Image.fromarray(picture).save(folder / f"{n}.png")
        images.append({"id": n, "file_name": f"{n}.png"})
        keypoints = np.column_stack((five, np.full(5, 2))).ravel().tolist()
        annotation: dict[str, Any] = {"id": n, "image_id": n, "category_id": 1, "keypoints": keypoints}
        annotations.append(annotation | {"bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]})
    category = {"id": 1, "name": "face", "keypoints": list(load_scheme(FIVE).names)}
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return path


def test_five_points_from_training_to_int8(
    tmp_path: Path, astronaut: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    aligner = FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
    data = write_five(tmp_path / "train", astronaut, range(4), aligner)
    val = write_five(tmp_path / "val", astronaut, range(4, 7), aligner)
    out, unit = tmp_path / "run", "inter-pupil distance"
    sets = ["epochs=1", "batch=4", "precision=no", "stages.0.size=64"]
    words = ["--recipe", "finetune", "--init", "HIH_N/300w", "--scheme", FIVE, "--data", data, "--val", val]
    trained = run("train", *words, "--out", out, *(word for item in sets for word in ("--set", item)))
    assert "validation NME" in trained.output
    assert f"% of the {unit}" in trained.output
    assert FaceAligner.from_pretrained(out, device="cpu").calibrated
    assert f"NME in percent of the {unit}" in run("evaluate", "--model", out, "--data", val).output
    assert f"in percent of the {unit}" in run("calibrate", "--model", out, "--data", val, "--write").output
    monkeypatch.setattr(export, "WORSE", np.inf)  # after one training step the accuracy of int8 does not matter
    words = ["--format", "onnx", "--precision", "int8", "--data", data, "--val", val, "--out", tmp_path / "int8"]
    assert f"in percent of the {unit}" in run("export", out, *words).output
    small = FaceAligner.from_pretrained(tmp_path / "int8", backend="onnxruntime", device="cpu")
    assert small.align(tmp_path / "val" / "4.png", BOX + np.array((8, 4, 8, 4))).points.shape == (5, 2)
