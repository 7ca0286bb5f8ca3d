"""The models that the demo offers, and those that are loaded."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from ..aligner import FaceAligner
from ..detection import FaceDetector
from ..hub.manifest import local_weights, read_manifest
from ..method.sizes import SIZES

#: Loaded models that are kept.
KEPT = 4

#: Schemes by id, as the page calls them, with their number of points.
SCHEME_NAMES = {"300w": "300W: 68", "wflw": "WFLW: 98", "cofw": "COFW: 29"}

DECODERS = ("expectation", "argmax")


def sizes() -> list[str]:
    """Sizes of which weights are on this machine, smallest network first."""
    rows = read_manifest().values()
    here = {row.size for row in rows if local_weights(row) is not None}
    return [size for size in SIZES if size in here]


def schemes(model: str) -> list[str]:
    """Schemes that a size has weights for on this machine; [] for a model that is no size: it has its own."""
    rows = [row for row in read_manifest().values() if row.size == model and local_weights(row) is not None]
    found = [row.scheme for row in rows]
    return [*found, "cofw"] if "wflw" in found else found


class Models:
    """Loads aligners and keeps the last `KEPT`. Thread-safe.

    Args:
        options: device, dtype and backend, as in `FaceAligner.from_pretrained`.
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str | None, str], FaceAligner] = OrderedDict()
        self._detector = FaceDetector()

    def __call__(self, model: str, scheme: str | None, decode: str) -> FaceAligner:
        """An aligner; ``scheme`` None is the model's own. Raises as `FaceAligner.from_pretrained`."""
        key = (model, scheme, decode)
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = FaceAligner.from_pretrained(
                    model,
                    scheme,
                    decode=decode,  # type: ignore[arg-type]
                    detector=self._detector,
                    **self._options,
                )
            self._loaded.move_to_end(key)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[key]
