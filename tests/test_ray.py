"""`examples/ray_folder.py` with Ray on this machine: its rows agree with `align_batch` to a thousandth of a pixel."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import hih_align
from hih_align import FaceAligner

# not importorskip: the import takes a second in every worker of pytest-xdist
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[ray]'"
)

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "ray_folder.py"
BOXES = {"a.png": [(177, 80, 275, 200), (170, 74, 280, 205)], "more/b c.jpg": [(177, 80, 275, 200)]}

#: Ray reports nothing over the network. It starts its workers when they are needed, and keeps them for the next run,
#: because each one takes a second.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_num_workers_soft_limit": "8",
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}

#: Runs the example several times in one process, because Ray takes seconds to start.
RUNS = """
import json, os, runpy, sys
import ray
ray.init(num_cpus=2, include_dashboard=False)
example, runs, folder = sys.argv[1:]
os.chdir(folder)
for words in json.loads(runs):
    sys.argv = [example, *words]
    runpy.run_path(example, run_name="__main__")
"""


def run(*runs: list[object], folder: Path) -> subprocess.CompletedProcess[str]:
    words = json.dumps([[str(word) for word in words] for words in runs])
    return subprocess.run(
        [sys.executable, "-c", RUNS, str(EXAMPLE), words, str(folder)],
        env=os.environ | SETTINGS | {"PYTHONPATH": str(Path(hih_align.__file__).parents[1])},
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


def test_a_folder(tmp_path: Path, astronaut: NDArray[np.uint8], converted_nano: Callable[..., str]) -> None:
    """A folder to Parquet by two actors, a URI to JSON Lines by one; and a folder that holds rows is refused."""
    images, boxes = tmp_path / "photos", tmp_path / "boxes.csv"
    (images / "more").mkdir(parents=True)
    for number, name in enumerate(BOXES):
        PIL.Image.fromarray(np.roll(astronaut, number, 1)).save(images / name)
    lines = [f"{name},{','.join(map(str, box))}" for name, some in BOXES.items() for box in some]
    boxes.write_text("\n".join(lines) + "\n")
    # the two actors load no PyTorch, which takes seconds
    models = {"parquet": (converted_nano("onnxruntime", weights=False), "onnxruntime"), "json": ("HIH_N/300w", "torch")}
    how: dict[str, list[object]] = {
        kind: ["--model", model, "--backend", backend, "--refine", 0, "--batch-size", 1]
        for kind, (model, backend) in models.items()
    }
    # relative to the folder of the driver; the actors have the one of Ray
    parquet = ["photos", boxes, tmp_path / "parquet", "--actors", 2, *how["parquet"]]
    uri = [images.as_uri(), boxes, tmp_path / "json", "--format", "json", "--actors", 1, *how["json"]]
    done = run(parquet, uri, parquet, folder=tmp_path)
    assert f"{tmp_path / 'parquet'} is not empty" in done.stderr, done.stderr  # the third run
    assert done.returncode == 2
    for kind, (model, backend) in models.items():
        aligner = FaceAligner.from_pretrained(model, device="cpu", backend=backend)
        expected = aligner.align_batch([images / name for name in BOXES], list(BOXES.values()), refine=0)
        found = {(row["file"], row["index"]): row for row in rows(tmp_path / kind, kind)}
        assert len(rows(tmp_path / kind, kind)) == len(found) == 3
        for name, faces in zip(BOXES, expected, strict=True):
            for index, face in enumerate(faces):
                row = found[name, index]
                assert {"file": name, "index": index}.items() <= row.items()
                assert (row["scheme"], row["model"]) == (face.scheme.id, face.model)
                # an actor uses another number of threads, which can change the order of sums
                for field, atol in (("points", 1e-3), ("scores", 1e-5), ("bbox", 0)):
                    found_values = np.array(row[field], np.float32)
                    np.testing.assert_allclose(found_values, getattr(face, field), rtol=0, atol=atol, err_msg=field)
