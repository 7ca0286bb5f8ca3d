"""The package without its data files, inside a zip file, and as PyInstaller collects it."""

from __future__ import annotations

import json
import os
import runpy
import sys
import types
import zipfile
from pathlib import Path

import preloaded
import pytest

import hih_align
from hih_align import Config, FaceAligner, HIHNet, Scheme
from hih_align._pyinstaller import get_hook_dirs
from hih_align.cli.app import COMMANDS
from hih_align.hub.manifest import local_weights, manifest_path, read_manifest

if sys.version_info >= (3, 11):
    import tomllib

PACKAGE = Path(hih_align.__file__).parent

SCRIPT = """
import os, sys
os.chdir(folder)
sys.path.insert(0, place)
import hih_align
assert hih_align.__file__.startswith(place), hih_align.__file__
for name in models:
    try:
        print(hih_align.FaceAligner.from_pretrained(name, device="cpu"))
    except Exception as error:
        print(type(error).__name__, error)
"""


def use(place: Path, *models: object) -> list[str]:
    """The output for each model, one line each, from the package at ``place``."""
    names = {"place": str(place), "folder": str(place.parent), "models": [str(model) for model in models]}
    done = preloaded.run(exec, SCRIPT, names)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    scheme = Scheme("mine", ("a", "b"))
    FaceAligner(HIHNet(2, 1, width=0.25), Config(scheme, 1, width=0.25, name="mine/1"), device="cpu").save_pretrained(
        tmp_path / "own"
    )
    return tmp_path / "own"


@pytest.mark.parametrize("manifest", [False, True])
def test_in_a_zip_file(own: Path, tmp_path: Path, manifest: bool) -> None:
    """A user's own model folder needs none of the package's data; for a known name the error says what is missing."""
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in PACKAGE.rglob("*.py"):
            file.write(path, path.relative_to(PACKAGE.parent))
        if manifest:
            file.write(manifest_path(), "hih_align/weights_manifest.json")
    mine = [] if manifest else [own]  # loading imports PyTorch: once is enough
    *found, known, wrong = use(archive, *mine, "HIH_T/300w", "nothing")
    assert len(found) == len(mine)
    assert all(line.startswith("FaceAligner('mine/1': 2 points of mine") for line in found)
    if manifest:
        assert known.startswith("WeightsUnavailableError HIH_T/300w is not published")
        assert "'HIH_T/300w'" in wrong
    else:
        assert known.startswith("FileNotFoundError weights_manifest.json is missing: the package has no data files")
    assert wrong.startswith("ValueError model is 'nothing', expected one of ['HIH_")


def test_the_hook_of_pyinstaller(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = types.ModuleType("PyInstaller.utils.hooks")

    def data_files(name: str) -> list[tuple[str, str]]:
        """Like PyInstaller's function: all files that are not Python code, and the folders for them."""
        found = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
        return [(str(path), str(path.parent.relative_to(PACKAGE.parent))) for path in found]

    def submodules(name: str) -> list[str]:
        folder = PACKAGE.parent.joinpath(*name.split("."))
        return [f"{name}.{path.stem}" for path in folder.glob("*.py")]

    hooks.collect_data_files = data_files  # type: ignore[attr-defined]
    hooks.collect_submodules = submodules  # type: ignore[attr-defined]
    for name, module in (
        ("PyInstaller", types.ModuleType("PyInstaller")),
        ("PyInstaller.utils", types.ModuleType("PyInstaller.utils")),
        ("PyInstaller.utils.hooks", hooks),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    (folder,) = get_hook_dirs()
    made = runpy.run_path(str(Path(folder) / "hook-hih_align.py"))
    names = {(Path(source).name, target) for source, target in made["datas"]}
    assert {
        ("weights_manifest.json", "hih_align"),
        ("HIH_T_300w.safetensors", os.path.join("hih_align", "weights")),
    } <= names
    assert all(Path(source).is_file() for source, _ in made["datas"])
    assert {f"hih_align.cli{module}" for module in COMMANDS.values()} <= set(made["hiddenimports"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="reads pyproject.toml by tomllib")
def test_pyinstaller_finds_the_hook() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pyinstaller40"] == {"hook-dirs": "hih_align._pyinstaller:get_hook_dirs"}


def test_weights_are_found_in_the_checkout_that_is_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package finds the larger networks when it runs inside a checkout."""
    row = read_manifest()["HIH_S/300w"]
    installed = tmp_path / "site-packages" / "weights_manifest.json"
    installed.parent.mkdir()
    installed.write_bytes(manifest_path().read_bytes())
    monkeypatch.setattr("hih_align.hub.manifest.manifest_path", lambda: installed)
    (tmp_path / "checkout" / "weights").mkdir(parents=True)
    (tmp_path / "checkout" / "weights" / row.file).touch()
    monkeypatch.chdir(tmp_path / "checkout")
    assert local_weights(row) is None, "no checkout: it has no manifest"
    (tmp_path / "checkout" / "weights_manifest.json").write_text(json.dumps({"checkpoints": []}))
    assert local_weights(row) == tmp_path / "checkout" / "weights" / row.file
