"""The notebooks of examples/ run from the first cell to the last, and their files are small."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel: pip install 'hih-align[test]'")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install 'hih-align[test]'")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel: pip install 'hih-align[test]'")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def executed(path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path, parameters: str = "") -> Any:
    """The notebook after a run, with its new outputs. ``parameters`` are added to the cell with this tag."""
    notebook = nbformat.read(path, as_version=4)
    # as in a fresh checkout: the working directory is the notebook's folder
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(shared / "weights"))
    if parameters:
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
        cell.source += f"\n{parameters}"
    client = nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    return notebook


def text(notebook: Any) -> str:
    """All text that the cells have printed or shown."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_quickstart(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    notebook = executed(ROOT / "examples" / "quickstart.ipynb", monkeypatch, shared)
    assert "(68, 2) float32" in text(notebook)
    assert "1 face" in text(notebook)
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "image/jpeg" in output.get("data", {})
    ]
    assert len(pictures) == 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_small_and_has_its_outputs(path: Path) -> None:
    assert path.stat().st_size <= 300_000
    cells = [cell for cell in json.loads(path.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in cells)
    problems = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert problems == []


def nme(notebook: Any, name: str) -> float:
    """The NME that a notebook prints for a model."""
    line = next(line for line in text(notebook).splitlines() if line.startswith(f"{name}: NME "))
    return float(line.split()[2])


def test_fine_tune_and_share(monkeypatch: pytest.MonkeyPatch, shared: Path, tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        for name, value in hub.client_env(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        notebook = executed(
            ROOT / "examples" / "fine_tune.ipynb",
            monkeypatch,
            shared,
            'FACES, EPOCHS, REPOSITORY = 8, 1, "user/my-landmarks"',
        )
        commit = hub.repos["user/my-landmarks"].find("main")
    assert commit is not None
    assert {"config.json", "model.safetensors", "README.md"} <= set(commit.files)
    assert nme(notebook, "adapted") < 4
    assert nme(notebook, "fine-tuned") < 4
    written = nbformat.read(ROOT / "examples" / "fine_tune.ipynb", as_version=4)
    assert nme(written, "fine-tuned") < 4  # what a reader sees is of a run that went well
