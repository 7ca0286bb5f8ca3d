"""The models that the demo offers, and the cache of loaded models."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from ..aligner import FaceAligner
from ..detection import FaceDetector
from ..hub.manifest import local_weights, read_manifest
from ..method.sizes import SIZES

#: Number of loaded models that are kept.
KEPT = 4

#: Labels of the schemes on the page by id, with the number of points.
SCHEME_NAMES = {"300w": "300W: 68", "wflw": "WFLW: 98", "cofw": "COFW: 29"}

DECODERS = ("expectation", "argmax")


def sizes() -> list[str]:
    """Sizes that have weights on this machine. The smallest network comes first."""
    rows = read_manifest().values()
    here = {row.size for row in rows if local_weights(row) is not None}
    return [size for size in SIZES if size in here]


def schemes(model: str) -> list[str]:
    """Schemes for which a size has weights on this machine. [] if ``model`` is not a size: it has its own scheme."""
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
        self._loaded: OrderedDict[tuple[str, str | None, str | None], FaceAligner] = OrderedDict()
        self._own: dict[tuple[str, str | None], str] = {}  # the decoders of the models themselves
        self._detector = FaceDetector()

    def __call__(self, model: str, scheme: str | None, decode: str | None) -> FaceAligner:
        """Get an aligner. ``scheme`` or ``decode`` None is the model's own.

        Raises the errors of `FaceAligner.from_pretrained`.
        """
        with self._lock:
            key = (model, scheme, self._own.get((model, scheme)) if decode is None else decode)
            if key not in self._loaded:
                aligner = FaceAligner.from_pretrained(
                    model,
                    scheme,
                    decode=decode,  # type: ignore[arg-type]
                    detector=self._detector,
                    **self._options,
                )
                if decode is None:
                    self._own[model, scheme] = aligner.decoder.method
                key = (model, scheme, aligner.decoder.method)
                self._loaded[key] = aligner
            self._loaded.move_to_end(key)
            while len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def decoders(self, model: str, scheme: str | None) -> list[str]:
        """The decoders that a model can use: an exported file has only its own.

        Raises the errors of `FaceAligner.from_pretrained`.
        """
        if model in sizes():  # of weights, which need not be loaded for this
            return list(DECODERS)
        aligner = self(model, scheme, None)
        return [aligner.decoder.method] if aligner.exported else list(DECODERS)
