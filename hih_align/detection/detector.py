"""`FaceDetector`: from an image to the bounding boxes that the networks of this package expect."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..images import Image, read_image
from ..roll import roll_of, turn
from . import scan, yunet

#: Longer sides, in pixels, in which an image is searched. The first two share a square.
SCAN_SIZES = (120, 504, 1536)

#: Lowest score of a face.
THRESHOLD = 0.6

#: An upright and large enough face has at least this score. If an image has such a face, it is not rotated.
SURE = 0.9

#: Rotations in which the image is searched if no face is certain, in degrees clockwise.
ROTATIONS = (90, 180, 270)


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces that were found in an image, the largest first. N may be 0.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the image: from brows to chin and from jaw to jaw, of the face
            turned upright about the centre of the box. `rolls` says by how much the face is turned.
        scores: (N,) float32 in [0, 1], the scores of the detector.
        points: (N, 5, 2) float32 left and right eye, nose tip, left and right mouth corner. Left is left in the picture
            of the upright face.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    points: NDArray[np.float32]

    @property
    def rolls(self) -> NDArray[np.float64]:
        """(N,) rotation of each face in degrees clockwise, computed from its points."""
        return roll_of(self.points)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detections]:
        return (self[i : i + 1] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Detections:
        """The faces of a slice, a mask or a sequence of numbers."""
        if isinstance(key, (int, np.integer)) or np.ndim(key) > 1:
            raise TypeError(f"detections are indexed by slice, mask or a list of numbers, got {key!r}")
        return Detections(self.boxes[key], self.scores[key], self.points[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """(N, 5) boxes and scores, as other detectors return them."""
        return np.concatenate((self.boxes, self.scores[:, None]), 1).astype(dtype or np.float32, copy=False)


class FaceDetector:
    """Finds faces of any size and roll. Thread-safe.

    The image is searched in several reduced sizes, because the network finds faces of about 10 to 300 pixels. A face
    that is found in several sizes is returned once. If no face is certain, the image is also searched in rotations.

    Attributes:
        threshold, sizes, rotations: as in `from_pretrained`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        threshold: float = THRESHOLD,
        sizes: Iterable[int] = SCAN_SIZES,
        rotations: Iterable[int] = ROTATIONS,
        hub: dict[str, Any] | None = None,
    ) -> None:
        """Make a detector from the network's file.

        Args:
            path: the file ``face_detection_yunet_2023mar.onnx``. None: the file is searched when it is first needed.
            threshold, sizes, rotations: as in `from_pretrained`.
            hub: cache_dir, revision, token and local_files_only for the search of the file.
        """
        self.threshold = float(threshold)
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold is {threshold}, expected a score between 0 and 1")
        self.sizes = _whole("sizes", sizes, range(16, 1 << 15))
        if not self.sizes:
            raise ValueError("sizes is empty, expected at least one longer side in pixels")
        self.rotations = _whole("rotations", rotations, (90, 180, 270))
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"path: no such file: {path}")
        self._path = None if path is None else Path(path)
        self._hub = {"cache_dir": None, "revision": None, "token": None, "local_files_only": False, **(hub or {})}
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._network: yunet.YuNet | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_network")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    @classmethod
    def from_pretrained(
        cls,
        name: str = "yunet",
        *,
        threshold: float = THRESHOLD,
        sizes: Iterable[int] = SCAN_SIZES,
        rotations: Iterable[int] = ROTATIONS,
        cache_dir: str | os.PathLike[str] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> FaceDetector:
        """Find the network's file, and download it if this is necessary.

        Args:
            name: "yunet".
            threshold: lowest score of a face, in (0, 1).
            sizes: longer sides, in pixels, in which the image is searched. The image is never enlarged. With a smaller
                largest size the search is faster but misses small faces: a face must have about 12 pixels in one size.
            rotations: rotations in which the image is searched if no face is certain, out of 90, 180 and 270 degrees;
                () for none.
            cache_dir, revision, token, local_files_only: as in `huggingface_hub.hf_hub_download`.

        The file ``face_detection_yunet_2023mar.onnx`` is searched in the folder that ``HIH_ALIGN_WEIGHTS`` names, in
        the Hub's cache, and in the Hub's repository opencv/face_detection_yunet. Its SHA-256 is verified.

        Raises:
            ValueError: the name or a setting is unknown, or the file is damaged (`CheckpointError`).
            WeightsUnavailableError: the file is not here and cannot be downloaded (an `OSError`).
        """
        if name != "yunet":
            raise ValueError(f"detector is {name!r}, expected 'yunet' or a function: image -> boxes (N, 4) or (N, 5)")
        hub = {"cache_dir": cache_dir, "revision": revision, "token": token, "local_files_only": local_files_only}
        detector = cls(threshold=threshold, sizes=sizes, rotations=rotations, hub=hub)
        detector._loaded()
        return detector

    def detect(self, image: Image) -> Detections:
        """Find the faces of an image. The largest face comes first. Without a face the result is empty.

        Args:
            image: a path, an encoded picture, a PIL image, an RGB array or tensor; see `images.read_image`.

        Raises:
            ValueError, TypeError, FileNotFoundError: the image is bad.
            WeightsUnavailableError, CheckpointError: the network's file cannot be obtained, or is damaged.
        """
        pixels = read_image(image)
        found = self._look(pixels, self.sizes)
        if found[1].max(initial=0) < SURE and self.rotations:
            # if some faces may be seen better when turned, small faces are not searched again
            sizes = sorted(self.sizes)[:2] if len(found[0]) else self.sizes
            turned = [self._turned(pixels, degrees, sizes) for degrees in self.rotations]
            found = _best(*(np.concatenate(parts) for parts in zip(found, *turned, strict=True)))
        boxes, scores, points = found
        ours = mapped(boxes, points)
        height, width = pixels.shape[:2]
        inside: NDArray[np.bool_] = np.all((ours[:, 2:] > 0) & (ours[:, :2] < (width - 1, height - 1)), axis=1)
        order = np.argsort(-(ours[:, 2:] - ours[:, :2]).max(1), kind="stable")
        order = order[inside[order]]
        return Detections(
            ours[order].astype(np.float32), scores[order].astype(np.float32), points[order].astype(np.float32)
        )

    __call__ = detect

    def _loaded(self) -> yunet.YuNet:
        with self._lock:
            if self._network is None:
                path = yunet.find_file(self._hub) if self._path is None else self._path
                self._network = yunet.YuNet(path, self.threshold)
            return self._network

    def _look(self, pixels: NDArray[np.uint8], sizes: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """YuNet's own boxes (N, 4), scores (N,) and points (N, 5, 2) in pixels of the image, each face once."""
        network = self._loaded()
        squares = scan.plan(pixels.shape[0], pixels.shape[1], sizes)
        found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        for square, canvas in zip(squares, scan.paint(pixels, squares), strict=True):
            boxes, scores, points = network(canvas)
            keep = np.ones(len(boxes), bool)
            boxes, points = scan.to_image(boxes, points, square, keep)
            found.append((boxes[keep], scores[keep], points[keep]))
        return _best(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def _turned(
        self, pixels: NDArray[np.uint8], degrees: int, sizes: Sequence[int]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """`_look` in the rotated image, in which faces of roll ``degrees`` are upright."""
        quarters = degrees // 90
        height, width = pixels.shape[:2]
        boxes, scores, points = self._look(np.ascontiguousarray(np.rot90(pixels, quarters)), sizes)
        corners = np.concatenate((boxes.reshape(-1, 2, 2), points), 1)
        # about the centre of the picture; its width and height may be exchanged
        size = np.array((height, width) if quarters % 2 else (width, height))
        back = turn(corners - (size - 1) / 2, degrees) + (np.array((width, height)) - 1) / 2
        ends = back[:, :2]
        return np.concatenate((ends.min(1), ends.max(1)), 1), scores, back[:, 2:]


def _best(
    boxes: NDArray[Any], scores: NDArray[Any], points: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    kept = scan.merged(boxes, scores)
    return boxes[kept], scores[kept], points[kept]


#: The tight box of a face's landmarks in YuNet's box, in shares of its longer side: the centre lies this far towards
#: the chin, and width and height are these. Fitted on 300w_val by `benchmarks/detection.py --fit`.
DOWN, WIDE, HIGH = 0.127, 0.784, 0.757


def mapped(boxes: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """Convert YuNet's boxes to boxes like those that the networks were trained on.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        points: (N, 5, 2), which show where the chin is.

    Returns:
        (N, 4) boxes of the upright faces.
    """
    centre, longer = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0, keepdims=True)
    down = turn(np.full((len(boxes), 1, 2), (0.0, DOWN)), roll_of(points))[:, 0]
    centre, half = centre + down * longer, longer * (WIDE, HIGH) / 2
    return np.concatenate((centre - half, centre + half), 1)


def _whole(name: str, values: Iterable[int], allowed: Sequence[int]) -> tuple[int, ...]:
    try:
        found = tuple(int(value) for value in values)
    except (TypeError, ValueError):
        found = (-1,)
    if not set(found) <= set(allowed):
        expected = f"{min(allowed)} to {max(allowed)}" if isinstance(allowed, range) else f"of {list(allowed)}"
        raise ValueError(f"{name} is {values!r}, expected a list of whole numbers {expected}")
    return found
