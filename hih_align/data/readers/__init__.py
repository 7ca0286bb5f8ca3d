"""Readers of annotation formats, one module per format. A reader yields `Entry`s; `annotations` checks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import coco, cofw, csv_table, pts, wflw
from .face import Attribute, Entry, RawFace, Reader

__all__ = ["READERS", "Attribute", "Entry", "RawFace", "Reader", "detect"]

READERS: Mapping[str, Reader] = {
    "coco": coco.read,
    "pts": pts.read,
    "wflw": wflw.read,
    "cofw": cofw.read,
    "csv": csv_table.read,
}

_SUFFIXES = {".json": "coco", ".pts": "pts", ".txt": "wflw", ".mat": "cofw", ".csv": "csv", ".tsv": "csv"}

_OTHER = {
    ".xml": ". From CVAT, export the task as COCO Keypoints 1.0",
    ".zip": ". Unpack it, and give the folder",
}

#: Names of annotation files in a folder: this package's, Roboflow's, Label Studio's and CVAT's (one folder deeper).
_IN_FOLDER = ("annotations.json", "_annotations.coco.json", "result.json", "annotations/person_keypoints_*.json")


def detect(path: Path) -> tuple[str, Path]:
    """The format of ``path``, detected from its name, and the file to read.

    For a folder, the file to read is its annotation file: COCO if a file has a usual name, else the `.pts` files.

    Raises:
        FileNotFoundError: the file or folder does not exist.
        ValueError: no format is recognised, or several files are possible.
    """
    if not path.exists():
        raise FileNotFoundError(f"dataset: no such file or folder: {path}")
    if not path.is_dir():
        name = _SUFFIXES.get(path.suffix.lower())
        if name is None:
            advice = _OTHER.get(path.suffix.lower(), "")
            raise ValueError(
                f"dataset: {path} has the suffix {path.suffix!r}, expected one of {sorted(_SUFFIXES)}{advice}"
            )
        return name, path
    for pattern in _IN_FOLDER:
        found = sorted(path.glob(pattern))
        if len(found) > 1:
            raise ValueError(f"dataset: {path} holds {[f.name for f in found]}: give one of these files")
        if found:
            return "coco", found[0]
    if next(path.rglob("*.pts"), None) is not None:
        return "pts", path
    raise ValueError(f"dataset: {path} holds neither .pts files nor one of {list(_IN_FOLDER)}: give the file")
