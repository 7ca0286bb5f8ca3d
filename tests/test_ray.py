"""`examples/ray_folder.py` with Ray on this machine: its rows agree with `align_batch` to a thousandth of a pixel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import hih_align
from hih_align import FaceAligner

pytest.importorskip("ray.data", reason="Ray is not installed: pip install -e '.[ray]'")

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ray_folder.py"
BOXES = {"a.png": [(177, 80, 275, 200), (170, 74, 280, 205)], "more/b c.jpg": [(177, 80, 275, 200)]}


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *map(str, words)],
        env=os.environ | {"PYTHONPATH": str(Path(hih_align.__file__).parents[1]), "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def rows(out: Path, kind: str) -> list[dict[str, Any]]:
    if kind == "json":
        return [json.loads(line) for path in out.glob("*.json") for line in path.read_text().splitlines()]
    import pyarrow.parquet

    return [row for path in out.glob("*.parquet") for row in pyarrow.parquet.read_table(path).to_pylist()]


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_a_folder(tmp_path: Path, astronaut: NDArray[np.uint8], kind: str) -> None:
    images, out = tmp_path / "photos", tmp_path / "faces"
    (images / "more").mkdir(parents=True)
    for number, name in enumerate(BOXES):
        PIL.Image.fromarray(np.roll(astronaut, number, 1)).save(images / name)
    lines = [f"{name},{','.join(map(str, box))}" for name, boxes in BOXES.items() for box in boxes]
    (tmp_path / "boxes.csv").write_text("\n".join(lines) + "\n")
    words = [images if kind == "parquet" else images.as_uri(), tmp_path / "boxes.csv", out, "--format", kind]
    done = run(*words, "--actors", 2 if kind == "parquet" else 1, "--refine", 0, "--batch-size", 1)
    assert done.returncode == 0, done.stderr
    aligner = FaceAligner.from_pretrained("HIH_T", device="cpu")
    expected = aligner.align_batch([images / name for name in BOXES], list(BOXES.values()), refine=0)
    found = {(row["file"], row["index"]): row for row in rows(out, kind)}
    assert len(rows(out, kind)) == len(found) == 3
    for name, faces in zip(BOXES, expected, strict=True):
        for index, face in enumerate(faces):
            row = found[name, index]
            assert {"file": name, "index": index}.items() <= row.items()
            assert (row["scheme"], row["model"]) == (face.scheme.id, face.model)
            # an actor uses another number of threads, which can change the order of sums
            for field, atol in (("points", 1e-3), ("scores", 1e-5), ("bbox", 0)):
                found_values = np.array(row[field], np.float32)
                np.testing.assert_allclose(found_values, getattr(face, field), rtol=0, atol=atol, err_msg=field)
    if kind == "parquet":
        again = run(*words)
        assert again.returncode == 2
        assert "is not empty" in again.stderr
