"""What the aligner knows of a runtime: photographs and crops of them in, points and scores out. Without PyTorch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import crops
from ..crops import CROP_SIZE
from ..method.sizes import Size

Runtime = Literal["torch", "onnxruntime", "openvino"]

#: Points (B, K, 2), (x, y) in crop pixels, and scores (B, K).
Found: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32]]"


class Photograph:
    """An image of which faces are cut out.

    Not thread-safe: each call of an aligner has its own.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, with any strides; not to be changed.
        stays: whether a backend that cuts faces out on a device sends it there as a whole and once, and keeps it there
            as long as this object lives: worth it where one call after the other cuts faces out of it. Else what is
            read is sent, and is gone once the faces are cut.
        sent: the tensor on that device, once it was sent to stay.
    """

    def __init__(self, pixels: NDArray[np.uint8], stays: bool = False) -> None:
        self.pixels, self.stays = pixels, stays
        self.sent: Any = None


class Backend(ABC):
    """A network that is ready to run, with its decoder; thread-safe.

    Attributes:
        name: of the runtime.
        dtype: name of the precision in which the network runs, such as "float32" or "int8".
        description: what an exported file says of itself (`metadata.describe`); None of a network.
    """

    name: Runtime
    dtype: str
    description: Mapping[str, Any] | None = None

    @abstractmethod
    def __call__(self, crops: NDArray[np.uint8]) -> Found:
        """Points and scores of faces.

        Args:
            crops: (B, S, S, 3) uint8 RGB, C-contiguous, B at least 1, S the network's ``input_size``.
        """

    def align(self, photographs: Sequence[Photograph], transforms: Sequence[crops.Crop], mirror: bool = False) -> Found:
        """Points and scores of B faces that are cut out of their photographs: by OpenCV, where this is not overridden.

        Args:
            photographs, transforms: of each face, B at least 1; all crops are of one size.
            mirror: also of their crops flipped from left to right, which follow as B further faces.
        """
        count, side = len(transforms), transforms[0].size
        pixels = np.empty((count * (1 + mirror), side, side, 3), np.uint8)
        for photograph, transform, crop in zip(photographs, transforms, pixels[:count], strict=True):
            crops.warp(photograph.pixels, transform.matrix, side, out=crop)
        if mirror:
            pixels[count:] = pixels[:count, :, ::-1]
        return self(pixels)


def faces_at_once(size: Size) -> int:
    """How many faces go through a network of that size together on a CPU.

    One, but for small networks. The activations of several faces would leave the CPU's caches, and each face would take
    longer. A small network's activations stay there, and its layers are so short that the threads would wait for each
    other more often than they compute.
    """
    activations = size.width * (size.input_size / CROP_SIZE) ** 2  # of a face, in those of the paper's networks
    return max(1, int(0.5 / activations))


class Grouped(Backend):
    """A backend on a CPU, whose faces go through the network in groups, and what is left one by one.

    Attributes:
        group: faces of a group, see `faces_at_once`.
    """

    group: int

    @abstractmethod
    def run(self, crops: NDArray[np.uint8]) -> Found:
        """Points and scores of one crop, or of a group; nothing else writes into them."""

    def __call__(self, crops: NDArray[np.uint8]) -> Found:
        """See `Backend`."""
        if len(crops) in (1, self.group):
            return self.run(crops)
        whole = len(crops) - len(crops) % self.group
        parts = [crops[start : start + self.group] for start in range(0, whole, self.group)]
        parts += [crops[index : index + 1] for index in range(whole, len(crops))]
        points, scores = zip(*(self.run(part) for part in parts), strict=True)
        return np.concatenate(points), np.concatenate(scores)
