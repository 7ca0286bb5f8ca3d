"""Packing: faces cut out of their photographs into small files, for training on another machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from .. import files
from ..crops import square_crop, warp
from ..images import read_image
from ..progress import progress_bar
from .readers import coco, detect
from .records import Dataset, Record


def pack(
    dataset: Dataset, out: Path, *, side: int = 256, margin: float = 1.8, quality: int = 90, progress: bool = True
) -> int:
    """Write ``annotations.json``, and one JPEG per face into ``images/``. Return the bytes of all pictures.

    Args:
        dataset: the faces, with or without points.
        out: the folder; it is made if it does not exist. Existing pictures are overwritten.
        side: largest side of a picture in pixels; a smaller face is not enlarged.
        margin: side of the picture divided by the longer side of the face's box. Pixels outside the photograph are
            black.
        quality: JPEG quality, 1 to 100.
        progress: draw a progress bar on stderr.

    Raises:
        ValueError: a photograph cannot be read, or ``out`` would overwrite a file of the data set.
        FileNotFoundError: a photograph does not exist.
    """
    sources = {record.image.resolve() for record in dataset.records}
    with suppress(FileNotFoundError, ValueError):  # a data set that was not read from a file
        file = detect(dataset.source)[1].resolve()
        sources |= {file, file.parent / "annotations.json"}  # beside it, this name would be read in its place
    written = [out / "annotations.json", *(_picture(out, number) for number in range(len(dataset.records)))]
    if over := [path for path in written if path.resolve() in sources]:
        raise ValueError(f"out: {over[0]} is a file of the data set itself, or beside it: expected another folder")
    (out / "images").mkdir(parents=True, exist_ok=True)
    records, size = [], 0
    for number, record in enumerate(progress_bar(dataset.records, unit="face", desc="pack", disable=not progress)):
        longer = float((record.box[2:] - record.box[:2]).max())
        crop = square_crop(record.box, margin, max(32, min(side, round(margin * longer))))
        pixels = warp(read_image(record.image), crop.matrix, crop.size)
        path = _picture(out, number)
        data = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()
        with files.replacing(path) as temporary:
            temporary.write_bytes(data)
        size += len(data)
        own = record.labels
        labels = None if own is None else replace(own, points=crop.to_crop(np.nan_to_num(own.points)))
        boxes = {name: crop.to_crop(box.reshape(2, 2)).reshape(4) for name, box in record.boxes.items()}
        records.append(Record(path, labels, boxes, record.attributes, record.key, (crop.size,) * 2))
    coco.write(records, dataset.scheme, out / "annotations.json")
    return size


def _picture(out: Path, number: int) -> Path:
    return out / "images" / f"{number:06d}.jpg"
