"""An exported folder runs without importing PyTorch, and gives the results of PyTorch."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import hih_align
from hih_align import FaceAligner, export
from hih_align.runtime import threads

BOX = (177.0, 80, 275, 200)

#: Each use of an aligner with an exported folder, in one process. The last printed line has the results.
SCRIPT = """
import json, pickle, sys
import hih_align
from hih_align import FaceAligner

def alone(step):
    assert "torch" not in sys.modules, f"{step} imported torch"

alone("import hih_align")
folder, backend, box = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
image = hih_align.images.read_image(sys.argv[4])
alone("read_image")
aligner = FaceAligner.from_pretrained(folder, backend=backend)
alone("from_pretrained")
found = {}
found["box"] = aligner.align(image, box)
found["one pass"] = aligner.align(image, box, refine=0)
found["mirrored"] = aligner.align(image, box, mirror=True)
found["rolled"] = aligner.align(image, box, roll=20)
found["found"] = aligner.align(image)[0]
found["batch"] = aligner.align_batch([image, image], [box, [box]])[0]
found["among others"] = aligner.align(image, [box] * 6, refine=0)[3]
found["pickled"] = pickle.loads(pickle.dumps(aligner)).align(image, box)
alone("align")
assert len(hih_align.FaceTracker(aligner).update(image)) == 1
repr(aligner), found["box"].draw(image), found["box"].to("300w")
try:
    aligner.heatmaps(image, box)
except ValueError as error:
    assert "network is not here" in str(error), error
else:
    raise AssertionError("heatmaps without a network")
alone("the rest")
print(json.dumps({name: [face.points.tolist(), face.scores.tolist()] for name, face in found.items()}))
assert aligner.dtype is __import__("torch").float32  # reading dtype imports PyTorch, because it is a torch.dtype
"""


@pytest.fixture(scope="module")
def network() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", device="cpu")


@pytest.mark.parametrize(("format", "backend"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_an_exported_folder_runs_without_torch(
    network: FaceAligner,
    astronaut: NDArray[np.uint8],
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: Any,
    backend: str,
) -> None:
    pytest.importorskip(backend)
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(shared / "weights"))  # for the detector's file
    monkeypatch.setenv("PYTHONPATH", str(Path(hih_align.__file__).parents[1]))
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    memory = importlib.import_module("memory")
    photograph = tmp_path / "photograph.png"
    assert memory.photograph(photograph) == list(BOX)
    folder = export.export(network, tmp_path / format, format).folder
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), backend, json.dumps(BOX), str(photograph)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    expected = {
        "box": network.align(astronaut, BOX),
        "one pass": network.align(astronaut, BOX, refine=0),
        "mirrored": network.align(astronaut, BOX, mirror=True),
        "rolled": network.align(astronaut, BOX, roll=20),
        "found": network.align(astronaut)[0],
    }
    expected |= {"batch": expected["box"], "pickled": expected["box"], "among others": expected["one pass"]}
    assert set(expected) == set(found)
    first = memory.first_face(str(folder), backend, photograph, list(BOX))
    assert not first["torch"]
    assert first["score"] == pytest.approx(expected["box"].score, abs=1e-3)
    assert first["peak_mb"] < 200
    for name, face in expected.items():
        points, scores = found[name]
        # the second pass uses another crop, whose pixels are integers: a difference of 1e-6 can change a pixel by one
        # level
        within = 1e-3 if name in ("one pass", "among others") else 5e-3
        np.testing.assert_allclose(points, face.points, atol=within, rtol=0, err_msg=name)
        np.testing.assert_allclose(scores, face.scores, atol=5e-4, rtol=0, err_msg=name)


def test_the_number_of_threads_is_the_one_that_the_program_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    assert threads.thread_count() == torch.get_num_threads()
    monkeypatch.delitem(sys.modules, "torch")
    for told, expected in (("3", 3), (" 2,1", 2), ("", threads.usable_cores()), ("many", threads.usable_cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert threads.thread_count() == expected


def test_two_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / str(cpu)).write_text(siblings + "\n")
    monkeypatch.setattr(threads, "_SIBLINGS", str(tmp_path / "{}"))
    for usable, expected in (({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1, 7}, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, usable=usable: usable, raising=False)
        assert threads.usable_cores() == expected
