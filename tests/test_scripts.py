"""What a checkout's scripts and CI depend on. `.ci/run` itself runs the scripts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from conftest import shared_folder

ROOT = Path(__file__).resolve().parents[1]


def test_only_the_projects_own_ci_requires_the_shared_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("HIH_ALIGN_REQUIRE_SHARED", raising=False)
    with pytest.raises(pytest.skip.Exception, match="which is not here"):
        shared_folder(checkout)
    monkeypatch.setenv("HIH_ALIGN_REQUIRE_SHARED", "1")
    with pytest.raises(pytest.fail.Exception, match="HIH_ALIGN_REQUIRE_SHARED is set"):
        shared_folder(checkout)
    (tmp_path / "shared").mkdir()
    assert shared_folder(checkout) == tmp_path / "shared"


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test"])
def test_the_scripts_in_the_readme_are_those_that_ci_runs(name: str) -> None:
    readme, ci = (ROOT / "README.md").read_text("utf-8"), (ROOT / ".ci" / "run").read_text("utf-8")
    assert [line for line in readme.splitlines() if line.split()[:1] == [name]]
    assert [line for line in ci.splitlines() if line.split()[-1:] == [name] and not line.startswith("step")]
    assert os.access(ROOT / name, os.X_OK)


def test_an_editable_install_is_repeated_only_if_something_else_is_to_be_installed(tmp_path: Path) -> None:
    """With programs in place of Python and pip, which say that they ran."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in {"python": "", "pip": 'echo "$@" >> calls'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    project = tmp_path / "pyproject.toml"
    project.write_text("[project]\n")

    def installs(*what: str) -> list[str]:
        (tmp_path / "calls").write_text("")
        script = 'source "$0"; environment venv "$@"'
        subprocess.run(["bash", "-euc", script, ROOT / "scripts" / "environment.sh", *what], cwd=tmp_path, check=True)
        return [line for line in (tmp_path / "calls").read_text().splitlines() if "torch==" not in line]

    assert installs("-e", ".[test]") == ["install -q -e .[test]"]
    assert installs("-e", ".[test]") == []
    assert installs("-e", ".[test,ray]") == ["install -q -e .[test,ray]"]
    project.write_text("[project]\ndependencies = []\n")
    assert installs("-e", ".[test,ray]") == ["install -q -e .[test,ray]"]
    assert installs(".") == installs(".") == ["install -q ."]  # a copy does not follow the checkout
