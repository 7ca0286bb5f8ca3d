"""Transfer of results in few files of limited size (a parcel): the parts of one stream of bytes, and a manifest.

The manifest in a folder always belongs to the parts beside it. Therefore the folder is complete even if the machine
stops at any moment. This module uses only the standard library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: Largest number of bytes of a part and of all parts, and largest number of files, including the manifest.
PART, TOTAL, FILES = 15 << 20, 62 << 20, 8

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Item:
    """A file in the stream.

    Attributes:
        path: path relative to the folder of the results.
        offset: position of its first byte in the stream.
        size: number of bytes.
        sha256: hash of its bytes.
    """

    path: str
    offset: int
    size: int
    sha256: str


def write(out: Path, files: Mapping[str, bytes], *, part: int = PART, total: int = TOTAL) -> list[str]:
    """Write files to ``out``. They replace the parcel in this folder.

    Args:
        out: the folder. It is created if it does not exist.
        files: content by path. The most important files come first.
        part: largest number of bytes of a part.
        total: largest number of bytes of all parts.

    Returns:
        paths of the files for which there was no room.
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
    for old in before["parts"] if before else ():  # not earlier, because until now the old manifest was valid
        (out / old["name"]).unlink(missing_ok=True)
    return left


def read(folder: Path) -> dict[str, bytes]:
    """Read the files in a folder that `write` filled.

    Raises:
        FileNotFoundError: there is no folder or no manifest, or a part is missing.
        ValueError: a part or a file is damaged.
    """
    manifest = _manifest(folder)
    if manifest is None:
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no such folder"
        raise FileNotFoundError(f"{folder} has no {MANIFEST} (found: {found or 'no file'})")
    if missing := [part["name"] for part in manifest["parts"] if not (folder / part["name"]).is_file()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)} of {len(manifest['parts'])} parts")
    pieces = []
    for part in manifest["parts"]:
        piece = (folder / part["name"]).read_bytes()
        if _hash(piece) != part["sha256"]:
            raise ValueError(f"{folder / part['name']} is damaged: it has {len(piece)} bytes, expected {part['size']}")
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
    """Paths of the files for which there was no room."""
    manifest = _manifest(folder)
    return [] if manifest is None else list(manifest["left_out"])


def collect(folders: Sequence[Path], into: Path) -> list[Path]:
    """Write the files of several folders below ``into``. If several folders contain a file, the last one is used.

    Raises:
        FileNotFoundError, ValueError: the errors of `read`. ValueError: a path is outside ``into``.
        FileExistsError: ``into`` has other weights of the same name. No file is written after any error.
    """
    found: dict[Path, bytes] = {}
    for folder in folders:
        for path, data in read(folder).items():
            target = (into / path).resolve()
            if not target.is_relative_to(into.resolve()):
                raise ValueError(f"{folder}: {path} is outside the folder of the results")
            found[target] = data
    for target, data in found.items():
        if target.suffix == ".safetensors" and target.is_file() and target.read_bytes() != data:
            raise FileExistsError(f"{target} holds other weights: collect this round into a new folder")
    for target, data in found.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        replace(target, data)
    return list(found)


def require_empty(out: Path) -> None:
    """Raise a ValueError if ``out`` has files. They would take the room of a parcel, or belong to another parcel."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"OUT is {out}, which is a file, expected an empty folder")
    if names := sorted(path.name for path in out.iterdir()) if out.is_dir() else []:
        raise ValueError(f"OUT is {out}, which holds {', '.join(names[:5])}, expected an empty folder")


def gather(root: Path, patterns: Iterable[str]) -> dict[str, bytes]:
    """Read the files below ``root`` that match the patterns, in the order of the patterns."""
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
    """Write a file atomically: at any moment it has the old content or the new content."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
