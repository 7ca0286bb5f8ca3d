"""The code blocks of the README and of the documentation's pages, checked and run as a reader would run them.

    python tests/docs/pages.py docs/boxes.md        (runs one page, in a new temporary folder)

The mark of a fenced block says what happens to the block:

* no mark: the block is run. All Python blocks of a page share one namespace. In bash blocks only `hih-align` is run.
* ``title="NAME.py"``: the block is written to that file, and Python runs the file as a program.
* ``title="NAME.EXT"``: the block is written to that file.
* ``needs THING, ...``: the block is run if these modules can be imported and these files are on the machine.
* ``not run: WHY``: a Python block is compiled. A bash block is checked for commands and options that do not exist.

Pages are run with the changes of `QUICKER`, except those of `AS_WRITTEN`.

The marks ``needs`` and ``not run`` stand in the title, which readers see, or in a comment ``<!-- ... -->`` before the
block, which readers do not see.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image

ROOT = Path(__file__).resolve().parents[2]

#: Folders of files that the pages name and the repository does not hold.
FILES = (ROOT.parent / "shared" / "weights", Path(os.environ.get("HIH_ALIGN_WEIGHTS") or os.devnull))

#: What is replaced in blocks before they run, because the pages are about calls and commands: HIH_N takes a tenth of
#: the time of HIH_T, and each process of a pool loads PyTorch.
QUICKER = {"HIH_T": "HIH_N", "Pool(2,": "Pool(1,"}

#: The options that take the same network in commands whose default it is not.
_NETWORK = {"align": ["--model", "HIH_N"], "video": ["--model", "HIH_N"], "scheme": ["--init", "HIH_N/300w"]}

#: Pages that are run as they stand. What they say of scores holds for HIH_T.
AS_WRITTEN = {ROOT / "README.md", ROOT / "docs" / "scores.md"}

_BLOCK = re.compile(
    r'(?:^<!-- ((?:needs|not run:) [^\n]*) -->\n+)?^```(\w+)(?: title="([^"]*)")?[^\n]*\n(.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")

#: Programs that pages may name; their options are not checked.
_OTHERS = {"git", "mypy", "python", "python3", "pytest", "ruff", "zensical", "pre-commit", "export", "cd", "accelerate"}
_OTHERS |= {"jupyter"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its page and first line, its language, its mark ("" for none) and its text."""

    page: Path
    line: int
    language: str
    title: str
    text: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> list[str]:
        return re.split(r",\s*", self.title[len("needs ") :]) if self.title.startswith("needs ") else []

    @property
    def runs(self) -> bool:
        return not self.title.startswith("not run: ") and not any(map(missing, self.needs))


def pages() -> list[Path]:
    """The README, CONTRIBUTING and every page of docs/."""
    docs = sorted(page for page in (ROOT / "docs").rglob("*.md") if not page.is_symlink())
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, match.start(4)) + 1, match[2], match[1] or match[3] or "", match[4])
        for match in _BLOCK.finditer(text)
    ]


def missing(thing: str) -> bool:
    """Whether a module cannot be imported, or a file is in no folder of `FILES`."""
    if "." in thing:
        return not any((folder / thing).is_file() for folder in FILES)
    return importlib.util.find_spec(thing) is None


def run(page: Path) -> None:
    """Run a page's blocks in the working directory, where ``photo.jpg`` (scikit-image's astronaut) is written first."""
    import skimage.data

    astronaut: Any = skimage.data.astronaut
    PIL.Image.fromarray(astronaut()).save("photo.jpg", quality=95)
    names: dict[str, Any] = {"__name__": "__page__"}
    written = page in AS_WRITTEN
    for block in blocks(page):
        text = block.text if written else quicker(block.text)
        for thing in block.needs:
            for folder in FILES:
                if (folder / thing).is_file():
                    shutil.copy(folder / thing, thing)
                    os.environ["HIH_ALIGN_WEIGHTS"] = os.getcwd()
        if re.fullmatch(r"\w+\.\w+", block.title):
            Path(block.title).write_text(text, "utf-8")
            if block.title.endswith(".py"):
                runpy.run_path(os.path.abspath(block.title), run_name="__main__")
        elif not block.runs:
            continue
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + text, str(block.page), "exec"), names)
        elif block.language == "bash":
            for words in commands(text):
                if words[0] == "hih-align":
                    _program(block, words[1:] + ([] if written else _NETWORK.get(words[1], [])))


