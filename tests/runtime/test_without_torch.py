"""An exported folder runs without importing PyTorch, and gives the results of PyTorch."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import hih_align
from hih_align import FaceAligner
from hih_align.runtime import threads

BOX = (177.0, 80, 275, 200)

#: Other uses of an aligner with an exported folder, in the process of `memory.first_face`.
SCRIPT = """
import pickle, types
from pathlib import Path
import hih_align

def alone(step):
    assert "torch" not in sys.modules, f"{step} imported torch"

alone("align")
path, box = Path(sys.argv[3]), json.loads(sys.argv[4])
image = hih_align.images.read_image(path)
found = {"box": face}
found["one pass"] = aligner.align(image, box, refine=0)
found["mirrored"] = aligner.align(image, box, mirror=True)
found["rolled"] = aligner.align(image, box, roll=20)
alone("one face")
found["found"] = aligner.align(image)[0]
alone("a detector")
found["batch"] = aligner.align_batch([image, image], [box, [box]])[0]
found["among others"] = aligner.align(image, [box] * 6, refine=0)[3]
alone("several faces")
found["pickled"] = pickle.loads(pickle.dumps(aligner)).align(image, box)
alone("pickle")
assert len(hih_align.FaceTracker(aligner).update(image)) == 1
repr(aligner), face.draw(image), face.to("300w")
try:
    aligner.heatmaps(image, box)
except ValueError as error:
    assert "network is not here" in str(error), error
else:
    raise AssertionError("heatmaps without a network")
alone("the rest")
values = {name: [face.points.tolist(), face.scores.tolist()] for name, face in found.items()}
path.with_name("found.json").write_text(json.dumps(values))
# reading dtype imports PyTorch, because it is a torch.dtype; here a stand-in, because PyTorch takes a second
sys.modules["torch"] = types.SimpleNamespace(float32="its float32")
assert aligner.dtype == "its float32"
"""


@pytest.fixture(scope="module")
def network() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", device="cpu")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_exported_folder_runs_without_torch(
    network: FaceAligner,
    astronaut: NDArray[np.uint8],
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    converted_nano: Callable[..., str],
    backend: str,
) -> None:
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(shared / "weights"))  # for the detector's file
    monkeypatch.setenv("PYTHONPATH", str(Path(hih_align.__file__).parents[1]))
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    memory = importlib.import_module("memory")
    photograph = tmp_path / "photograph.png"
    assert memory.photograph(photograph) == list(BOX)
    folder = converted_nano(backend, weights=False)
    monkeypatch.setattr(memory, "FIRST_FACE", memory.FIRST_FACE + SCRIPT)
    try:
        first = memory.first_face(folder, backend, photograph, list(BOX))
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
    found = json.loads((tmp_path / "found.json").read_text())
    expected = {
        "box": network.align(astronaut, BOX),
        "one pass": network.align(astronaut, BOX, refine=0),
        "mirrored": network.align(astronaut, BOX, mirror=True),
        "rolled": network.align(astronaut, BOX, roll=20),
        "found": network.align(astronaut)[0],
    }
    expected |= {"batch": expected["box"], "pickled": expected["box"], "among others": expected["one pass"]}
    assert set(expected) == set(found)
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
