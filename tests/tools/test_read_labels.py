"""Labels of one scheme, written as labels of another by the readout of an adapted model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image

from hih_align import Config, HIHNet
from hih_align.hub.checkpoints import save_checkpoint
from hih_align.method.readout import from_weights
from hih_align.method.sizes import SIZES
from hih_align.schemes import W300, Scheme

ROOT = Path(__file__).resolve().parents[2]


def test_points_are_read_and_unknown_ones_filled_in(tmp_path: Path) -> None:
    """The second landmark is the mean of two heads, and one of them is unknown on the first face."""
    size = SIZES["HIH_N"]
    weights = np.zeros((2, 68))
    weights[0, 30], weights[1, [36, 45]] = 1, (0.6, 0.4)
    own = Scheme("own", ("nose", "between"))
    save_checkpoint(tmp_path / "model", HIHNet(68, *size), Config(own, **size._asdict(), readout=from_weights(weights)))
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(68, 2)) * 30
    faces = shape + rng.normal(size=(40, 68, 2)) * 0.5 + rng.uniform(100, 200, (40, 1, 2))
    keypoints = np.concatenate((faces, np.full((40, 68, 1), 2.0)), -1)
    keypoints[0, 45] = 0
    keypoints[1, 30] = 0
    keypoints[2, 20:] = 0  # most are unknown
    data = {
        "images": [{"id": 0, "file_name": "a.png"}],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 1, "bbox": [5, 5, 290, 290], "keypoints": points.ravel().tolist()}
            for i, points in enumerate(keypoints)
        ],
        "categories": [{"id": 1, "name": "face", "keypoints": list(W300.names)}],
    }
    PIL.Image.new("L", (400, 400)).save(tmp_path / "a.png")
    (tmp_path / "old.json").write_text(json.dumps(data), "utf-8")
    (tmp_path / "labels").mkdir()
    words = ["old.json", "--by", "model", "--out", "labels/new.json"]
    command = [sys.executable, str(ROOT / "tools/read_labels.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "wrote labels/new.json, 39 faces of 40\n"
    assert done.stderr == ""
    made = json.loads((tmp_path / "labels/new.json").read_text("utf-8"))
    assert made["categories"][0]["keypoints"] == ["nose", "between"]
    assert [face["attributes"]["id"] for face in made["annotations"]] == [0, 1, *range(3, 40)]
    assert [image["file_name"] for image in made["images"]] == ["../a.png"]
    found = np.array([face["keypoints"] for face in made["annotations"]]).reshape(-1, 2, 3)
    true = 0.6 * faces[:, 36] + 0.4 * faces[:, 45]
    assert np.abs(found[2:, 1, :2] - true[3:]).max() < 0.01
    assert np.abs(found[0, 1, :2] - true[0]).max() < 2, "the unknown point was not filled in from the others"
    assert found[1, 0].tolist() == [0, 0, 0]
