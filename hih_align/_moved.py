"""Import paths of version 0.1. They still work, with a DeprecationWarning, and will be removed in version 0.3."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Old module -> new module, both below ``hih_align``.
MOVED = {
    "backends": "runtime",
    "checkpoints": "hub.checkpoints",
    "device_crops": "runtime.device_crops",
    "heatmaps": "method.heatmaps",
    "memory": "runtime.memory",
    "metrics": "evaluation.metrics",
    "network": "method.network",
    "publish": "hub.publish",
    "released": "method.released",
    "transfer": "runtime.transfer",
    "training.annotations": "data.annotations",
    "training.augment": "training.augmentation",
    "training.calibrate": "evaluation.calibrate",
    "training.check": "data.check",
    "training.conventions": "data.conventions",
    "training.evaluate": "evaluation.evaluate",
    "training.faces": "data.faces",
    "training.losses": "method.losses",
    "training.pack": "data.pack",
    "training.readers": "data.readers",
    "training.relabel": "data.relabel",
    "training.report": "evaluation.report",
    "training.shapes": "data.shapes",
    "training.signals": "signals",
}

_PACKAGE = __name__.rpartition(".")[0]


class _Redirect(Loader):
    """Puts the module of the new path in the place of the old path."""

    def __init__(self, target: str) -> None:
        self.target = target

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(self.target)


class MovedFinder(MetaPathFinder):
    """Finds the modules of `MOVED`. It is the last finder, so other imports do not get slower."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != _PACKAGE or old not in MOVED:
            return None
        new = f"{_PACKAGE}.{MOVED[old]}"
        warnings.warn(
            f"{fullname} is now {new}; the old path will be removed in version 0.3", DeprecationWarning, stacklevel=2
        )
        return ModuleSpec(fullname, _Redirect(new))


def install() -> None:
    """Register `MovedFinder` with Python. Repeated calls register it only once."""
    if not any(isinstance(finder, MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(MovedFinder())
