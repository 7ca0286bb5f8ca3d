"""`Backend`, the interface of a runtime: photographs and crops in, points and scores out. It does not need PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import crops
from ..crops import CROP_SIZE
from ..method.sizes import Size
from .threads import thread_count

Runtime = Literal["torch", "onnxruntime", "openvino"]

#: Number of faces for which a thread that cuts them out is worth its start.
CUTS = 8

#: Points (B, K, 2), (x, y) in crop pixels, and scores (B, K).
Found: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32]]"


class Photograph:
    """An image from which faces are cut out.

    Not thread-safe: each call of an aligner makes its own.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, with any strides. They must not be changed.
        stays: whether a backend that cuts faces out on a device sends the whole image there once and keeps it as long
            as this object exists. This is useful if several calls cut faces out of the image. If False, only the needed
            part is sent, and it is freed afterwards.
        sent: the tensor on the device, after it was sent to stay.
    """

    def __init__(self, pixels: NDArray[np.uint8], stays: bool = False) -> None:
        self.pixels, self.stays = pixels, stays
        self.sent: Any = None


class Backend(ABC):
    """A network with its decoder, ready to run. Thread-safe.

    Attributes:
        name: name of the runtime.
        dtype: name of the precision in which the network is computed, such as "float32" or "int8".
        wanted: name of the floating-point precision that was asked for; None: as ``dtype``. They differ if the runtime
            does not have this precision on this machine.
        description: the description in an exported file (`metadata.describe`); None for a network.
    """

    name: Runtime
    dtype: str
    wanted: str | None = None
    description: Mapping[str, Any] | None = None

    @abstractmethod
    def __call__(self, crops: NDArray[np.uint8]) -> Found:
        """Points and scores of faces.

        Args:
            crops: (B, S, S, 3) uint8 RGB, C-contiguous, B at least 1, S the network's ``input_size``.
        """

    def align(self, photographs: Sequence[Photograph], transforms: Sequence[crops.Crop], mirror: bool = False) -> Found:
        """Points and scores of B faces, which are cut out of their photographs (by OpenCV unless overridden).

        Args:
            photographs, transforms: of each face, B at least 1. All crops have the same size.
            mirror: also run the crops flipped from left to right; they follow as B further faces.
        """
        count, side = len(transforms), transforms[0].size
        pixels = np.empty((count * (1 + mirror), side, side, 3), np.uint8)
        cut_faces(photographs, transforms, pixels[:count])
        if mirror:
            pixels[count:] = pixels[:count, :, ::-1]
        return self(pixels)


def cut_faces(photographs: Sequence[Photograph], transforms: Sequence[crops.Crop], out: NDArray[np.uint8]) -> None:
    """Cut faces out of their photographs into ``out`` (B, S, S, 3). Many faces are cut by several threads."""

    def cut(faces: range) -> None:
        for n in faces:
            crops.warp(photographs[n].pixels, transforms[n].matrix, len(out[n]), out=out[n])

    count = len(transforms)
    threads = min(thread_count(), count // CUTS)
    if threads < 2:
        cut(range(count))
        return
    with ThreadPoolExecutor(threads, "hih-align-cut") as pool:
        # neighbours are often faces of one size, so each thread takes every n-th face
        list(pool.map(cut, [range(first, count, threads) for first in range(threads)]))


def faces_at_once(size: Size) -> int:
    """Number of faces that go through a network of this size together on a CPU.

    It is 1, except for small networks. With large networks the activations of several faces do not fit into the CPU's
    caches, and each face takes longer. The activations of a small network fit. Its layers are so short that threads
    would wait for each other longer than they compute.
    """
    activations = size.width * (size.input_size / CROP_SIZE) ** 2  # of one face, relative to the paper's networks
    return max(1, int(0.5 / activations))


class Grouped(Backend):
    """A backend on a CPU whose faces go through the network in groups. The remaining faces go one by one.

    Attributes:
        group: number of faces in a group, see `faces_at_once`.
    """

    group: int

    @abstractmethod
    def run(self, crops: NDArray[np.uint8]) -> Found:
        """Points and scores of one crop or of one group, in arrays that nothing else writes to."""

    def __call__(self, crops: NDArray[np.uint8]) -> Found:
        """See `Backend`."""
        if len(crops) in (1, self.group):
            return self.run(crops)
        whole = len(crops) - len(crops) % self.group
        parts = [crops[start : start + self.group] for start in range(0, whole, self.group)]
        parts += [crops[index : index + 1] for index in range(whole, len(crops))]
        points, scores = zip(*self.run_parts(parts), strict=True)
        return np.concatenate(points), np.concatenate(scores)

    def run_parts(self, parts: Sequence[NDArray[np.uint8]]) -> list[Found]:
        """`run` for several crops or groups, in their order."""
        return [self.run(part) for part in parts]
