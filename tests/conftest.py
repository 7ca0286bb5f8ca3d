from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import settings
from made_faces import faces  # noqa: F401  # a fixture
from numpy.typing import NDArray

# under pytest-xdist every worker would take all cores for itself
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))

# a shared machine is no stopwatch; and what CI finds must be there when it is looked for
settings.register_profile("hih_align", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("hih_align")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data, weights and reference values beside the checkout. Without it a test skips; in CI it fails."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        reason = f"needs {folder}, which is not here"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}: CI must not pass without it", pytrace=False)
        pytest.skip(reason)
    return folder


@pytest.fixture
def astronaut() -> NDArray[np.uint8]:
    """(512, 512, 3) uint8 RGB photograph of one face."""
    image: NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    return image


@pytest.fixture
def astronaut_box() -> tuple[float, float, float, float]:
    """Box of the astronaut's face, brow to chin."""
    return (177, 80, 275, 200)
