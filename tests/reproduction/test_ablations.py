"""`reproduction.ablations`: how its runs are started. The runs themselves take hours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("accelerate")
from reproduction.ablations import run as ablations


def test_a_run_is_started_in_the_working_directory_until_it_has_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The paths of the command are relative to this directory, which need not be the checkout."""
    find = "assert find_spec('reproduction.ablations.run') and find_spec('hih_align')"  # an import takes two seconds
    script = f"import os; from importlib.util import find_spec; {find}; print(os.getcwd())"
    real = subprocess.run

    def instead(words: list[str], **options: Any) -> Any:
        return real([sys.executable, "-c", script], **options)

    monkeypatch.setattr("subprocess.run", instead)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    run, log = ablations.VARIANTS[0], tmp_path / "out" / "baseline.log"
    ablations.train(run, "data.json", "val.json", "out", 1)
    assert log.read_text().splitlines() == [str(tmp_path)]
    script = "import os; print(os.getcwd())"
    (tmp_path / "out" / run.name / "last").mkdir(parents=True)  # a killed run may leave it empty
    ablations.train(run, "data.json", "val.json", "out", 1)
    assert len(log.read_text().splitlines()) == 2
    (tmp_path / "out" / run.name / "last" / "model.safetensors").touch()
    ablations.train(run, "data.json", "val.json", "out", 1)
    assert len(log.read_text().splitlines()) == 2
    script = "raise SystemExit(1)"
    with pytest.raises(RuntimeError, match=r"the run hih failed: see .*hih\.log"):
        ablations.train(ablations.VARIANTS[-1], "data.json", "val.json", "out", 1)


def test_an_unknown_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"only is 'none', expected one of .*'trunk'"):
        ablations.main("data.json", "val.json", tmp_path, only="none")
