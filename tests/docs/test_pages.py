"""The README and the documentation are correct: code runs, commands exist, links and pictures exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pages
import preloaded
import pytest

pytest.importorskip("skimage", reason="the pages' photograph is scikit-image's: pip install 'hih-align[examples]'")


def _name(page: Path) -> str:
    return str(page.relative_to(pages.ROOT))


def _has_code(page: Path) -> bool:
    return any(block.runs and block.language in ("python", "bash") for block in pages.blocks(page))


PAGES = pages.pages()


@pytest.mark.parametrize("page", [page for page in PAGES if _has_code(page)], ids=_name)
def test_blocks_run(page: Path) -> None:
    done = preloaded.run(pages.main, str(page))
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_options_and_syntax_exist(page: Path) -> None:
    assert [problem for block in pages.blocks(page) for problem in pages.problems(block)] == []


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_titles_say_why_a_block_is_not_run(page: Path) -> None:
    for block in pages.blocks(page):
        if block.language in ("python", "bash") and block.title:
            assert re.fullmatch(r"\w+\.py|needs \S.*|not run: \S.*", block.title), block.where


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_blocks_whose_needs_are_missing(page: Path) -> None:
    lacking = [(block.line, thing) for block in pages.blocks(page) for thing in block.needs if pages.missing(thing)]
    if lacking:
        pytest.skip("; ".join(f"line {line} needs {thing}" for line, thing in lacking))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_and_pictures_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|mailto:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


# each check can fail


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("hih-align alijn photo.jpg", "no command 'alijn'"),
        ("hih-align align photo.jpg --bbocks 1 2 3 4", "no option --bbocks"),
        ("hih-align data chek x.json", "no command 'data chek'"),
        ('pip install ".[nothing]"', "no extra 'nothing'"),
        ("python examples/gone.py", "no such file: examples/gone.py"),
        ("python examples/fine_tune.py --face x", "no option --face"),
        ("python -m reproduction.gone", "no such file: reproduction/gone.py"),
        ("python -m reproduction.quantization --dat x", "no option --dat"),
        ("scripts/gone", "no such file: scripts/gone"),
        ("frobnicate photo.jpg", "no such program: frobnicate"),
        ("A=1 hih-align models | hih-align modells", "no command 'modells'"),
    ],
)
def test_names_that_do_not_exist_are_reported(text: str, problem: str) -> None:
    block = pages.Block(pages.ROOT / "README.md", 1, "bash", "", text + "\n")
    assert any(found.endswith(problem) for found in pages.problems(block))


def test_an_error_names_the_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nx = 1\nassert x == 2\n```\n")
    done = subprocess.run([sys.executable, pages.__file__, str(page)], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert f'"{page}", line 5' in done.stderr


def test_the_readme_is_short() -> None:
    assert len((pages.ROOT / "README.md").read_bytes()) <= 6000
