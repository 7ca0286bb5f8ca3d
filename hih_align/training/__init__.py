"""Training and fine-tuning. It needs the ``[train]`` extra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.annotations import Dataset, read_dataset
    from ..evaluation.calibrate import calibrate
    from ..evaluation.evaluate import evaluate
    from .adaptation import adapt
    from .finetune import fine_tune
    from .outcome import Result
    from .recipe import Recipe, load_recipe
    from .sampling import Source
    from .trainer import train

_HOMES = {
    "Dataset": "..data.annotations",
    "Recipe": ".recipe",
    "Result": ".outcome",
    "Source": ".sampling",
    "adapt": ".adaptation",
    "calibrate": "..evaluation.calibrate",
    "evaluate": "..evaluation.evaluate",
    "fine_tune": ".finetune",
    "load_recipe": ".recipe",
    "read_dataset": "..data.annotations",
    "train": ".trainer",
}

__all__ = [
    "Dataset",
    "Recipe",
    "Result",
    "Source",
    "adapt",
    "calibrate",
    "evaluate",
    "fine_tune",
    "load_recipe",
    "read_dataset",
    "train",
]


def __getattr__(name: str) -> Any:
    # imported on first use: the trainer needs the extra, reading annotations does not
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
