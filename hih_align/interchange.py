"""Landmarks in the forms that other programs take: COCO keypoints, and supervision's key points."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from .crops import tight_box
from .schemes import Scheme

if TYPE_CHECKING:
    from .landmarks import Landmarks

#: Points of a lower score are given as less sure (v = 1): a person should look at them.
UNSURE = 0.5


def coco_category(scheme: Scheme) -> dict[str, Any]:
    """The category of a scheme's faces: its landmarks' names, and the contours as a skeleton, counted from 1."""
    skeleton = [[a + 1, b + 1] for line in scheme.contours for a, b in pairwise(line)]
    return {"id": 1, "name": "face", "supercategory": "person", "keypoints": list(scheme.names), "skeleton": skeleton}


def coco_annotations(faces: Landmarks, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
    """An annotation of each face, as a list; ``bbox`` is the tight box of the points, v = 2, or 1 below `UNSURE`."""
    count = faces.points.shape[-2]
    annotations = []
    for number, (points, scores) in enumerate(
        zip(faces.points.reshape(-1, count, 2), faces.scores.reshape(-1, count), strict=True)
    ):
        x1, y1, x2, y2 = (float(value) for value in tight_box(points))
        rows = np.column_stack((points.astype(np.float64).round(3), np.where(scores < UNSURE, 1, 2)))
        annotations.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": 1,
                "keypoints": [int(v) if column == 2 else v for row in rows.tolist() for column, v in enumerate(row)],
                "num_keypoints": count,
                "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
                "area": round((x2 - x1) * (y2 - y1), 3),
                "iscrowd": 0,
                "score": round(float(scores.mean()), 4),
            }
        )
    return annotations


def to_supervision(faces: Landmarks) -> Any:
    """``supervision.KeyPoints`` of the faces.

    Raises:
        ImportError: supervision is not installed; the message names the extra.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("to_supervision needs supervision: pip install 'hih-align[supervision]'") from error
    count = faces.points.shape[-2]
    points, scores = faces.points.reshape(-1, count, 2), faces.scores.reshape(-1, count)
    return supervision.KeyPoints(xy=points, class_id=np.zeros(len(points), int), keypoint_confidence=scores)
