"""The folder of a training run. It holds:

* ``run.json``: recipe, data and start weights; a resumed run is compared with it
* ``state.pt``: networks, optimiser and counters, written atomically after every epoch and on SIGINT and SIGTERM
* ``best/``: the checkpoint with the lowest validation NME, measured as `evaluate` does, for
  `FaceAligner.from_pretrained`
* ``last/``: the latest checkpoint
* ``calibration.md``: how decoder, refining passes and scores of ``best/`` were chosen at the end
* ``metrics.jsonl``, ``curve.png``, ``tensorboard/``: the progress
* ``validation.png``: the latest predictions; ``batch-256px.png``: the first batch of that size with its targets

This module reads and writes ``run.json`` and ``state.pt``. `outcome` writes the checkpoints, `journal` the rest.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import files
from ..data.annotations import Dataset
from ..hub.config import CONFIG_FILE, RUN_FILE
from ..method.sizes import Size
from .ema import EMA
from .optimizer import unscaled
from .recipe import Recipe, recipe_from_dict
from .sampling import Source
from .warmstart import Start

STATE_FILE = "state.pt"


@dataclass
class Progress:
    """The state of a run, except its tensors.

    ``step`` counts within the current ``epoch``. The fields from ``seconds`` on are for the epoch's line in
    ``metrics.jsonl``. ``start`` is the NME of the matched start. ``untouched`` and ``best_there`` are the NME of the
    start network and of the best network on the landmarks that coincide with landmarks of the start network. ``spent``,
    ``opening`` (until the end of the first step), ``validating`` (the last validation) and ``ended`` are for a run with
    a time limit, see `clock.Clock`.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    best: float | None = None
    best_stage: int = -1
    seconds: float = 0.0
    waited: float = 0.0
    calibrated: float | None = None
    worked: float = 0.0
    start: float | None = None
    untouched: float | None = None
    best_there: float | None = None
    curve: list[float] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    spent: float = 0.0
    opening: float = 0.0
    validating: float = 0.0
    ended: bool = False

    @property
    def keeps_start(self) -> bool:
        """Whether ``best/`` is the matched start, because nothing was trained or no epoch had a lower error."""
        return self.start is not None and self.best is not None and self.best >= self.start


class Claim:
    """The claim of a process to the folder of a run. It ends with `release`, with this object, or with the process.

    Args:
        out: the folder. It is made if it does not exist.
        new: whether the run begins now.

    Raises:
        ValueError: another process trains in the folder, or has begun a run there since this one was prepared.
    """

    def __init__(self, out: Path, new: bool) -> None:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY) if hasattr(os, "O_DIRECTORY") else None  # not on Windows
        self._end = weakref.finalize(self, _close, descriptor)
        if descriptor is None:
            return
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"out: another process trains in {out}: expected another folder, or its end") from None
        except OSError:  # a file system without locks
            return
        if new and (out / RUN_FILE).exists():
            raise ValueError(f"out: another process has begun a run in {out}: expected another folder")

    def release(self) -> None:
        """Let other processes use the folder."""
        self._end()


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def describe(recipe: Recipe, data: Sequence[Source], val: Dataset | None, init: object) -> dict[str, Any]:
    """The start of a run (recipe, data, start weights), as ``run.json`` holds it."""
    from .. import __version__

    def dataset(d: Dataset) -> dict[str, Any]:
        return {"path": str(Path(d.source).resolve()), "faces": len(d.records), "content": _content(d)}

    return {
        "version": __version__,
        "recipe": recipe.to_dict(),
        "scheme": data[0].dataset.scheme.to_dict(),
        "data": [{**dataset(source.dataset), "weight": source.weight} for source in data],
        "val": None if val is None else {**dataset(val), "where": val.chosen},
        "init": _absolute(init.source if isinstance(init, Start) else init),
    }


def _absolute(init: object) -> str | None:
    """Start weights that exist here with their full path, so that a run may go on from another folder."""
    if init is None:
        return None
    return str(Path(str(init)).resolve()) if Path(str(init)).exists() else str(init)


def _content(dataset: Dataset) -> str:
    """A digest of the faces of a data set: names of images, and boxes. Another folder has the same digest."""
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(f"{record.image.name} {np.round(record.box, 2).tolist()}\n".encode())
    return digest.hexdigest()


