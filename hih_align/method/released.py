"""Reading the checkpoints that the paper's authors released (``WFLW.pth``).

A released file is ``{"state_dict": ..., "best_nme": ...}`` or the state dict alone. Its names begin with ``module.`` if
it was saved from several GPUs.
"""

from __future__ import annotations

import os
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .network import DECIMAL_SIZES, HIHNet, check_finite, down_steps, plain_name
from .unloaded import unloaded

# name in a released file -> name in `HIHNet`; \1 is the number of the stack
_RENAME = [
    (r"^pre_conv\.", "trunk.stem."),
    (r"^hg(\d+)\.res_center\.", r"trunk.stacks.\1.hourglass.center."),
    (r"^hg(\d+)_res1\.", r"trunk.stacks.\1.residual."),
    (r"^hg(\d+)_lin1\.", r"trunk.stacks.\1.feature."),
    (r"^hg(\d+)_conv_pred\.", r"trunk.stacks.\1.predict."),
    (r"^hg(\d+)_conv1\.", r"trunk.stacks.\1.merge_feature."),
    (r"^hg(\d+)_conv2\.", r"trunk.stacks.\1.merge_heatmaps."),
    (r"^offset_head\.conv1\.", "decimal_head.expand."),
    (r"^offset_head\.down_ops\.", "decimal_head.down."),
    (r"^offset_head\.head\.0\.", "decimal_head.squeeze."),
    (r"^offset_head\.head\.1\.", "decimal_head.predict."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.skip_layer\.", ".shortcut."),
]
_LEVEL = re.compile(r"^hg(\d+)\.res([1-4])_([123])\.")
_BRANCH = {"1": "skip", "2": "down", "3": "up"}


def rename(name: str) -> str:
    """The `HIHNet` name of a released parameter. Shortcuts that the released network never uses get a name as well."""
    # res4 is the highest resolution, which is level 0 here
    name = _LEVEL.sub(lambda m: f"trunk.stacks.{m[1]}.hourglass.levels.{4 - int(m[2])}.{_BRANCH[m[3]]}.", name)
    for pattern, ours in _RENAME:
        name = re.sub(pattern, ours, name)
    return name


@dataclass(frozen=True)
class Released:
    """A released checkpoint: the network with its weights, and further content of the file.

    Attributes:
        network: the network in eval mode, float32.
        dead: names of the weights in the file that the network never uses; they are dropped.
        best_nme: the NME that the authors stored in the file; None if they stored none.
    """

    network: HIHNet
    dead: tuple[str, ...]
    best_nme: float | None


def load_released(path: str | os.PathLike[str]) -> Released:
    """Read a released checkpoint. The shapes of its tensors give the size of the network and the number of landmarks.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is no released checkpoint. Truncated files, and pickles that hold more than tensors, raise
            this error too, because the file is read with ``weights_only=True``.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"checkpoint: no such file: {path}")
    try:
        with _numpy_numbers():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise any error
        # keep only the reason: the rest of PyTorch's text explains how to load an untrusted file
        lines = [*str(error).splitlines(), type(error).__name__]
        reason = next((line for line in lines if "nsupported" in line), lines[0]).strip().partition(". ")[0]
        raise ValueError(f"checkpoint: {path} cannot be read as a PyTorch file of tensors: {reason}") from error
    best = content.get("best_nme") if isinstance(content, dict) else None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"checkpoint: {path} holds no state dict of tensors")
    state = {plain_name(str(name)): value for name, value in state.items()}
    renamed = {rename(name): (name, value) for name, value in state.items()}
    head = state.get("hg0_conv_pred.weight", torch.empty(0, device="cpu"))
    # counted, not taken from the highest number: otherwise a name could make us build a network larger than the file
    stacks = len({m[1] for m in map(re.compile(r"^hg(\d+)_conv_pred").match, state) if m})
    steps = len({m[1] for m in map(re.compile(r"^offset_head\.down_ops\.(\d+)").match, state) if m})
    sizes = {down_steps(size, 256): size for size in DECIMAL_SIZES}
    if head.ndim != 4 or len(head) < 1 or steps not in sizes:
        raise ValueError(
            f"checkpoint: {path} is not in the released HIH layout, which has hg0_conv_pred and 1 to 3 of "
            "offset_head.down_ops"
        )
    network = unloaded(len(head), stacks, sizes[steps])
    wanted = network.state_dict()
    dead = tuple(old for ours, (old, _) in renamed.items() if ours not in wanted)
    live = {ours: value for ours, (_, value) in renamed.items() if ours in wanted}
    foreign = [old for old in dead if ".skip_layer." not in old]
    missing = [name for name in wanted if name not in live]
    shapes = [n for n, v in live.items() if v.shape != wanted[n].shape]
    for kind, names in (("unknown", foreign), ("missing", missing), ("wrongly shaped", shapes)):
        if names:
            raise ValueError(f"checkpoint: {path} has {len(names)} {kind} weights, the first {names[0]}")
    check_finite({renamed[name][0]: value for name, value in live.items()}, f"checkpoint: {path}")
    with torch.inference_mode(False):
        network.load_state_dict({n: value.to(wanted[n].dtype, copy=True) for n, value in live.items()}, assign=True)
    return Released(network.eval(), dead, _number(best))


def _numpy_numbers() -> AbstractContextManager[None]:
    """Allow NumPy numbers in a ``weights_only`` load: the authors stored their NME as one. Numbers execute no code."""
    if torch.__version__ < "2.6":  # cannot allow a type for one call; such files raise there
        return nullcontext()
    scalar = np.float64(0).__reduce__()[0]
    names: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return torch.serialization.safe_globals([*names, np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8"))])


def _number(best: object) -> float | None:
    """The NME in a released file: a number, or a number in a dictionary under that name."""
    if isinstance(best, dict):
        best = next((value for key, value in best.items() if "nme" in str(key)), None)
    return float(best) if isinstance(best, Real) else None