def quicker(text: str) -> str:
    """A block's text, or a notebook's cell, with the changes of `QUICKER`."""
    for given, taken in QUICKER.items():
        text = text.replace(given, taken)
    return text


def _program(block: Block, words: list[str]) -> None:
    """Run `hih-align` in this process, because a new process would load PyTorch again."""
    from hih_align.cli.app import app

    try:
        app(words)
    except SystemExit as error:
        if error.code:
            raise RuntimeError(f"{block.where}: hih-align {shlex.join(words)}: exit status {error.code}") from error


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a bash block as words, without assignments before them."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        words = shlex.split(line, comments=True)
        for command in _split(words):
            while command and _ASSIGNMENT.match(command[0]):
                command = command[1:]
            if command:
                yield command


def _split(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in words:
        if word in ("&&", "|", ";"):
            yield command
            command = []
        else:
            command.append(word)
    yield command


def problems(block: Block) -> Iterator[str]:
    """Everything wrong in a block: Python's syntax errors, and commands, options and extras that do not exist."""
    if block.language == "python":
        try:
            ast.parse(block.text)
        except SyntaxError as error:
            yield f"{block.where}: {error}"
    if block.language == "bash":
        for words in commands(block.text):
            for problem in _problems(words):
                yield f"{block.where}: {shlex.join(words)}: {problem}"


def _problems(words: list[str]) -> Iterator[str]:
    program, arguments = Path(words[0]).name if words[0].startswith(".venv") else words[0], words[1:]
    if "hih_align" in arguments:
        program, arguments = "hih-align", arguments[arguments.index("hih_align") + 1 :]
    options = {word.split("=")[0] for word in arguments if word.startswith("--")}
    scripts = [word for word in words if word.endswith(".py")]
    if words[1:2] == ["-m"] and words[2].startswith("reproduction."):
        scripts = [words[2].replace(".", "/") + ".py"]
    if program == "hih-align":
        yield from _of_program(arguments, options)
    elif program == "pip":
        extras = set(_extras())
        for word in arguments:
            if match := re.fullmatch(r"(?:\.|hih-align)\[([\w,-]+)\]", word):
                yield from (f"no extra {name!r}" for name in match[1].split(",") if name not in extras)
    elif program.startswith(("scripts/", "tools/", "benchmarks/")):
        if not (ROOT / program).is_file():
            yield f"no such file: {program}"
    elif program in ("python", "python3") and scripts:
        known = {"--help"}
        for script in scripts:
            if (ROOT / script).is_file():
                known |= _options(ROOT / script)
            elif "/" in script:
                yield f"no such file: {script}"
        if "/" in scripts[0]:
            yield from (f"no option {option}" for option in sorted(options - known))
    elif program not in _OTHERS:
        yield f"no such program: {program}"


def _of_program(arguments: list[str], options: set[str]) -> Iterator[str]:
    import typer.main

    from hih_align.cli.app import app

    command: Any = typer.main.get_command(app)
    context = command.context_class(command)
    path = []
    for word in arguments:
        if not hasattr(command, "get_command"):
            break
        path.append(word)
        if word not in command.list_commands(context):
            yield f"no command {' '.join(path)!r}"
            return
        command = command.get_command(context, word)
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    yield from (f"no option {option}" for option in sorted(options - known - {"--help"}))


@cache
def _options(script: Path) -> frozenset[str]:
    """The options that a script defines: strings given to argparse, or parameters of a typer command."""
    tree = ast.parse(script.read_text("utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return frozenset({text for text in texts if text.startswith("--")} | {f"--{n.replace('_', '-')}" for n in names})


@cache
def _extras() -> frozenset[str]:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    table = text.split("[project.optional-dependencies]", 1)[1].split("\n[", 1)[0]
    return frozenset(re.findall(r"^([\w-]+) = \[", table, re.MULTILINE))


def main(page: str) -> None:
    path = Path(page).resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory(prefix="hih-align-page-") as folder:
        os.chdir(folder)
        try:
            run(path)
        finally:
            os.chdir(ROOT)


if __name__ == "__main__":
    main(sys.argv[1])
