"""YuNet: a small face detector (MIT licence, by Shiqi Yu's group). OpenCV's FaceDetectorYN runs it.

Its file is searched in the same places as the weights of this package.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..hub.download import WeightsUnavailableError, download_verified, verified
from ..hub.manifest import WEIGHTS_FOLDER
from ..quiet import quiet_opencv
from .scan import CANVAS, SAME_UNION

REPOSITORY = "opencv/face_detection_yunet"
FILE = "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

#: Largest number of candidates of one square that non-maximum suppression compares.
TOP = 5000


def find_file(hub: dict[str, Any]) -> Path:
    """Find the network's file: in the folder that ``HIH_ALIGN_WEIGHTS`` names, in the Hub's cache, or on the Hub.

    Args:
        hub: cache_dir, revision, token and local_files_only, as in `huggingface_hub.hf_hub_download`.

    Raises:
        CheckpointError: the file has another SHA-256.
        WeightsUnavailableError: the file is not found, and cannot be downloaded.
    """
    named = os.environ.get(WEIGHTS_FOLDER)
    if named and (path := Path(named) / FILE).is_file():
        return verified(path, SHA256)
    try:
        return download_verified(REPOSITORY, FILE, SHA256, hub, "detector")
    except WeightsUnavailableError as error:
        where = f"{WEIGHTS_FOLDER}={named}" if named else f"{WEIGHTS_FOLDER} (not set)"
        raise WeightsUnavailableError(
            f"detector: {FILE} is neither in the folder that {where} names nor in the Hub's cache, and it cannot be "
            f"downloaded ({error}). With a network connection, `hf download {REPOSITORY} {FILE}` downloads it. Or give "
            "the boxes of the faces, or your own detector"
        ) from error


class YuNet:
    """The network. Thread-safe.

    Args:
        path: the network's file.
        threshold: lowest score of a face that is returned, in [0, 1].
    """

    def __init__(self, path: Path, threshold: float) -> None:
        self._lock = threading.Lock()
        # not by its path: on Windows, OpenCV opens no path with letters of another language
        content, none = np.fromfile(path, np.uint8), np.empty(0, np.uint8)
        with quiet_opencv():  # OpenCV 5 warns that its new engine ignores the target, but no target is set here
            self._network = cv2.FaceDetectorYN.create(
                "onnx", content, none, (CANVAS, CANVAS), threshold, SAME_UNION, TOP
            )

    def __call__(self, square: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[Any]]:
        """Find the faces of a (640, 640, 3) uint8 BGR picture.

        Returns:
            boxes (N, 4) x1, y1, x2, y2, scores (N,), and points (N, 5, 2), in pixels of the picture. The points are
            left and right eye, nose tip, left and right mouth corner. Left is left in the picture.
        """
        with self._lock:
            found = self._network.detect(square)[1]
        rows = np.zeros((0, 15)) if found is None else np.asarray(found, np.float64)
        boxes = np.concatenate((rows[:, :2], rows[:, :2] + rows[:, 2:4]), 1)
        return boxes, rows[:, 14], rows[:, 4:14].reshape(-1, 5, 2)
