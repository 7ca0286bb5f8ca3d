"""Start weights: every tensor of a trained network whose shape matches is copied into another network."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..hub import checkpoints
from ..hub.config import Config
from ..hub.manifest import read_manifest
from ..method.network import HIHNet, StackedHourglass
from ..method.released import load_released
from ..method.sizes import SIZES, Size
from ..schemes import COFW, W300, WFLW, Scheme, conversion
from .learner import Learner

# tensors that have a landmark dimension, and the number of that dimension
_LANDMARKS = [
    (re.compile(r"(^|\.)trunk\.stacks\.\d+\.predict\.(weight|bias)$"), 0),
    (re.compile(r"(^|\.)decimal_head\.predict\.(weight|bias)$"), 0),
    (re.compile(r"(^|\.)trunk\.stacks\.\d+\.merge_heatmaps\.conv\.weight$"), 1),
]

# a tensor of a stack; and the batch norms at the end of a stack, which scale what the stack adds to its input
_STACK = re.compile(r"(^|\.)trunk\.stacks\.(\d+)\.")
_FUSION = re.compile(r"(?:^|\.)trunk\.stacks\.(\d+)\.merge_(?:feature|heatmaps)\.bn\.(?:weight|bias)$")

# The initial share of the fusion in a stack that is inserted before the last one. The share is small, so that the next
# stack sees almost the features that it was trained on. It is not 0, because there ReLU has no gradient.
_QUIET = 0.03

# the part of the network that a tensor belongs to, for messages
_GROUP = re.compile(r"^(?:network\.)?(trunk\.stacks\.\d+(?:\.predict)?|trunk\.stem|[^.]+(?:\.[^.]+)?).*$")


@dataclass(frozen=True)
class Start:
    """A trained network and its landmarks.

    ``scheme`` is None if a released file holds a number of points that no built-in scheme has.
    """

    network: HIHNet | Learner
    scheme: Scheme | None
    source: str
    config: Config | None = None

    @property
    def stacks(self) -> int:
        """Number of stacked hourglasses."""
        return len(cast("StackedHourglass", self.network.trunk).stacks)

    @property
    def size(self) -> Size:
        """The dimensions of the network; for another learner those that it has."""
        return self.network.size if isinstance(self.network, HIHNet) else Size(self.stacks)

    @property
    def landmarks(self) -> int:
        """Number of landmarks."""
        return int(cast("StackedHourglass", self.network.trunk).stacks[0].predict.out_channels)  # type: ignore[union-attr,arg-type]


@dataclass(frozen=True)
class WarmStart:
    """What happened to each tensor of a network, by name.

    Attributes:
        kept: tensors that were copied as a whole.
        rows: tensors of which some landmarks were copied: their number, and the number of all landmarks.
        copies: for each stack beyond those of the source, by number: the source's stack that it was copied from.
        fresh: tensors that were not changed, because the start weights have none of this name and shape.
        unused: tensors of the start weights that have no place in the network.
    """

    kept: tuple[str, ...] = field(repr=False)
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    copies: Mapping[int, int] = field(default_factory=dict)
    fresh: tuple[str, ...] = field(default=(), repr=False)
    unused: tuple[str, ...] = ()

    def summary(self) -> str:
        """The result in a few lines of text."""
        lines = [f"{len(self.kept)} tensors kept"]
        if self.rows:
            had, of = next(iter(self.rows.values()))
            lines[0] += f", {len(self.rows)} for {had} of {of} landmarks"
        lines += [f"stack {new + 1} starts as stack {old + 1}" for new, old in self.copies.items()]
        for what, names in (("fresh", self.fresh), ("unused", self.unused)):
            if names:
                groups = Counter(_GROUP.sub(r"\1", name) for name in names)
                lines.append(f"{what}: " + ", ".join(f"{group} ({count})" for group, count in groups.items()))
        return "\n".join(lines)


def load_start(init: str | os.PathLike[str], scheme: Scheme | None = None) -> Start:
    """Load start weights: a model that `checkpoints.find_checkpoint` accepts, or a released ``.pth`` file.

    Args:
        init: "HIH_T", "HIH_T/300w", a folder (such as the ``best`` of a run), a Hub repository, or a ``.pth`` file.
        scheme: the scheme of the network that is to be trained. For a size without scheme ("HIH_T") the checkpoint of
            this scheme is loaded if there is one, else the 300W checkpoint.

    Raises:
        ValueError, FileNotFoundError, OSError: as `checkpoints.find_checkpoint` and `released.load_released`.
    """
    name = os.fspath(init)
    if os.path.isfile(name):
        network = load_released(name).network
        known = {len(s): s for s in (W300, WFLW, COFW)}
        return Start(network, known.get(network.landmarks), name)
    wanted = None
    if scheme is not None and name in SIZES and f"{name}/{scheme.id}" in read_manifest():
        wanted = scheme.id
    found = checkpoints.find_checkpoint(name, wanted)
    network, config = checkpoints.load_network(found), checkpoints.load_config(found)
    return Start(network, config.scheme, name, config)


def same_points(source: Scheme | None, target: Scheme) -> NDArray[np.intp] | None:
    """(K of the target,) the source landmark at the same, or nearly the same, place; -1 if there is none.

    Between built-in schemes the conversion (in either direction) decides: the source landmark with the largest weight
    is taken. Between other schemes the names decide. None if no landmark has a counterpart.
    """
    if source is None:
        return None
    if source.same_landmarks(target):
        return np.arange(len(target))
    try:
        weights = conversion(source, target)
    except ValueError:
        try:
            weights = conversion(target, source).T
        except ValueError:
            index = {name: i for i, name in enumerate(source.names)}
            found = np.array([index.get(name, -1) for name in target.names], np.intp)
            return found if (found >= 0).any() else None
    return np.where(weights.max(-1) > 0, weights.argmax(-1), -1)


def warm_start(model: nn.Module, start: Start, scheme: Scheme, sources: NDArray[np.intp] | None = None) -> WarmStart:
    """Copy every tensor of the start weights whose shape matches, in place.

    Args:
        model: a `HIHNet`, a module that holds one as ``network``, or a module with parts of the same names (`learner`).
        start: the start weights.
        scheme: the scheme of the model.
        sources: (K,) for each landmark of the model the landmark of ``start`` that it starts from, -1 for none, as
            `matching.match` gives it. None: those of `same_points`.

    A tensor of the same name and shape is copied. In a tensor with one row per landmark, the rows of the landmarks
    that both schemes have are copied (see `same_points`, or ``sources``).

    A model with more stacks than the source begins about as accurate as the source. Its last stack is a copy of the
    source's last stack, on whose features the subpixel head was trained. The stacks between are copies of the same
    stack. At first they add only 3 % of their fusion (`network.Stack`) to the features, so the next stack sees nearly
    the features that it was trained on. This share grows in training (as in Net2Net, Chen et al., 2016, and
    progressive stacking, Gong et al., 2019).
    """
    prefix = "network." if isinstance(getattr(model, "network", None), HIHNet) else ""
    have = {prefix + name: value for name, value in start.network.state_dict().items()}
    unused = dict.fromkeys(have)
    points = same_points(start.scheme, scheme) if sources is None else sources
    if points is not None and start.config is not None and start.config.readout is not None:
        points = np.where(points >= 0, start.config.readout.sources[points], -1)  # the heads of the landmarks
    if points is None and start.scheme is None and start.landmarks == len(scheme):
        points = np.arange(len(scheme))
    last = len(cast("StackedHourglass", getattr(model, "network", model).trunk).stacks) - 1
    kept, fresh, rows = [], [], {}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            origin = _STACK.sub(lambda m: f"{m[1]}trunk.stacks.{min(int(m[2]), start.stacks - 1)}.", name)
            source = have.get(origin)
            unused.pop(origin, None)
            axis = next((axis for pattern, axis in _LANDMARKS if pattern.search(name)), None)
            if source is None or (axis is None and source.shape != value.shape):
                fresh.append(name)
            elif axis is None:
                value.copy_(source)
                if (fusion := _FUSION.search(name)) and start.stacks - 1 <= int(fusion[1]) < last:
                    value.mul_(_QUIET)
                kept.append(name)
            else:
                count = _copy_rows(value, source, axis, points)
                if count == value.shape[axis]:
                    kept.append(name)
                elif count:
                    rows[name] = (count, value.shape[axis])
                else:
                    fresh.append(name)
    anew = {int(found[2]) for name in fresh if (found := _STACK.search(name))}
    copies = {i: start.stacks - 1 for i in range(start.stacks, last + 1) if i not in anew}
    return WarmStart(tuple(kept), rows, copies, tuple(fresh), tuple(unused))


def _copy_rows(target: Tensor, source: Tensor, axis: int, points: NDArray[np.intp] | None) -> int:
    """Copy the rows of common landmarks. Returns their number."""
    others = [n for i, n in enumerate(target.shape) if i != axis]
    if points is None or others != [n for i, n in enumerate(source.shape) if i != axis]:
        return 0
    to = np.flatnonzero(points >= 0)
    take = torch.from_numpy(points[to])
    target.index_copy_(axis, torch.from_numpy(to), source.index_select(axis, take).to(target.dtype))
    return len(to)
