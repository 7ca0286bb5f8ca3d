"""What a checkout's scripts and CI depend on. `.ci/run` itself runs the scripts."""

from __future__ import annotations

import os
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
