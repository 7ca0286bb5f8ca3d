"""Write the parts of the README and the documentation that follow from the code: rooms, landmark names, models.

    python tools/docs.py            writes the blocks between "begin" and "end" comments of the pages
    python tools/docs.py --check    writes nothing; the exit status is 1 if a block is out of date

A test runs the second command. Run the first one after a change of imports, schemes or `weights_manifest.json`.
"""

from __future__ import annotations

import ast
import json
import math
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hih_align"

#: Small modules that the picture shows as one room.
SHARED = ("boxes", "crops", "drawing", "files", "images", "progress", "roll", "scores", "stream")
SHARED_ROOM = "images, boxes, crops"

#: The rooms from bottom to top of the picture. Rooms that are not named follow at the end.
ORDER = (
    "schemes",
    SHARED_ROOM,
    "method",
    "landmarks",
    "hub",
    "runtime",
    "aligner",
    "data",
    "evaluation",
    "training",
    "cli",
)

Edges = frozenset[tuple[str, str]]


def room(name: str) -> str:
    return SHARED_ROOM if name in SHARED else name


def imports(package: Path = PACKAGE) -> Edges:
    """(importing room, imported room) for every import that runs when a module is loaded."""
    found = set()
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] in ("__init__", "__main__"):
            continue  # the public names, which come from every room, and the start of the program
        own = room(parts[0])
        inside = list(parts[:-1])
        for node in _loaded(ast.parse(path.read_text("utf-8"))):
            for target in _targets(node, inside, package.name):
                if target and (package / target).exists() | (package / f"{target}.py").exists() and room(target) != own:
                    found.add((own, room(target)))
    return frozenset(found)


