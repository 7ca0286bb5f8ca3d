"""A network that is converted once for each runtime, because a conversion takes seconds in every test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from hih_align import FaceAligner, export
from hih_align.hub.checkpoints import WEIGHTS_FILE, save_weights


@pytest.fixture(scope="session")
def converted_nano(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A function: runtime -> the model's name for ``from_pretrained``, to run HIH_N/300w in this runtime.

    For a runtime that would convert the network, the name is a folder with the exported network. Without
    ``weights`` the folder holds no weights, and PyTorch is not loaded.
    """

    aligner = FaceAligner.from_pretrained("HIH_N/300w", device="cpu")

    @cache
    def exported(backend: str) -> Path:
        pytest.importorskip(backend)
        out = tmp_path_factory.mktemp("nano") / backend
        return export.export(aligner, out, "onnx" if backend == "onnxruntime" else "openvino").folder

    @cache
    def with_weights(backend: str) -> Path:  # heatmaps need the weights
        out = shutil.copytree(exported(backend), tmp_path_factory.mktemp("nano") / backend)
        save_weights(aligner.network, out / WEIGHTS_FILE, correction=aligner.config.correction)
        return out

    def name(backend: str, weights: bool = True) -> str:
        if backend == "torch":
            return "HIH_N/300w"
        return str(with_weights(backend) if weights else exported(backend))

    return name
