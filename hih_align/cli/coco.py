"""`hih-align align --format coco`: writes the faces of a photograph or of a folder as COCO keypoints."""

from __future__ import annotations

import json
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
    """Check the name of the file to write.

    Raises:
        ValueError: there is no name, or its suffix is that of JSON Lines.
    """
    if path is None:
        raise ValueError("json is missing: --format coco needs --json with the name of the file")
    if lines_of.is_json_lines(path):
        raise ValueError(
            f"json is {path}, a name of JSON Lines: --format coco writes one JSON document, expected .json"
        )


def align(
    aligner: FaceAligner,
    folder: Path,
    boxes: Path | None,
    out: Path | None,
    json_path: Path | None,
    batch_size: int | None,
    options: Mapping[str, Any],
    drawing: Mapping[str, Any],
) -> list[str]:
    """Align the faces of a folder and write the COCO file. See `folder.align` for the arguments.

    Finished faces are kept in ``NAME.partial.jsonl`` until all faces are done. A later run continues from this file.
    Returns the names of the images that cannot be read. The COCO file does not list them.
    """
    assert json_path is not None
    with _partial(json_path) as partial:
        names, bad = lines_of.align(aligner, folder, boxes, out, partial, batch_size, options, drawing)
        faces: dict[str, list[Any]] = {name: [] for name in names}
        if partial.exists():
            with partial.open(encoding="utf-8") as file:
                for line in file:
                    face = json.loads(line)
                    if face["file"] in faces:  # else the picture has gone since an earlier run
                        faces[face["file"]].append((face["points"], face["scores"]))
        found = ((folder / name, [p for p, _ in of], [s for _, s in of]) for name, of in faces.items())
        write(json_path, found, aligner.scheme)
        partial.unlink(missing_ok=True)
    return bad


def write(path: Path, images: Iterable[tuple[Path, Any, Any]], scheme: Scheme) -> None:
    """Write a COCO file.

    Args:
        path: the file.
        images: for each image its path, the points (N, K, 2) and the scores (N, K). The COCO file names each image
            relative to its own folder; see `data.readers.coco.file_name`.
        scheme: of the landmarks.
    """
    from ..data.readers.coco import file_name
    from ..data.records import image_size

    listed = [CocoImage(file_name(image, path), *image_size(image), points, scores) for image, points, scores in images]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(coco_document(listed, scheme)) + "\n", "utf-8")


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    if is_stream(path):
        with tempfile.TemporaryDirectory() as name:
            yield Path(name) / "faces.jsonl"
    else:
        yield path.with_name(f"{path.stem}.partial.jsonl")
