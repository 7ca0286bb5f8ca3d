from __future__ import annotations

import gc
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from browsers import browser, detector_file, other_photograph, photograph, served, visits  # noqa: F401  # fixtures
from converted import converted_nano  # noqa: F401  # a fixture
from hypothesis import settings
from made_faces import faces  # noqa: F401  # a fixture
from numpy.typing import NDArray

# Without this variable, NNCF and OpenVINO's own converter start a process that reports their use over the network. If
# the variable is set, they report nothing
os.environ.setdefault("TF_BUILD", "tests of hih-align")

# no deadlines, because times on a shared machine vary; in CI always the same examples, so that a failure can be
# repeated
settings.register_profile("hih_align", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("hih_align")


@pytest.fixture(autouse=True)
def _threads_are_kept() -> Iterator[None]:
    """Fail a test that leaves another number of threads: the later tests of its process would be much slower.

    With pytest-xdist there are as many workers as cores, and threads that wait for a core keep others busy.
    """
    before = torch.get_num_threads()
    yield
    left = torch.get_num_threads()
    torch.set_num_threads(before)
    assert left == before, f"the test leaves {left} threads of PyTorch, expected {before} as before"


def pytest_configure(config: pytest.Config) -> None:
    """Limit the threads of the workers of pytest-xdist, and of the processes that tests start.

    Without the limit, every worker uses all cores. NumPy and PyTorch read it at their import, so it is set before the
    workers start.
    """
    if workers := getattr(config.option, "numprocesses", None):
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
            os.environ.setdefault(name, str(max(1, (os.cpu_count() or 1) // int(workers))))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Print the signal or the exit status that ended a worker of pytest-xdist. xdist does not print them."""
    popen = getattr(getattr(node.gateway, "_io", None), "popen", None)
    if error and popen is not None:
        with suppress(subprocess.TimeoutExpired):
            popen.wait(10)
        status = popen.returncode
        how = signal.Signals(-status).name if status is not None and status < 0 else f"exit status {status}"
        print(f"\n{node.gateway.id} died: {how}", file=sys.stderr)


def pytest_collection_finish() -> None:
    """Take what is loaded now out of the garbage collection, which would look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")


def shared_folder(checkout: Path) -> Path:
    """The folder ``shared`` beside a checkout.

    Without the folder the test is skipped; if HIH_ALIGN_REQUIRE_SHARED is set, the test fails.
    """
    folder = checkout.parent / "shared"
    if not folder.is_dir():
        reason = f"needs {folder}, which is not here"
        if os.environ.get("HIH_ALIGN_REQUIRE_SHARED"):  # `.ci/run` sets the variable; no other CI does
            pytest.fail(f"{reason}, and HIH_ALIGN_REQUIRE_SHARED is set", pytrace=False)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with data, weights and reference values beside the checkout, see `shared_folder`."""
    return shared_folder(Path(__file__).resolve().parents[1])


@pytest.fixture
def astronaut() -> NDArray[np.uint8]:
    """(512, 512, 3) uint8 RGB photograph of one face."""
    image: NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    return image


@pytest.fixture
def astronaut_box() -> tuple[float, float, float, float]:
    """Box of the astronaut's face, from the eyebrows to the chin."""
    return (177, 80, 275, 200)


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that imports the benchmarks' modules by name; they are not in a package."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "benchmarks"))
    return importlib.import_module