def read_run(out: Path, description: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Read ``run.json`` if the folder has one.

    Raises:
        ValueError: the file describes another run, or the folder holds a model instead.
    """
    path = out / RUN_FILE
    if not path.is_file():
        if (out / CONFIG_FILE).exists():  # the folder would be read as this model, whatever the run learns
            raise ValueError(f"out: {out} holds a model, expected another folder")
        return None
    if not resume:
        raise ValueError(f"out: {out} already holds a run: resume it, or choose another folder")
    stored: dict[str, Any] = json.loads(path.read_text("utf-8"))
    stored["recipe"] = recipe_from_dict(stored["recipe"], str(path)).to_dict()  # add keys that are newer than the file
    if differing := differences(*_comparable(stored, json.loads(json.dumps(description)))):
        raise ValueError(
            f"out: {out} holds another run, which differs in {', '.join(differing[:5])}: resume it with the arguments "
            "that it was started with"
        )
    return stored


def _comparable(stored: dict[str, Any], given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two descriptions of runs, in which the same faces have the same path, wherever their folder is now."""
    stored = copy.deepcopy(stored) | {"init": _absolute(stored["init"])}
    for mine, theirs in zip([*given["data"], given["val"]], [*stored["data"], stored["val"]], strict=False):
        if mine is None or theirs is None:
            continue
        if theirs.get("content", mine["content"]) == mine["content"] and "content" in theirs:
            mine["path"] = theirs["path"]
        elif "content" not in theirs:  # written by an earlier version
            theirs["content"] = mine["content"]
    return stored, given


def write_run(out: Path, description: Mapping[str, Any]) -> None:
    """Write ``run.json``. The folder is made if it does not exist."""
    out.mkdir(parents=True, exist_ok=True)
    with files.replacing(out / RUN_FILE) as temporary:
        temporary.write_text(json.dumps(description, indent=1) + "\n", "utf-8")


def stored_size(run: dict[str, Any]) -> Size:
    """The network's dimensions in a ``run.json``. Files of version 0.1 hold only the number of stacks."""
    if "network" in run:
        return Size(**run["network"])
    return Size(int(run["stacks"]), int(run["recipe"]["decimal_size"]))


#: Keys of ``run.json`` that may differ when a run is resumed: they follow from other keys, the version and the machine.
_TAKEN = ("version", "stacks", "network", "precision", "start", "lost", "boxed", "skip_bad")


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """The keys in which two descriptions of runs differ, except the keys of `_TAKEN`."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in {**a, **b} if where or key not in _TAKEN]
        return [d for key in keys for d in differences(a.get(key), b.get(key), f"{where}.{key}" if where else key)]
    return [] if a == b else [f"{where} ({a!r} there)" if not isinstance(a, (dict, list)) else where]


def save_state(
    out: Path, model: nn.Module, ema: EMA | None, optimizer: torch.optim.Optimizer, scaler: Any, progress: Progress
) -> None:
    """Write ``state.pt``. ``scaler`` is the gradient scaler of float16, or None."""
    state = {
        "model": model.state_dict(),
        "ema": None if ema is None else ema.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "progress": asdict(progress),
    }
    try:
        with files.replacing(out / STATE_FILE) as temporary:
            torch.save(state, temporary)
    except RuntimeError as error:  # PyTorch's, of a full disk
        raise OSError(f"{out / STATE_FILE} cannot be written: {str(error).splitlines()[0]}") from error


def load_state(
    out: Path, model: nn.Module, ema: EMA | None, optimizer: torch.optim.Optimizer, scaler: Any, eps: float
) -> Progress:
    """Load ``state.pt`` into networks, optimiser and scaler. ``eps`` is the recipe's, which the optimiser gets.

    Raises:
        ValueError: the file cannot be read, or belongs to another network.
    """
    path = out / STATE_FILE
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        if ema is not None:
            ema.model.load_state_dict(state["ema"])
        optimizer.load_state_dict(unscaled(state["optimizer"], eps))
        if scaler is not None and state["scaler"] is not None:
            scaler.load_state_dict(state["scaler"])
        return Progress(**state["progress"])
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"out: {path} cannot be resumed from: {str(error).splitlines()[0]}") from error
