"""`benchmarks/gpu_training.py` without a GPU: it times the trainer's steps and chooses the fastest configuration."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("accelerate")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "benchmarks")
    return importlib.import_module("gpu_training")


def test_steps_are_measured_and_written(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The steps run on the CPU.

    If a configuration fails, the report says so, and the other configurations are measured.
    """
    monkeypatch.setattr(benchmark, "FACES", 4)
    monkeypatch.setattr(benchmark, "profile", lambda steps: [{"name": "conv", "calls": 2.0, "share": 0.5}])
    assert not torch.cuda.is_available() or pytest.skip("would be measured on the GPU")
    monkeypatch.setattr(benchmark, "LEAST", {False: -1e9, True: 1e9})  # so that a slow machine measures, too
    ways = (("N", 2, False), ("X", 2, False), ("N", 2, True))
    benchmark.run(tmp_path / "out", 30.0, "here", ways, each=0.1, side=64)  # less time than a compilation takes
    report = json.loads((tmp_path / "out" / "gpu_training.json").read_text())
    first, second = report["rows"]
    assert (first["size"], first["batch"], first["compile"]) == ("HIH_N", 2, False)
    assert all(first[name] > 0 for name in ("step", "network_alone", "batch_alone", "start_seconds"))
    assert "size is 'X'" in second["error"]
    text = (tmp_path / "out" / "gpu_training.md").read_text()
    assert f"| HIH_N | 2 | False | {first['step']:,.0f} |" in text
    assert text in capsys.readouterr().out


def test_the_configuration_that_processes_most_faces_in_the_time_is_fastest(benchmark: Any) -> None:
    rows = [
        {"size": "HIH_T", "batch": 64, "compile": False, "step": 1000.0, "start_seconds": 1.0},
        {"size": "HIH_T", "batch": 64, "compile": "cudagraphs", "step": 1500.0, "start_seconds": 20.0},
        {"size": "HIH_T", "batch": 64, "compile": True, "step": 2000.0, "start_seconds": 80.0},
        {"size": "HIH_T", "batch": 256, "compile": False, "step": 9000.0, "start_seconds": 1.0},
        {"size": "HIH_B", "batch": 64, "compile": False, "step": 500.0, "start_seconds": 1.0},
        {"size": "HIH_B", "batch": 64, "compile": True, "error": "out of memory"},
    ]
    assert benchmark.fastest(rows, 120) == {"HIH_T": {"compile": "cudagraphs"}, "HIH_B": {"compile": False}}
    assert benchmark.fastest(rows, 30)["HIH_T"] == {"compile": False}
    assert benchmark.fastest(rows, 1000)["HIH_T"] == {"compile": True}
