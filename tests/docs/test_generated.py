"""The generated parts of the pages (rooms, names, models) match the code, and the picture of the rooms is right."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_tool", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_are_up_to_date(docs: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main(check=True) == 0, f"{capsys.readouterr().out}: run python tools/docs.py"


def test_the_picture_shows_the_imports(docs: ModuleType) -> None:
    """Every import between rooms follows from the arrows in the page's picture, and each arrow is an import."""
    picture = (ROOT / "docs" / "house.md").read_text("utf-8").split("```mermaid", 1)[1].split("```", 1)[0]
    names = dict(re.findall(r'^ +(r\d+)\["(.+)"\]$', picture, re.MULTILINE))
    drawn = {(names[a], names[b]) for a, b in re.findall(r"^ +(r\d+) --> (r\d+)$", picture, re.MULTILINE)}
    imported = docs.imports()
    assert drawn <= imported
    for importing, target in imported:
        assert target in docs._reachable(importing, drawn)
    assert ("cli", "evaluation") in imported
    assert not any(target == "cli" for _, target in imported)


def test_only_imports_that_run_when_a_module_is_loaded_count(docs: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "house"
    for name in ("cellar", "attic", "loft"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (package / "attic" / "box.py").write_text(
        "from typing import TYPE_CHECKING\nfrom ..cellar import thing\nfrom . import other\nimport house.wall\n"
        "if TYPE_CHECKING:\n    from ..loft import Type\n\ndef later():\n    from ..loft import thing\n"
    )
    (package / "wall.py").write_text("try:\n    from .cellar.deep import x\nexcept ImportError:\n    x = None\n")
    assert docs.imports(package) == {("attic", "cellar"), ("attic", "wall"), ("wall", "cellar")}


def test_arrows_that_other_arrows_imply_are_left_out(docs: ModuleType) -> None:
    edges = frozenset({("a", "b"), ("b", "c"), ("a", "c"), ("c", "d"), ("a", "d")})
    assert docs.reduced(edges) == {("a", "b"), ("b", "c"), ("c", "d")}


def test_an_outdated_table_is_rewritten(docs: ModuleType) -> None:
    text = "before\n<!-- begin: names-cofw -->\nold\n<!-- end: names-cofw -->\nafter\n"
    new = docs.rewritten(text)
    assert new.startswith("before\n<!-- begin: names-cofw -->\n| index | name |")
    assert "| 20 | `nose_tip` |" in new
    assert new.endswith("<!-- end: names-cofw -->\nafter\n")
    assert docs.rewritten(new) == new
