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
from ..method.network import SIZES, HIHNet, Size, StackedHourglass
from ..method.released import load_released
from ..schemes import COFW, W300, WFLW, Scheme, conversion
from .learner import Learner

# tensors with a landmark dimension, and which it is
_LANDMARKS = [
    (re.compile(r"(^|\.)trunk\.stacks\.\d+\.predict\.(weight|bias)$"), 0),
    (re.compile(r"(^|\.)decimal_head\.predict\.(weight|bias)$"), 0),
    (re.compile(r"(^|\.)trunk\.stacks\.\d+\.merge_heatmaps\.conv\.weight$"), 1),
]

# a tensor of a stack, and what its stack adds to what it was given: there the batch norms that follow the convolutions
_STACK = re.compile(r"(^|\.)trunk\.stacks\.(\d+)\.")
_FUSION = re.compile(r"(?:^|\.)trunk\.stacks\.(\d+)\.merge_(?:feature|heatmaps)\.bn\.(?:weight|bias)$")

# What a stack put in before the last one adds at first, as a part of what it would: little enough for the next to see
# almost what it was trained on, and more than nothing, at which ReLU has no gradient.
_QUIET = 0.03

# a tensor's part of the network, for people
_GROUP = re.compile(r"^(?:network\.)?(trunk\.stacks\.\d+(?:\.predict)?|trunk\.stem|[^.]+(?:\.[^.]+)?).*$")


@dataclass(frozen=True)
class Start:
    """A trained network and its landmarks; ``scheme`` is None where a file of a released layout holds points that no
    built-in scheme has."""

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
        """The network's numbers, those that a learner of another kind has."""
        return self.network.size if isinstance(self.network, HIHNet) else Size(self.stacks)

    @property
    def landmarks(self) -> int:
        """Number of points."""
        return int(cast("StackedHourglass", self.network.trunk).stacks[0].predict.out_channels)  # type: ignore[union-attr,arg-type]


@dataclass(frozen=True)
class WarmStart:
    """What became of a network's tensors, by name.

    Attributes:
        kept: taken over whole.
        rows: taken over for some landmarks: how many of how many.
        copies: number of each stack beyond the source's -> the source's stack that it started from.
        fresh: left as they were: no such tensor in the start weights, or of another shape.
        unused: of the start weights, without a place here.
    """

    kept: tuple[str, ...] = field(repr=False)
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    copies: Mapping[int, int] = field(default_factory=dict)
    fresh: tuple[str, ...] = field(default=(), repr=False)
    unused: tuple[str, ...] = ()

    def summary(self) -> str:
        """For a person, in a few lines."""
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
    """Start weights by what `checkpoints.find_checkpoint` takes, or a ``.pth`` of the released layout.

    Args:
        init: "HIH_T", "HIH_T/300w", a folder (a run's ``best``), a Hub repository, or a
            ``.pth`` file.
        scheme: the landmarks of the network that is to be trained: of a size alone ("HIH_T") its checkpoint for
            them is taken where there is one, else the 300W one.

    Raises:
        ValueError, FileNotFoundError, OSError: as those two.
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
    return Start(checkpoints.load_network(found), found.config.scheme, name, found.config)


def same_points(source: Scheme | None, target: Scheme) -> NDArray[np.intp] | None:
    """(K target,) the source landmark that names the same, or nearly the same, point; -1 where none does.

    Between built-in schemes by their conversion, of which a landmark's largest part is taken, in either direction;
    between others by name. None if no landmark has one.
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
        model: a `HIHNet`, or a module that holds one as ``network`` or whose parts carry its names (`learner`).
        start: where from.
        scheme: the model's landmarks.
        sources: (K,) the landmark of ``start`` that each of the model's starts from, -1 for none, as of
            `matching.match`; by default those of `same_points`.

    A tensor of the same name and shape is copied. Of the tensors with one row per landmark, the rows of landmarks
    that both schemes have are (see `same_points`, or ``sources``).

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
        points = np.where(points >= 0, start.config.readout.sources[points], -1)  # its landmarks' heads
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
    """Rows of the same landmarks; returns how many."""
    others = [n for i, n in enumerate(target.shape) if i != axis]
    if points is None or others != [n for i, n in enumerate(source.shape) if i != axis]:
        return 0
    to = np.flatnonzero(points >= 0)
    take = torch.from_numpy(points[to])
    target.index_copy_(axis, torch.from_numpy(to), source.index_select(axis, take).to(target.dtype))
    return len(to)
