"""The rooms of the package: which rooms may import which, what an import loads, and where old import paths lead."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import preloaded
import pytest

import hih_align
from hih_align._moved import MOVED

PACKAGE = Path(hih_align.__file__).parent

#: Rooms and modules from the bottom to the top. A room may import rooms on the lines above its own and on its own line.
STOREYS = (
    ("files", "progress", "quiet", "signals", "tensors", "_moved", "_pyinstaller"),
    ("schemes", "crops"),
    ("method", "images", "boxes", "roll", "scores"),
    ("hub", "landmarks", "interchange", "drawing", "stream", "video"),
    ("runtime",),
    ("detection", "passes"),
    ("aligner",),
    ("tracking",),
    ("data",),
    ("evaluation",),
    ("export",),
    ("training",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}


def modules() -> Iterator[tuple[str, Path]]:
    """Dotted names of the package's modules (without the package's name), and their files."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(name: str, path: Path) -> Iterator[tuple[str, int]]:
    """The modules of the package that a module imports, also inside functions. Imports only for types do not count."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    base = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        above = [part for part in base if part][: len(base) - (node.level - 1)]
        target = [*above, *((node.module or "").split(".") if node.module else [])]
        for alias in node.names:
            yield (target or [alias.name])[0], node.lineno


def test_every_room_has_its_storey() -> None:
    rooms = {name.split(".")[0] for name, _ in modules() if name}
    assert rooms <= set(LEVEL), f"say in STOREYS where {sorted(rooms - set(LEVEL))} belong"


def test_arrows_point_one_way() -> None:
    wrong = [
        f"{name}:{line} imports {target}"
        for name, path in modules()
        if name
        for target, line in imports(name, path)
        if target in LEVEL and LEVEL[target] > LEVEL[name.split(".")[0]]
    ]
    assert wrong == []


def test_a_file_above_400_lines_says_why() -> None:
    long = [path for _, path in modules() if len(path.read_text("utf-8").splitlines()) > 400]
    silent = [p.name for p in long if "400 lines" not in (ast.get_docstring(ast.parse(p.read_text("utf-8"))) or "")]
    assert silent == [], "split the file, or say in its docstring why it has more than 400 lines"


def loaded(code: str, pytorch: bool = False) -> tuple[set[str], set[str]]:
    """The modules that a new process has loaded after ``code``: rooms of the package, and other packages.

    Args:
        pytorch: whether PyTorch and the packages of `preloaded` may be loaded before.
    """
    script = f"import json, sys\n{code}\nprint(json.dumps(list(sys.modules)))"
    if pytorch:
        done: Any = preloaded.run(exec, script, {})
        assert done.returncode == 0, done.stderr
    else:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    names = json.loads(done.stdout.splitlines()[-1])
    own = {name.split(".")[1] for name in names if name.startswith("hih_align.")}
    return own, {name.split(".")[0] for name in names}


def test_an_import_loads_only_what_aligning_needs() -> None:
    rooms, packages = loaded("import hih_align")
    assert not rooms & {"data", "evaluation", "export", "training", "demo", "cli"}
    # only networks need PyTorch: an exported file runs without it (tests/runtime/test_without_torch.py)
    assert not packages & {"torch", "safetensors", "huggingface_hub", "onnxruntime", "openvino", "matplotlib", "scipy"}
    assert hih_align.metrics is import_module("hih_align.evaluation.metrics")


def test_the_command_and_the_runtimes_do_not_import_pytorch() -> None:
    runtimes = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
    checks = [
        f"import hih_align.{name}; assert 'torch' not in sys.modules, {name!r}"
        for name in ("cli.align", *(f"runtime.{name}" for name in runtimes))
    ]
    _, packages = loaded("; ".join(checks))
    assert {*runtimes} <= packages


def test_importing_the_pytorch_runtime_does_not_import_its_compiler() -> None:
    """The import of PyTorch's compiler (with sympy) takes as long as the import of PyTorch itself."""
    _, packages = loaded("import hih_align.runtime.pytorch", pytorch=True)
    assert "torch" in packages
    assert "sympy" not in packages


@pytest.mark.parametrize("old", MOVED)
def test_old_paths_lead_to_the_new_modules_and_warn(old: str) -> None:
    new = import_module(f"hih_align.{MOVED[old]}")
    sys.modules.pop(f"hih_align.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"hih_align\.{old} is now {new.__name__}"):
        found = import_module(f"hih_align.{old}")
    assert found is new
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__


def test_text_is_written_as_utf_8() -> None:
    """Without an encoding, Windows writes the letters of its language, and no others."""
    root = PACKAGE.parent
    paths = [
        path for room in ("hih_align", "reproduction", "tools", "benchmarks") for path in (root / room).rglob("*.py")
    ]
    texts = [(path, path.read_text("utf-8")) for path in paths]
    calls = [(path, node) for path, text in texts if "write_text" in text for node in ast.walk(ast.parse(text))]
    written = [
        (path.name, node.lineno, len(node.args) + len(node.keywords))
        for path, node in calls
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write_text"
    ]
    assert len(written) > 20
    assert [place for place in written if place[2] < 2] == []
