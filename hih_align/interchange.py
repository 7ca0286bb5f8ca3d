"""Conversion of landmarks to the formats of other programs: COCO keypoints, and key points of supervision."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .crops import tight_box
from .schemes import Scheme

if TYPE_CHECKING:
    from .landmarks import Landmarks

#: A point with a lower score gets the visibility v = 1, so that a person checks it. Other points get v = 2.
UNSURE = 0.5


def coco_category(scheme: Scheme) -> dict[str, Any]:
    """The COCO category of a scheme: the names of its landmarks, and its contours as a skeleton. Indices start at 1."""
    skeleton = [[a + 1, b + 1] for line in scheme.contours for a, b in pairwise(line)]
    return {"id": 1, "name": "face", "supercategory": "person", "keypoints": list(scheme.names), "skeleton": skeleton}


@dataclass(frozen=True)
class CocoImage:
    """An image and its N faces. N may be 0.

    Attributes:
        file_name: path relative to the folder of the JSON file.
        width, height: in pixels.
        points: (N, K, 2) in pixels of the image.
        scores: (N, K) in [0, 1].
    """

    file_name: str | os.PathLike[str]
    width: int
    height: int
    points: ArrayLike
    scores: ArrayLike


def coco_document(images: Iterable[CocoImage], scheme: Scheme) -> dict[str, Any]:
    """COCO keypoints of the faces of images, as a JSON object with ``images``, ``annotations`` and ``categories``.

    Each annotation is a face. ``bbox`` is the tight box of its points. The visibility v of a point is 2, or 1 if its
    score is below `UNSURE`. ``score`` is the score of the face, and ``keypoint_scores`` are the scores of its points.
    """
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image in images:
        name = image.file_name if isinstance(image.file_name, str) else Path(image.file_name).as_posix()
        about = {"file_name": name, "width": int(image.width), "height": int(image.height)}
        listed.append({"id": len(listed) + 1} | about)
        points = np.asarray(image.points, np.float64).reshape(-1, len(scheme), 2)
        scores = np.asarray(image.scores, np.float64).reshape(-1, len(scheme))
        for face, sure in zip(points, scores, strict=True):
            ids = {"id": len(annotations) + 1, "image_id": len(listed)}
            annotations.append(ids | _coco_face(face, sure))
    return {"images": listed, "annotations": annotations, "categories": [coco_category(scheme)]}


def _coco_face(points: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in tight_box(points))
    rows = np.column_stack((points.round(3), np.where(scores < UNSURE, 1, 2)))
    return {
        "category_id": 1,
        "keypoints": [int(v) if column == 2 else v for row in rows.tolist() for column, v in enumerate(row)],
        "num_keypoints": len(points),
        "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
        "area": round((x2 - x1) * (y2 - y1), 3),
        "iscrowd": 0,
        "score": round(float(scores.mean()), 4),
        "keypoint_scores": scores.round(4).tolist(),
    }


def to_supervision(faces: Landmarks) -> Any:
    """Convert faces to ``supervision.KeyPoints``.

    Raises:
        ImportError: supervision is not installed. The message names the extra.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs supervision: pip install 'hih-align[supervision]'") from error
    count = faces.points.shape[-2]
    points, scores = faces.points.reshape(-1, count, 2), faces.scores.reshape(-1, count)
    return supervision.KeyPoints(xy=points, class_id=np.zeros(len(points), int), keypoint_confidence=scores)