def _loaded(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports outside functions and outside ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _loaded(other)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _loaded(node)


def _targets(node: ast.Import | ast.ImportFrom, inside: list[str], package: str) -> Iterator[str]:
    """The first names below the package that an import loads."""
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
    else:
        base = node.module.split(".") if node.module else []
        if node.level:
            base = [package, *inside[: len(inside) - node.level + 1], *base]
        names = [[*base, alias.name] for alias in node.names]
    for name in names:
        if name[0] == package and len(name) > 1:
            yield name[1]


def reduced(edges: Edges) -> Edges:
    """The arrows without those that follow from others."""
    kept = set(edges)
    for edge in sorted(edges):
        rest = kept - {edge}
        if edge[1] in _reachable(edge[0], rest):
            kept = rest
    return frozenset(kept)


def _reachable(start: str, edges: set[tuple[str, str]]) -> set[str]:
    after = defaultdict(set)
    for a, b in edges:
        after[a].add(b)
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for name in after[waiting.pop()] - found:
            found.add(name)
            waiting.append(name)
    return found


def rooms() -> str:
    """The picture of the rooms, and a table of their content."""
    edges = imports()
    names = sorted({name for edge in edges for name in edge}, key=lambda n: (ORDER.index(n) if n in ORDER else 99, n))
    keys = {name: f"r{n}" for n, name in enumerate(names)}
    lines = ["```mermaid", "flowchart TD"]
    lines += [f'  {keys[name]}["{name}"]' for name in reversed(names)]
    lines += [f"  {keys[a]} --> {keys[b]}" for a, b in sorted(reduced(edges), key=lambda e: (names.index(e[0]), e))]
    lines += ["```", "", "| room | what stands in it |", "| --- | --- |"]
    packages = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
    modules = sorted(path for path in PACKAGE.glob("*.py") if path.name != "__init__.py")
    lines += [f"| `{path.name}/` | {_summary(path / '__init__.py')} |" for path in packages]
    lines += [f"| `{path.name}` | {_summary(path)} |" for path in modules]
    return "\n".join(lines)


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.replace("|", "\\|")


def names(scheme_id: str, columns: int = 3) -> str:
    """A table of the landmarks of a scheme: index and name, in ``columns`` pairs of columns."""
    from hih_align.schemes import SCHEMES

    found = SCHEMES[scheme_id].names
    rows = -(-len(found) // columns)
    lines = ["| " + " | ".join(["index | name"] * columns) + " |", "| " + " | ".join(["---"] * (2 * columns)) + " |"]
    for row in range(rows):
        cells = [(str(i), f"`{found[i]}`") if i < len(found) else ("", "") for i in range(row, rows * columns, rows)]
        lines.append("| " + " | ".join(f"{index} | {name}" for index, name in cells) + " |")
    return "\n".join(lines)


#: The columns of the table of models, and the metric of the manifest that each shows.
COLUMNS = {
    "NME": ("NME inter-ocular", "NME inter-ocular, full-set estimate"),
    "NME, the paper's argmax": (
        "NME inter-ocular, the paper's argmax",
        "NME inter-ocular, the paper's argmax, full-set estimate",
    ),
    "FR10": ("FR10", "FR10, full-set estimate"),
}

#: The names of data sets in tables.
DATASETS = {
    "300w_test_lfpw": "`300w_test_lfpw`, 224 faces",
    "wflw_dev (reporting part)": "`wflw_dev`, 202 faces, estimate of the whole test set",
}


def models() -> str:
    """The table of models, from the manifest and the paper's figures."""
    return _models(True)


def models_short() -> str:
    """The table of models for the README, with fewer columns."""
    return _models(False)


def _models(whole: bool) -> str:
    wanted = COLUMNS if whole else {"NME": COLUMNS["NME"]}
    titles = [*(["measured on"] if whole else []), *wanted, "NME of the paper"]
    header = ["model", "points", "parameters", "file", *titles]
    lines = ["| " + " | ".join(header) + " |", "| " + " | ".join(["---"] * len(header)) + " |"]
    for row in _manifest():
        cells = [f"`{row['id']}`", str(row["landmarks"]), _parameters(row["file"]), f"{row['bytes'] / 1e6:.0f} MB"]
        if whole:
            cells.append(DATASETS[row["metrics"][0]["dataset"]] if row["metrics"] else "-")
        for title, metrics in wanted.items():
            value = next((m["value"] for m in row["metrics"] if m["metric"] in metrics), None)
            cells.append("-" if value is None else f"{value:.1f}" if title == "FR10" else f"{value:.2f}")
        cells.append(_of_the_paper(row["size"], row["scheme"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _parameters(file: str) -> str:
    """Number of weights in a safetensors file, without the running statistics of batch norm and the correction."""
    path = next(folder / file for folder in (PACKAGE / "weights", ROOT / "weights") if (folder / file).is_file())
    with path.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    kept = (row for name, row in header.items() if "shape" in row and not name.endswith((*STATISTICS, "correction")))
    return f"{sum(math.prod(row['shape']) for row in kept) / 1e6:.1f} M"


#: Last parts of the names of batch norm's running statistics.
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def _of_the_paper(size: str, scheme: str) -> str:
    """The paper's NME: on the common set of 300W, on the full set of WFLW."""
    from reproduction.paper import W300, WFLW

    value = {"300w": {s: v[1] for s, v in W300.items()}, "wflw": {s: v["nme"][0] for s, v in WFLW.items()}}
    found = value.get(scheme, {}).get(size)
    return "-" if found is None else f"{found:.2f}"


#: The kinds of boxes, and the metric of the manifest that was measured with them.
BOXES = {
    "annotated: tight around the points": "NME inter-ocular",
    "shifted by up to 10 %, scaled by 0.8 to 1.3": "NME inter-ocular, jitter boxes",
    "squares that include the forehead": "NME inter-ocular, square boxes",
    "WFLW's own detector": "NME inter-ocular, rect boxes",
}


def boxes() -> str:
    """NME by the kind of box that a model is given, from the manifest."""
    return _by_metric("boxes", BOXES)


def profiles() -> str:
    """NME of profiles, from the manifest."""
    return _by_metric("`cfp68_val`", {"NME by the box": "NME by the box"})


def _by_metric(corner: str, wanted: Mapping[str, str]) -> str:
    """A table with a column for each model, and a row for each of its metrics in the manifest, by the row's title."""
    rows = [row for row in _manifest() if row["metrics"]]
    ids = [f"`{row['id']}`" for row in sorted(rows, key=lambda row: str(row["scheme"]))]
    lines = [f"| {corner} | " + " | ".join(ids) + " |", "| --- |" + " --- |" * len(ids)]
    for title, metric in wanted.items():
        cells = []
        for row in sorted(rows, key=lambda row: str(row["scheme"])):
            known = {m["metric"].removesuffix(", full-set estimate"): m["value"] for m in reversed(row["metrics"])}
            cells.append(f"{known[metric]:.2f}" if metric in known else "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _manifest() -> list[dict[str, Any]]:
    rows = json.loads((ROOT / "weights_manifest.json").read_text("utf-8"))["checkpoints"]
    return [row for row in rows if row["sha256"] is not None]


#: The functions that write the blocks, by the name of the block.
BLOCKS: Mapping[str, Callable[[], str]] = {
    "rooms": rooms,
    "models": models,
    "boxes": boxes,
    "profiles": profiles,
    "models-short": models_short,
    "names-300w": lambda: names("300w"),
    "names-wflw": lambda: names("wflw"),
    "names-cofw": lambda: names("cofw"),
}


def rewritten(text: str) -> str:
    """A page with all of its blocks up to date."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{BLOCKS[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- begin: ([\w-]+) -->)\n.*?(<!-- end: \2 -->)", block, text, flags=re.DOTALL)


def main(check: bool) -> int:
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text("utf-8")
        if (new := rewritten(text)) != text:
            stale.append(page)
            if not check:
                page.write_text(new, "utf-8")
    for page in stale:
        print(f"{'stale' if check else 'wrote'}: {page.relative_to(ROOT)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main("--check" in sys.argv[1:]))
