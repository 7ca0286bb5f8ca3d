"""Calls a detector and checks its results. The detector is a `FaceDetector` or a function of the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..boxes import check_boxes, numbers
from .detector import Detections

#: An RGB image (H, W, 3) uint8, C-contiguous -> boxes (N, 4) x1, y1, x2, y2, or (N, 5) with scores, in pixels of it.
Detector: TypeAlias = Callable[[NDArray[np.uint8]], Any]


def check_detector(detector: Any) -> None:
    """Raise a TypeError if ``detector`` is no function, such as the name of a detector."""
    if not callable(detector):
        raise TypeError(
            f"detector is {type(detector).__name__}, expected a function: RGB image -> boxes (N, 4) or (N, 5)"
        )


def detections(detector: Detector, image: NDArray[np.uint8]) -> Detections:
    """Find faces by any detector. The largest face comes first.

    Args:
        detector: see `Detector`.
        image: (H, W, 3) uint8 RGB.

    Returns:
        The faces. If the detector is not a `FaceDetector`, their points are NaN. If the detector returns no scores,
        they are 1.

    Raises:
        ValueError, TypeError: the detector returns something else, or bad boxes. The message names the detector.
    """
    found = detector(np.ascontiguousarray(image))  # PyTorch takes no reversed array, such as bgr[..., ::-1]
    if isinstance(found, Detections):
        return found
    name = getattr(detector, "__name__", type(detector).__name__)
    expected = f"detector {name} returned {{}}, expected boxes (N, 4) x1, y1, x2, y2, or (N, 5) with scores"
    if found is None:
        raise TypeError(expected.format("None") + ". If there is no face, return an empty array")
    try:
        rows = np.asarray(numbers(found, f"detector {name}"), np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(expected.format(f"{type(found).__name__} ({error})")) from error
    if rows.size == 0:
        rows = np.zeros((0, 5))
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise ValueError(expected.format(f"an array of shape {rows.shape}"))
    try:
        boxes, _ = check_boxes(rows[:, :4], image)
    except ValueError as error:
        raise ValueError(f"detector {name}: {error}") from error
    scores = rows[:, 4] if rows.shape[1] == 5 else np.ones(len(rows))
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).max(1, initial=0), kind="stable")
    points = np.full((len(rows), 5, 2), np.nan, np.float32)
    return Detections(boxes[order].astype(np.float32), scores[order].astype(np.float32), points)
