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
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import files
from ..data.annotations import Dataset
from ..hub.checkpoints import WEIGHTS_FILE
from ..hub.config import CONFIG_FILE, RUN_FILE, own_folder
from ..hub.manifest import read_manifest
from ..method.sizes import SIZES, Size
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


def describe(recipe: Recipe, data: Sequence[Source], val: Dataset | None, init: object) -> dict[str, Any]:
    """The start of a run (recipe, data, start weights), as ``run.json`` holds it."""
    from .. import __version__

    def dataset(d: Dataset) -> dict[str, Any]:
        return {"path": str(Path(d.source).resolve()), "faces": len(d.records), "content": _content(d)}

    name = init.source if isinstance(init, Start) else init
    return {
        "version": __version__,
        "recipe": recipe.to_dict(),
        "scheme": data[0].dataset.scheme.to_dict(),
        "data": [{**dataset(source.dataset), "weight": source.weight} for source in data],
        "val": None if val is None else {**dataset(val), "where": val.chosen},
        "init": _absolute(name),
        "init_content": _weights(name),
    }


def _absolute(init: object) -> str | None:
    """Start weights that lie here with their full path, so that a run may go on from another folder."""
    path = _path(init)
    return None if init is None else str(init) if path is None else str(path.resolve())


def _path(init: object) -> Path | None:
    """The path of start weights that lie here. Names of published models are no paths."""
    if init is None or str(init) in SIZES or str(init) in read_manifest():
        return None
    return Path(str(init)) if Path(str(init)).exists() else None


def _weights(init: object) -> str | None:
    """The SHA-256 of start weights that lie here."""
    path = _path(init)
    if path is None:
        return None
    file = own_folder(path) / WEIGHTS_FILE if path.is_dir() else path
    return files.sha256(file) if file.is_file() else None


def _content(dataset: Dataset) -> str:
    """A digest of the faces of a data set with their labels. It does not depend on the folder."""
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(f"{record.image.name} {record.size} {np.round(record.box, 2).tolist()}\n".encode())
        if (labels := record.labels) is not None:
            digest.update(np.round(np.nan_to_num(labels.points), 2).tobytes() + labels.weights.tobytes())
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
    """Two descriptions of runs, in which the same faces and weights have the same path, wherever they lie now."""
    stored = copy.deepcopy(stored) | {"init": _absolute(stored["init"])}
    if stored.get("init_content") is not None and stored["init_content"] == given["init_content"]:
        stored["init"] = given["init"]
    for mine, theirs in zip([*given["data"], given["val"]], [*stored["data"], stored["val"]], strict=False):
        if mine is None or theirs is None:
            continue
        if theirs.get("content") == mine["content"]:
            mine |= {"path": theirs["path"]} | ({"where": theirs["where"]} if "where" in theirs else {})
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
_TAKEN = (
    "version",
    "stacks",
    "network",
    "precision",
    "start",
    "lost",
    "boxed",
    "skip_bad",
    "init_content",
    "crop_ratio",
    "decoder",
)


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
    with files.disk_errors(out / STATE_FILE), files.replacing(out / STATE_FILE) as temporary:
        torch.save(state, temporary)


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
