"""Faces cut out of their photographs into small files, for training on another machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from .. import files
from ..crops import square_crop, warp
from ..images import read_image
from ..progress import progress_bar
from .readers import coco
from .records import Dataset, Record


def pack(
    dataset: Dataset, out: Path, *, side: int = 256, margin: float = 1.8, quality: int = 90, progress: bool = True
) -> int:
    """Write ``annotations.json`` and a JPEG per face into ``images/``; returns the bytes of the pictures.

    Args:
        dataset: the faces, also those without points.
        out: folder, made if need be. A picture that is there already is written anew.
        side: pixels of a picture's side; a smaller face keeps its own pixels.
        margin: the picture's side over the longer side of the face's box; what lies outside the photograph is black.
        quality: of the JPEGs, in percent.
        progress: draw a progress bar on stderr.

    Raises:
        ValueError, FileNotFoundError: a photograph that cannot be read, or is not there.
    """
    (out / "images").mkdir(parents=True, exist_ok=True)
    records, size = [], 0
    for number, record in enumerate(progress_bar(dataset.records, unit="face", desc="pack", disable=not progress)):
        longer = float((record.box[2:] - record.box[:2]).max())
        crop = square_crop(record.box, margin, max(32, min(side, round(margin * longer))))
        pixels = warp(read_image(record.image), crop.matrix, crop.size)
        path = out / "images" / f"{number:06d}.jpg"
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
