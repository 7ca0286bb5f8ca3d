"""Results on their way back, in few files of a limited size: parts of one stream, and a manifest that says what is in
them.

At any moment the manifest in a folder belongs to the parts beside it, so that what lies there is whole when the machine
goes away. It uses the standard library alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Most bytes of a part, and of all of them; and most files: the manifest is one.
PART, TOTAL, FILES = 15 << 20, 62 << 20, 8

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Item:
    """A file in the stream: its path, from the folder of the results on, where it begins, its bytes and their hash."""

    path: str
    offset: int
    size: int
    sha256: str


def write(out: Path, files: Mapping[str, bytes], *, part: int = PART, total: int = TOTAL) -> list[str]:
    """Put files into ``out``, in place of what was there.

    Args:
        out: folder, made if need be.
        files: by path; the first are the most important.
        part: most bytes of a part.
        total: most bytes of all parts.

    Returns:
        paths of the files that there was no room for.
    """
    out.mkdir(parents=True, exist_ok=True)
    items: list[Item] = []
    taken: list[bytes] = []
    left: list[str] = []
    size, room = 0, min(total, part * (FILES - 1))
    for path, data in files.items():
        if size + len(data) > room:
            left.append(path)
            continue
        items.append(Item(path, size, len(data), _hash(data)))
        taken.append(data)
        size += len(data)
    stream = b"".join(taken)
    before = _manifest(out)
    turn = 1 + (int(before["turn"]) if before else 0)
    parts = []
    for number, start in enumerate(range(0, len(stream), part)):
        piece = stream[start : start + part]
        name = f"part-{turn}-{number}.bin"
        replace(out / name, piece)
        parts.append({"name": name, "size": len(piece), "sha256": _hash(piece)})
    manifest = {"turn": turn, "parts": parts, "items": [asdict(item) for item in items], "left_out": left}
    replace(out / MANIFEST, json.dumps(manifest, indent=1).encode())
    for old in before["parts"] if before else ():  # only now: until here the old manifest stood
        (out / old["name"]).unlink(missing_ok=True)
    return left


def read(folder: Path) -> dict[str, bytes]:
    """The files in a folder that `write` filled.

    Raises:
        FileNotFoundError: no manifest, or a part that is missing.
        ValueError: bytes that are not those that were written.
    """
    manifest = _manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder} has no {MANIFEST}")
    pieces = []
    for part in manifest["parts"]:
        piece = (folder / part["name"]).read_bytes()
        if _hash(piece) != part["sha256"]:
            raise ValueError(f"{folder / part['name']} is damaged: {len(piece)} bytes, {part['size']} were written")
        pieces.append(piece)
    stream = b"".join(pieces)
    found = {}
    for item in (Item(**values) for values in manifest["items"]):
        data = stream[item.offset : item.offset + item.size]
        if _hash(data) != item.sha256:
            raise ValueError(f"{folder}: {item.path} is damaged")
        found[item.path] = data
    return found


def left_out(folder: Path) -> list[str]:
    """Paths of the files that there was no room for."""
    manifest = _manifest(folder)
    return [] if manifest is None else list(manifest["left_out"])


def collect(folders: Sequence[Path], into: Path) -> list[Path]:
    """Write the files of one or several folders below ``into``; of a file that is in several the last one's.

    Raises:
        FileNotFoundError, ValueError: as `read`; and a path that leads out of ``into``.
    """
    written = {}
    for folder in folders:
        for path, data in read(folder).items():
            target = (into / path).resolve()
            if not target.is_relative_to(into.resolve()):
                raise ValueError(f"{folder}: {path} leads out of the folder of the results")
            target.parent.mkdir(parents=True, exist_ok=True)
            replace(target, data)
            written[path] = target
    return list(written.values())


def gather(root: Path, patterns: Iterable[str]) -> dict[str, bytes]:
    """Files below ``root`` that the patterns find, in the order of the patterns."""
    found: dict[str, bytes] = {}
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            if path.is_file():
                found.setdefault(path.relative_to(root).as_posix(), path.read_bytes())
    return found


def _manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def replace(path: Path, data: bytes) -> None:
    """Write a file whole: it is what it was, or what it shall be, at any moment."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
