"""`hih-align align --format coco`: the faces of a photograph or of a folder as COCO keypoints."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..aligner import FaceAligner
from ..files import is_stream, replacing
from ..interchange import CocoImage, coco_document
from ..schemes import Scheme
from . import folder as lines_of


def check(path: Path | None) -> None:
    """Refuse what is no name of such a file."""
    if path is None:
        raise ValueError("json is missing: --format coco needs --json, which names the file")
    if lines_of.is_json_lines(path):
        raise ValueError(f"json: {path} says JSON Lines, --format coco is one document: expected a name with .json")


def align(
    aligner: FaceAligner,
    folder: Path,
    boxes: Path | None,
    out: Path | None,
    json_path: Path | None,
    batch_size: int | None,
    options: Mapping[str, Any],
    drawing: Mapping[str, Any],
) -> None:
    """As `folder.align`. What is done lies in ``NAME.partial.jsonl`` until all is, and is gone on with."""
    assert json_path is not None
    with _partial(json_path) as partial:
        names = lines_of.align(aligner, folder, boxes, out, partial, batch_size, options, drawing)
        faces: dict[str, list[Any]] = {name: [] for name in names}
        if partial.exists():
            with partial.open(encoding="utf-8") as file:
                for line in file:
                    face = json.loads(line)
                    faces[face["file"]].append((face["points"], face["scores"]))
        found = ((folder / name, [p for p, _ in of], [s for _, s in of]) for name, of in faces.items())
        write(json_path, found, aligner.scheme)
        partial.unlink(missing_ok=True)


def write(path: Path, images: Iterable[tuple[Path, Any, Any]], scheme: Scheme) -> None:
    """Write the points (N, K, 2) and scores (N, K) of images; their names are those seen from the file's folder."""
    from ..data.records import image_size

    home = Path.cwd() if is_stream(path) else path.absolute().parent
    listed = [
        CocoImage(os.path.relpath(image.absolute(), home).replace(os.sep, "/"), *image_size(image), points, scores)
        for image, points, scores in images
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(coco_document(listed, scheme)) + "\n", "utf-8")


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    if is_stream(path):
        with tempfile.TemporaryDirectory() as name:
            yield Path(name) / "faces.jsonl"
    else:
        yield path.with_name(f"{path.stem}.partial.jsonl")
