"""After an aligner was loaded or used, the process forks, and the child process aligns, too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

import hih_align

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

SCRIPT = """
import faulthandler, gc, multiprocessing, os, signal, sys, traceback
import numpy as np
import torch

gc.freeze()  # else each process that exits looks at all that PyTorch made, which takes half a second
# a process for each runtime, forked before anything was used: each import of PyTorch takes a second
for backend, model in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    if os.fork() == 0:
        break
    _, status = os.wait()
    assert status == 0, f"{backend}: wait status {status}"
else:
    sys.exit()

from hih_align import FaceAligner, runtime

torch.set_num_threads(2)  # not the environment's number: with one thread the child would not hang
faulthandler.register(signal.SIGALRM, chain=True)
known, box = np.load(sys.argv[1]), (177, 80, 275, 200)
image, expected = known["image"], known["points"]
many = 32 if backend == "openvino" else 8  # OpenVINO gives each core other faces in long work


def forked(work, leave=os._exit):
    child = os.fork()
    if child == 0:
        signal.alarm(150)  # if the child hangs: prints the place and ends the child
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        leave(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"{work.__name__}: wait status {status}"


def align():
    return aligner.align(image, box, refine=0).points


def aligns():
    np.testing.assert_allclose(align(), expected, atol=1e-3)
    assert torch.get_num_threads() == 1


def aligns_many():
    found = aligner.align(image, [box] * many, refine=0).points
    np.testing.assert_allclose(found, np.stack([expected] * many), atol=1e-2)


def groups_at_once():  # the graph that OpenVINO compiles for long work
    return aligner._runtime()._compiled.keys() - {(1, 1), (aligner._runtime().group, 1)}


def aligns_with_two_threads():
    torch.set_num_threads(2)
    np.testing.assert_allclose(align(), expected, atol=1e-3)
    aligner.heatmaps(image, box)
    if backend == "torch":
        FaceAligner.from_pretrained(model, device="cpu").align(image, box, refine=0)
    torch.set_num_threads(1)
    np.testing.assert_allclose(align(), expected, atol=1e-3)


def loads_and_aligns():
    again = FaceAligner.from_pretrained(model, device="cpu", backend=backend)
    np.testing.assert_allclose(again.align(image, box, refine=0).points, expected, atol=1e-3)
    forked(aligns)


def pooled(_):
    return align()


aligner = FaceAligner.from_pretrained(model, device="cpu", backend=backend)
forked(aligns)
np.testing.assert_allclose(align(), expected, atol=1e-3)
assert torch.get_num_threads() == 2
forked(aligns)
forked(aligns_with_two_threads)
if backend == "openvino":
    runtime.openvino.MANY = 0
    aligns_many()
    assert groups_at_once()
forked(aligns_many)
# gunicorn's workers leave by sys.exit, with all exit handlers; with ONNX Runtime, one of them (in C) waits for ever
forked(loads_and_aligns, leave=os._exit if backend == "onnxruntime" else sys.exit)
with multiprocessing.get_context("fork").Pool(2) as pool:
    for points in pool.map_async(pooled, range(2)).get(150):
        np.testing.assert_allclose(points, expected, atol=1e-3)
np.testing.assert_allclose(align(), expected, atol=1e-3)
print(backend, "aligned")
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The astronaut, and its points, computed by a process that never forked."""
    import numpy as np
    import skimage.data

    aligner = hih_align.FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
    path = tmp_path_factory.mktemp("fork") / "known.npz"
    image = skimage.data.astronaut()
    np.savez(path, image=image, points=aligner.align(image, (177, 80, 275, 200), refine=0).points)
    return path


def test_forked_children_align(converted_nano: Callable[[str], str], expected: Path) -> None:
    backends = [name for name in ("torch", "openvino", "onnxruntime") if find_spec(name)]
    models = [word for backend in backends for word in (backend, converted_nano(backend))]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(expected), *models],
        # PASSIVE: threads that wait use no time of a core, which tests beside this one need
        env=os.environ | {"PYTHONPATH": str(Path(hih_align.__file__).parents[1]), "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{backend} aligned" for backend in backends]


OWNER = """
import gc, os
from hih_align.runtime import fork

class Owner:  # of threads, for which it would wait in a child
    def __del__(self):
        os.write(1, process)

owners = [Owner(), Owner()]
fork.spare(owners[0])
process = b"parent " if os.fork() else b"child "
if process == b"parent ":
    os.wait()
owners.clear()
gc.collect()
os._exit(0)
"""


def test_a_child_does_not_destroy_what_owns_threads() -> None:
    """The child destroys one of two owners: the one that was not spared. The parent destroys both."""
    done = subprocess.run([sys.executable, "-c", OWNER], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["child", "parent", "parent"], done.stderr
