"""Fine-tuning in one call."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..aligner import FaceAligner
from ..data.annotations import Dataset, read_dataset
from ..schemes import Scheme, get_scheme
from .outcome import TrainingInterrupted
from .recipe import load_recipe
from .sampling import Source
from .trainer import train
from .warmstart import load_start

Faces = str | os.PathLike[str] | Dataset


@torch.inference_mode(False)
@torch.enable_grad()
def fine_tune(
    init: str | os.PathLike[str],
    train_data: Faces | Mapping[Faces, float] | Sequence[Faces],
    val: Faces | None = None,
    *,
    scheme: str | os.PathLike[str] | Scheme | None = None,
    recipe: str = "finetune",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    **overrides: Any,
) -> FaceAligner:
    """Train a network further on other faces or other landmarks.

    Args:
        init: start weights: "HIH_T/300w", a checkpoint folder, a released ``.pth``, a Hub repository. What fits of
            them is kept, see `warmstart.warm_start`; the network's size is the start weights' unless ``size`` is given.
        train_data: a data set, or a path that `read_dataset` takes; several in a list, or as a mapping to how many
            times an epoch shows each.
        val: faces that choose the epoch that is returned, and on which its decoder, refining passes and scores are
            calibrated at the end; without them it is the last epoch, and its scores are not calibrated.
        scheme: the landmarks of the data: a built-in scheme's id, a scheme file or a `Scheme`; by default those of a
            data set given as such, else the start weights'.
        recipe: see `load_recipe`.
        out: folder of the run, kept; by default a temporary one, which is removed once the run is complete. It stays,
            and a warning names it, when the run ends early.
        resume: go on with the run in ``out``.
        progress: draw progress bars on stderr.
        **overrides: the recipe's keys: ``epochs=5``, ``lr=1e-4``, ``batch=8``, ``losses={"alpha": 0.05}``,
            ``precision="no"``, ...

    Returns:
        an aligner on the network of the lowest validation error.

    Raises:
        TrainingInterrupted: SIGINT (Ctrl-C) or SIGTERM stopped the run. It is a `KeyboardInterrupt`; its ``out`` is the
            folder, and ``fine_tune(..., out=folder, resume=True)`` goes on with it.
        TypeError, ValueError, FileNotFoundError, OSError: as `trainer.train` and `read_dataset` do, and for a key
            that recipes do not have.
    """
    if resume and out is None:
        raise ValueError("resume is True and out is None, expected the folder of the run to go on with")
    named = [*train_data] if isinstance(train_data, (Mapping, list, tuple)) else [train_data]
    weights = list(train_data.values()) if isinstance(train_data, Mapping) else [1.0] * len(named)
    given = next((data.scheme for data in named if isinstance(data, Dataset)), None)
    target = given if scheme is None else get_scheme(scheme if isinstance(scheme, Scheme) else os.fspath(scheme))
    start = load_start(init, target)
    target = target or start.scheme
    if target is None:
        raise ValueError(f"scheme is None, and {start.source} does not say which landmarks it holds")

    def dataset(data: Any) -> Dataset:
        return data if isinstance(data, Dataset) else read_dataset(data, target)

    size = overrides.pop("size", None)
    chosen = load_recipe(recipe, size, {k: v for key, value in overrides.items() for k, v in _flat(key, value)})
    sources = [Source(dataset(data), float(weight)) for data, weight in zip(named, weights, strict=True)]
    validation = None if val is None else dataset(val)
    with _folder(out) as folder:
        result = train(chosen, sources, folder, val=validation, init=start, resume=resume, progress=progress)
        if not result.completed:
            raise TrainingInterrupted(
                f"stopped in epoch {result.epochs + 1}, after {result.steps} steps: "
                f"fine_tune(..., out={os.fspath(folder)!r}, resume=True) goes on",
                folder,
            )
        return FaceAligner.from_pretrained(os.fspath(folder))


@contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder of a run. A temporary one is removed, unless the run in it ends early and left something."""
    if out is not None:
        yield Path(out)
        return
    folder = Path(tempfile.mkdtemp(prefix="hih-align-"))
    try:
        yield folder
    except BaseException:
        if any(folder.glob("*.pt")):  # a state to resume, or the batch of a loss that diverged
            warnings.warn(f"fine_tune ended early; its run is kept in {folder}", stacklevel=4)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    """Nested mappings as dotted keys, so that what they leave out stays the recipe's."""
    if not isinstance(value, Mapping):
        return [(key, value)]
    return [pair for k, v in value.items() for pair in _flat(f"{key}.{k}", v)]
