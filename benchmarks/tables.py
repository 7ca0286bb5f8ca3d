"""What several benchmarks write: a Markdown table, and the files of a result beside what was measured on what."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speed import machine

from hih_align.files import replacing


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table; numbers with a fraction have two places."""
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in rows:
        cells = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row]
        assert len(cells) == len(columns), row
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def measured() -> str:
    """On what machine, when and by which command, in a sentence."""
    about = machine()
    return f"{about['cpu']}, {about['cores']} cores, {about['date'][:10]}: `{about['command']}`"


def write(lines: Sequence[str], data: Any, out: Path | None, name: str) -> None:
    """Print the lines; write them into ``NAME.md``, and the data into ``NAME.json``, of a folder if there is one."""
    text = "\n".join(lines) + "\n"
    print(text)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for file, content in ((f"{name}.json", json.dumps(data, indent=1) + "\n"), (f"{name}.md", text)):
            with replacing(out / file) as temporary:
                temporary.write_text(content, "utf-8")
