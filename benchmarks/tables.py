"""Output of several benchmarks: Markdown tables, the files of a result, and a sentence about the machine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speed import machine

from hih_align.files import replacing


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table. Floating-point numbers have two decimal places."""
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in rows:
        cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
        assert len(cells) == len(columns), row
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def measured() -> str:
    """A text with the machine, the date and the command of the measurement."""
    about = machine()
    return f"{about['cpu']}, {about['cores']} cores, {about['date'][:10]}: `{about['command']}`"


def write(lines: Sequence[str], data: Any, out: Path | None, name: str) -> None:
    """Print the lines. If ``out`` is a folder, write the lines to ``NAME.md`` and the data to ``NAME.json`` in it."""
    text = "\n".join(lines) + "\n"
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for file, content in ((f"{name}.json", json.dumps(data, indent=1) + "\n"), (f"{name}.md", text)):
            with replacing(out / file) as temporary:
                temporary.write_text(content, "utf-8")
