"""`fine_tune`: fine-tuning in one call."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..aligner import FaceAligner
from ..data.annotations import Dataset, read_dataset
from ..progress import warn
from ..schemes import Scheme, get_scheme
from .adaptation import candidates
from .outcome import TrainingInterrupted
from .recipe import load_recipe
from .sampling import Source
from .trainer import train
from .warmstart import Start, load_start

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
        init: start weights: "HIH_T/300w", a checkpoint folder, a released ``.pth``, or a Hub repository. Every tensor
            whose shape matches is copied, see `warmstart.warm_start`. The network has the size of the start weights
            unless ``size`` is given. A size without a scheme ("HIH_T"), and landmarks of your own: the published
            network of this size that finds them best (as in `adapt`).
        train_data: a data set, or a path that `read_dataset` accepts; a list of several; or a mapping of each to the
            number of times that an epoch shows it.
        val: validation faces. They choose the epoch that is returned, and calibrate its decoder, refining passes and
            scores. Without them the last epoch is returned, and its scores are not calibrated.
        scheme: the scheme of the data: a built-in id, a scheme file or a `Scheme`. None: the scheme of a given
            `Dataset`, else of the start weights.
        recipe: see `load_recipe`.
        out: folder of the run, which is kept. None: a temporary folder, which is removed when the run is complete. If
            the run ends early, the folder is kept and a warning names it.
        resume: continue the run in ``out``.
        progress: draw progress bars on stderr.
        **overrides: keys of the recipe: ``epochs=5``, ``lr=1e-4``, ``batch=8``, ``losses={"alpha": 0.05}``,
            ``precision="no"``, ...

    Returns:
        An aligner with the network of the lowest validation error.

    Raises:
        TrainingInterrupted: SIGINT (Ctrl-C) or SIGTERM stopped the run. It is a `KeyboardInterrupt`. Its ``out`` is the
            folder, and ``fine_tune(..., out=folder, resume=True)`` continues the run.
        TypeError, ValueError, FileNotFoundError, OSError: as `trainer.train` and `read_dataset` raise them; also for a
            key that recipes do not have.
    """
    if resume and out is None:
        raise ValueError("resume is True and out is None, expected the folder of the run to continue")
    named = [*train_data] if isinstance(train_data, (Mapping, list, tuple)) else [train_data]
    weights = list(train_data.values()) if isinstance(train_data, Mapping) else [1.0] * len(named)
    given = next((data.scheme for data in named if isinstance(data, Dataset)), None)
    target = given if scheme is None else get_scheme(scheme if isinstance(scheme, Scheme) else os.fspath(scheme))
    start: Start | str = os.fspath(init)
    if len(candidates(init, target)) == 1:  # else the training faces decide
        start = load_start(init, target)
        target = target or start.scheme
    if target is None:
        raise ValueError(f"scheme is None, but {os.fspath(init)} does not name its landmarks: pass scheme")

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
                f"fine_tune(..., out={os.fspath(folder)!r}, resume=True) continues the run",
                folder,
            )
        return FaceAligner.from_pretrained(os.fspath(folder))


@contextmanager
def _folder(out: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder of a run. A temporary folder is removed, unless the run ended early and left a state in it."""
    if out is not None:
        yield Path(out)
        return
    folder = Path(tempfile.mkdtemp(prefix="hih-align-"))
    try:
        yield folder
    except BaseException:
        if any(folder.glob("*.pt")):  # a state to resume, or the batch of a diverged loss
            warn(f"fine_tune ended early; its run is kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    """Turn nested mappings into dotted keys, so that keys that they leave out keep the recipe's values."""
    if not isinstance(value, Mapping):
        return [(key, value)]
    return [pair for k, v in value.items() for pair in _flat(f"{key}.{k}", v)]
