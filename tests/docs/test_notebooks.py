"""The notebooks of examples/ run from the first cell to the last, and their files are small."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub
from pages import quicker

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel: pip install 'hih-align[test]'")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install 'hih-align[test]'")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel: pip install 'hih-align[test]'")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


def executed(notebooks: Mapping[str, str]) -> list[Any]:
    """The notebooks of these names after a quicker run, with their new outputs.

    The values are lines that are added to the cell with the tag "parameters". All notebooks run in one kernel, because
    each kernel would load PyTorch. Each of them begins without the names of those before it.
    """
    read, cells = [], []
    for name, parameters in notebooks.items():
        notebook = nbformat.read(EXAMPLES / name, as_version=4)
        for cell in notebook.cells:
            cell.source = quicker(cell.source)
            if "parameters" in cell.metadata.get("tags", ()):
                cell.source += f"\n{parameters}"
        read.append(notebook)
        cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    for number, cell in enumerate(cells):  # two notebooks may have the same
        cell.id = f"cell-{number}"
    together = nbformat.v4.new_notebook(cells=cells, metadata=read[0].metadata)
    # as in a fresh checkout: the working directory is the notebooks' folder
    nbclient.NotebookClient(together, timeout=900, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    return read


def text(notebook: Any) -> str:
    """All text that the cells have printed or shown."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


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


def test_the_notebooks_run(monkeypatch: pytest.MonkeyPatch, shared: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(shared / "weights"))
    with LoopbackHub() as hub:
        for name, value in hub.client_env(tmp_path).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        parameters = 'FACES, EPOCHS, REPOSITORY = 8, 1, "user/my-landmarks"'
        quickstart, fine_tune = executed({"quickstart.ipynb": "", "fine_tune.ipynb": parameters})
        commit = hub.repos["user/my-landmarks"].find("main")

    assert "(68, 2) float32" in text(quickstart)
    assert "1 face" in text(quickstart)
    pictures = [
        output
        for cell in quickstart.cells
        for output in cell.get("outputs", ())
        if "image/jpeg" in output.get("data", {})
    ]
    assert len(pictures) == 4

    assert commit is not None
    assert {"config.json", "model.safetensors", "README.md"} <= set(commit.files)
    assert nme(fine_tune, "adapted") < 4
    assert nme(fine_tune, "fine-tuned") < 4
    written = nbformat.read(EXAMPLES / "fine_tune.ipynb", as_version=4)
    assert nme(written, "fine-tuned") < 4  # what a reader sees is of a run that went well
