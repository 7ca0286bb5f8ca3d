"""The detector that users hold: an image in, boxes as the networks of this library want them out."""

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

#: Longer sides of what is looked at, pixels. The first two share a square.
SCAN_SIZES = (120, 504, 1536)

#: Least score of a face.
THRESHOLD = 0.6

#: Scores of faces that are upright and large enough: with one of them in an image, it is not turned.
SURE = 0.9

#: Turns in which the image is looked at where no face is surely found, degrees clockwise.
ROTATIONS = (90, 180, 270)


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces that were found in an image, largest first; N may be 0.

    Attributes:
        boxes: (N, 4) float32 x1, y1, x2, y2 in pixels of the image: brow to chin and jaw to jaw of the upright face,
            about its centre. For a face that is turned, this box is turned by `rolls`.
        scores: (N,) float32 in [0, 1], the detector's.
        points: (N, 5, 2) float32 left and right eye, nose tip, left and right mouth corner; left in the picture of the
            face upright.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    points: NDArray[np.float32]

    @property
    def rolls(self) -> NDArray[np.float64]:
        """(N,) degrees clockwise by which the faces are turned, from their points."""
        return roll_of(self.points)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Detections]:
        return (self[i : i + 1] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Detections:
        """The faces of a slice, a mask or a sequence of numbers."""
        if isinstance(key, (int, np.integer)):
            raise TypeError(f"detections are indexed by slice, mask or a list of numbers, got {key!r}")
        return Detections(self.boxes[key], self.scores[key], self.points[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """(N, 5) boxes and scores, as other detectors give them."""
        return np.concatenate((self.boxes, self.scores[:, None]), 1).astype(dtype or np.float32, copy=False)


class FaceDetector:
    """Finds faces of any size and roll; thread-safe.

    The image is shrunk and looked at in several sizes, because the network sees faces of about 10 to 300 pixels; a face
    that is found in more than one is given once. Where no face is surely found, the image is turned, too.

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
        """Take the network's file; None looks for it when it is first needed.

        Args:
            path: the file, ``face_detection_yunet_2023mar.onnx``.
            threshold, sizes, rotations: as in `from_pretrained`.
            hub: cache_dir, revision, token and local_files_only, with which the file is looked for.
        """
        self.threshold = float(threshold)
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold is {threshold}, expected a score between 0 and 1")
        self.sizes = _whole("sizes", sizes, range(16, 1 << 15))
        if not self.sizes:
            raise ValueError("sizes is empty, expected one longer side in pixels at least")
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
        """Find the network's file, and where needed download it.

        Args:
            name: "yunet".
            threshold: least score of a face, in (0, 1).
            sizes: longer sides in pixels in which the image is looked at; it is never enlarged. A smaller largest one
                is faster and finds no small faces: a face has to be about 12 pixels in one of them.
            rotations: turns to look in where no face is surely found, of 90, 180 and 270 degrees; () for none.
            cache_dir, revision, token, local_files_only: as in `huggingface_hub.hf_hub_download`.

        The file ``face_detection_yunet_2023mar.onnx`` is looked for in the folder that ``HIH_ALIGN_WEIGHTS`` names, in
        the Hub's cache, then in the Hub's repository opencv/face_detection_yunet; its SHA-256 is verified.

        Raises:
            ValueError: an unknown name or setting; a damaged file (`CheckpointError`).
            WeightsUnavailableError: the file cannot be had (an `OSError`).
        """
        if name != "yunet":
            raise ValueError(f"detector is {name!r}, expected 'yunet' or a function: image -> boxes (N, 4) or (N, 5)")
        hub = {"cache_dir": cache_dir, "revision": revision, "token": token, "local_files_only": local_files_only}
        detector = cls(threshold=threshold, sizes=sizes, rotations=rotations, hub=hub)
        detector._loaded()
        return detector

    def detect(self, image: Image) -> Detections:
        """The faces of an image, largest first; none is an empty result.

        Args:
            image: a path, a PIL image, an RGB array or tensor; see `images.read_image`.

        Raises:
            ValueError, TypeError, FileNotFoundError: a bad image.
            WeightsUnavailableError, CheckpointError: the network's file, where it was not looked for yet.
        """
        pixels = read_image(image)
        found = self._look(pixels, self.sizes)
        if found[1].max(initial=0) < SURE and self.rotations:
            # where there are faces that may be seen better when turned, not all small ones are looked for again
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
        """`_look` at the image turned, so that faces of roll ``degrees`` are upright."""
        quarters = degrees // 90
        height, width = pixels.shape[:2]
        boxes, scores, points = self._look(np.ascontiguousarray(np.rot90(pixels, quarters)), sizes)
        corners = np.concatenate((boxes.reshape(-1, 2, 2), points), 1)
        # about the middle of the picture, whose sides may have changed places
        size = np.array((height, width) if quarters % 2 else (width, height))
        back = turn(corners - (size - 1) / 2, degrees) + (np.array((width, height)) - 1) / 2
        ends = back[:, :2]
        return np.concatenate((ends.min(1), ends.max(1)), 1), scores, back[:, 2:]


def _best(
    boxes: NDArray[Any], scores: NDArray[Any], points: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    kept = scan.merged(boxes, scores)
    return boxes[kept], scores[kept], points[kept]


#: Where the tight box of a face's landmarks lies, in shares of the longer side of YuNet's box: its centre by this much
#: towards the chin, and its width and height. On 300w_val, `benchmarks/detection.py --fit`.
DOWN, WIDE, HIGH = 0.127, 0.784, 0.757


def mapped(boxes: NDArray[Any], points: NDArray[Any]) -> NDArray[np.float64]:
    """YuNet's boxes -> boxes as the networks were trained on.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.
        points: (N, 5, 2), which say where the chin is.

    Returns:
        (N, 4), of the upright face.
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
