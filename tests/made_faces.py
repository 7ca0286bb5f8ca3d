"""Made-up faces of four coloured discs, a data set of these faces, and a recipe that trains on them in a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hih_align.data.annotations import Dataset, read_dataset
from hih_align.method.sizes import Size
from hih_align.schemes import scheme_from_dict
from hih_align.training import looking
from hih_align.training.journal import Journal
from hih_align.training.recipe import Recipe, recipe_from_dict

#: A network for tests in which the values of its weights do not matter.
TINY = Size(1, width=0.25, head_channels=64, input_size=128)

SCHEME = {
    "id": "corners",
    "names": ["left", "right", "top", "bottom"],
    "mirror": [[0, 1]],
    "normalizers": {"width": [0, 1]},
}


def write_faces(folder: Path, count: int, seed: int, missing: int = 0) -> Path:
    """Write a COCO file and its images; each image shows four coloured discs, whose centres are the landmarks."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, annotations = [], []
    colours = np.array([[255, 40, 40], [40, 255, 40], [60, 60, 255], [255, 255, 60]])
    y, x = np.mgrid[:96, :96]
    for i in range(count):
        centre, size, turn = rng.uniform(42, 54, 2), rng.uniform(18, 26), rng.uniform(-0.2, 0.2)
        axes = np.array([[-1, 0], [1, 0], [0, -1.1], [0, 1.1]]) * size
        points = centre + axes @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        picture = rng.integers(60, 120, (96, 96, 3)).astype(np.uint8)
        for (px, py), colour in zip(points, colours, strict=True):
            picture[(x - px) ** 2 + (y - py) ** 2 < 12] = colour
        Image.fromarray(picture).save(folder / f"{i}.png")
        x1, y1 = points.min(0)
        x2, y2 = points.max(0)
        keypoints = [[float(px), float(py), 0 if i < missing and k == 2 else 2] for k, (px, py) in enumerate(points)]
        images.append({"id": i, "file_name": f"{i}.png", "width": 96, "height": 96})
        annotations.append(
            {
                "id": i,
                "image_id": i,
                "category_id": 1,
                "keypoints": [v for point in keypoints for v in point],
                "num_keypoints": sum(v > 0 for *_, v in keypoints),
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            }
        )
    categories = [{"id": 1, "name": "face", "keypoints": SCHEME["names"]}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> tuple[Dataset, Dataset]:
    folder = tmp_path_factory.mktemp("faces")
    scheme = scheme_from_dict(SCHEME)
    (folder / "scheme.json").write_text(json.dumps(SCHEME))
    return (
        read_dataset(write_faces(folder / "train", 6, 0, missing=2), scheme),
        read_dataset(write_faces(folder / "val", 3, 1), scheme),
    )


@pytest.fixture(autouse=True)
def no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """In modules that import this: the runs of single tests draw no curve, which would take a fifth of their time."""
    monkeypatch.setattr(Journal, "curve", lambda journal: None)


@pytest.fixture
def any_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the check whether the faces' boxes suit the start network, because this network is untrained."""
    monkeypatch.setattr(looking, "OFF", np.inf)


@pytest.fixture
def no_box(monkeypatch: pytest.MonkeyPatch) -> None:
    """No box of a face suits the start network. Only two sizes of crops are tried, which takes less time than five."""
    monkeypatch.setattr(looking, "OFF", -1.0)
    monkeypatch.setattr(looking, "LARGER", (1.0, looking.WIDE))


def small(**changes: object) -> Recipe:
    """A recipe with two stages. Each stage has one epoch of three steps."""
    stages = [
        {"epochs": 1, "size": 64, "batch": 2, "lr": 5e-4, "warmup": 0.5},
        {"epochs": 1, "size": 64, "batch": 2, "lr": 5e-4, "subpixel": False},
    ]
    plain = {
        "stages": stages,
        "size": "N",
        "width": TINY.width,
        "head_channels": TINY.head_channels,
        "precision": "no",
        "ema": 0.9,
        "store_side": 96,
        "seed": 3,
        "calibrate": "no",
    }
    return recipe_from_dict(plain | changes)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
