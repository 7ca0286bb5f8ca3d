"""Start weights for a narrower network, made of a trained network.

Each convolution of the narrow network takes fewer channels than that of the trained network. The kept channels are
those that explain most of what the following convolutions compute (pivoted Cholesky of the covariance of the
activations). The weights of the removed channels are moved to the kept channels by least squares, as in channel pruning
(He et al., 2017). Batch norm statistics are measured again. The result is not accurate yet, but it learns much faster
than random weights.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..data.records import spread
from ..method.network import HIHNet, scaled
from ..method.sizes import Size
from .augmentation import Augmentation, augment
from .recipe import Recipe
from .supply import Supply
from .warmstart import Start

#: Number of training faces that the choice of channels uses.
FACES = 256

#: Ridge of the least squares, as a share of the mean variance of the channels.
RIDGE = 1e-4

# the residual blocks, and the sets of channels that they take and give
_RESIDUALS = (
    (r"trunk\.stem\.1", "first", "second"),
    (r"trunk\.stem\.3", "second", "second"),
    (r"trunk\.stem\.4", "second", "stream"),
    (r"trunk\.stacks\.\d+\.(?:residual|hourglass\..*)", "stream", "stream"),
)


class Moments(NamedTuple):
    """Mean (C,) and covariance (C, C) of a convolution's input, float64."""

    mean: Tensor
    covariance: Tensor


def is_wider(source: Size, target: Size) -> bool:
    """Whether ``target`` is a narrower ``source``: no layer has more channels, and some layers have fewer."""
    counts = [(64, 64), (128, 128), (256, 256), (source.head_channels, target.head_channels)]
    pairs = [(scaled(a, source.width), scaled(b, target.width)) for a, b in counts]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def fitted(start: Start, size: Size, faces: Supply, recipe: Recipe) -> Start:
    """Start weights for a network of ``size``: narrowed by training faces if `is_wider` is true, else unchanged."""
    if not isinstance(start.network, HIHNet) or not is_wider(start.size, size):
        return start
    rows = spread(len(faces), FACES)
    images = [
        augment(
            *shown.faces,
            settings=Augmentation.none(),
            seeds=torch.zeros(len(shown.faces.points), dtype=torch.int64),
            permutation=None,
            crop_ratio=recipe.crop_ratio,
            margin=recipe.store_margin,
            size=size.input_size,
        ).images
        for shown in faces.batches(np.array_split(rows, -(-len(rows) // 16)))
    ]
    crops = torch.cat(images)
    network = narrowed(start.network.to(crops.device), size._replace(stacks=start.stacks), crops)
    return replace(start, network=network.cpu())


def narrowed(source: HIHNet, size: Size, images: Tensor, batch: int = 16) -> HIHNet:
    """Make a narrower network from a trained one. The result is in eval mode.

    Args:
        source: the trained network; it is not changed.
        size: the narrower size (see `is_wider`), with as many stacks as ``source``. If its decimal head has more
            stride-2 blocks than the source's, the decimal head gets random weights.
        images: (N, 3, S, S) normalised crops, which the choice of channels uses. S is the ``input_size`` of ``size``.
            A few hundred are enough.
        batch: number of images that go through a network together.

    Raises:
        ValueError: ``size`` is not narrower, or has another number of stacks.
    """
    if size.stacks != source.stacks or not is_wider(source.size, size):
        raise ValueError(f"size is {size}, expected a narrower size than {source.size}, with as many stacks")
    target = HIHNet(source.landmarks, *size).to(images.device)
    steps = len(target.decimal_head.down)
    fits = steps <= len(source.decimal_head.down)
    theirs, ours = _convolutions(source), _convolutions(target)
    if not fits:
        ours = {name: conv for name, conv in ours.items() if not name.startswith("decimal_head.")}
    spaces = {name: _spaces(name, steps) for name in ours}
    moments = _moments(source, images, batch)
    keep = _chosen(theirs, ours, spaces, moments)
    state = source.state_dict()
    with torch.no_grad():
        for name, conv in ours.items():
            taken, given = spaces[name]
            weight = theirs[name].weight.double()
            bias = None if theirs[name].bias is None else theirs[name].bias.double()  # type: ignore[union-attr]
            if given is not None:
                weight = weight[keep[given]]
            if taken is not None:
                mean, covariance = moments[name]
                kept = keep[taken]
                inner = covariance[kept][:, kept]
                ridge = RIDGE * inner.diagonal().mean().clamp(min=1e-12)
                inner = inner + ridge * torch.eye(len(kept), dtype=inner.dtype, device=inner.device)
                read = torch.linalg.solve(inner, covariance[kept]).T  # x = read x[kept] + constant
                if bias is not None:
                    bias = bias + weight.sum((2, 3)) @ (mean - read @ mean[kept])
                weight = torch.einsum("oihw,ik->okhw", weight, read)
            conv.weight.copy_(weight)
            if bias is not None and conv.bias is not None:
                conv.bias.copy_(bias)
            if name.endswith(".conv"):
                norm = name.removesuffix("conv") + "bn"
                rows = slice(None) if given is None else keep[given]
                for key in ("weight", "bias"):
                    getattr(target.get_submodule(norm), key).copy_(state[f"{norm}.{key}"][rows])
    measure_statistics(target, images, batch)
    return target.eval()


@torch.no_grad()
def measure_statistics(network: nn.Module, images: Tensor, batch: int = 16) -> None:
    """Measure the batch norm statistics again, in place: means over all batches of ``images`` (N, 3, S, S)."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta, training = [norm.momentum for norm in norms], network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # for PyTorch this means a plain mean
    network.train()
    for part in torch.split(images, batch):
        network(part)
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}


@torch.no_grad()
def _moments(network: HIHNet, images: Tensor, batch: int) -> dict[str, Moments]:
    """The `Moments` of the input of every convolution, by the name of the convolution."""
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}

    def add(name: str, taken: Tensor) -> None:
        x = taken.transpose(0, 1).flatten(1)
        count, total, products = x.shape[1], x.sum(1).double(), (x @ x.T).double()
        if name in sums:
            before = sums[name]
            count, total, products = count + before[0], total + before[1], products + before[2]
        sums[name] = count, total, products

    hooks = [
        conv.register_forward_pre_hook(lambda _module, inputs, name=name: add(name, inputs[0]))
        for name, conv in _convolutions(network).items()
    ]
    training = network.training
    network.eval()
    try:
        for part in torch.split(images, batch):
            network(part)
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    means = {name: (total / count, products / count) for name, (count, total, products) in sums.items()}
    return {name: Moments(mean, square - torch.outer(mean, mean)) for name, (mean, square) in means.items()}


@torch.no_grad()
def _chosen(
    theirs: dict[str, nn.Conv2d],
    ours: dict[str, nn.Conv2d],
    spaces: dict[str, tuple[str | None, str | None]],
    moments: dict[str, Moments],
) -> dict[str, Tensor]:
    """The kept channels of every set of channels, in ascending order."""
    sizes: dict[str, int] = {}
    kernels: dict[str, Tensor] = {}
    for name, conv in ours.items():
        taken = spaces[name][0]
        if taken is None:
            continue
        sizes[taken] = conv.in_channels
        importance = theirs[name].weight.double().square().sum((0, 2, 3)).sqrt()
        kernel = moments[name].covariance * torch.outer(importance, importance)
        kernel = kernel / kernel.trace().clamp(min=1e-30)  # gives each convolution the same weight
        kernels[taken] = kernels[taken] + kernel if taken in kernels else kernel
    return {space: pivots(kernel, sizes[space]) for space, kernel in kernels.items()}


def pivots(kernel: Tensor, count: int) -> Tensor:
    """The ``count`` rows of a covariance (C, C) that explain most of it, chosen one by one; in ascending order."""
    rest = kernel.clone()
    least = 1e-12 * kernel.trace()
    chosen: list[int] = []
    for _ in range(count):
        variance = rest.diagonal()
        explained = torch.where(variance > least, rest.square().sum(0) / variance.clamp(min=least), 0.0)
        explained[chosen] = -1
        best = int(explained.argmax())
        chosen.append(best)
        column = rest[:, best].clone()
        if column[best] > least:
            rest -= torch.outer(column, column) / column[best]
    return torch.tensor(sorted(chosen), device=kernel.device)


def _spaces(name: str, steps: int) -> tuple[str | None, str | None]:
    """The names of the sets of channels that a convolution takes and gives; None for pixels or landmarks.

    Convolutions whose outputs are added share a set. ``steps`` is the number of stride-2 blocks in the decimal head.
    """
    part = name.removesuffix(".conv").rpartition(".")[2]
    for pattern, taken, given in _RESIDUALS:
        if found := re.fullmatch(rf"({pattern})\.(?:conv1|conv2|conv3|shortcut)\.conv", name):
            block = found[1]
            inner: dict[str, tuple[str | None, str | None]] = {
                "conv1": (taken, f"{block}.1"),
                "conv2": (f"{block}.1", f"{block}.2"),
                "conv3": (f"{block}.2", given),
                "shortcut": (taken, given),
            }
            return inner[part]
    if found := re.fullmatch(r"decimal_head\.down\.(\d+)\.(?:conv1|conv2|shortcut)\.conv", name):
        n = int(found[1])
        return {
            "conv1": (f"head.{n}", f"head.{n}.1"),
            "conv2": (f"head.{n}.1", f"head.{n + 1}"),
            "shortcut": (f"head.{n}", f"head.{n + 1}"),
        }[part]
    stack = name.split(".")[2] if name.startswith("trunk.stacks.") else ""
    return {
        "trunk.stem.0.conv": (None, "first"),
        f"trunk.stacks.{stack}.feature.conv": ("stream", f"feature.{stack}"),
        f"trunk.stacks.{stack}.predict": (f"feature.{stack}", None),
        f"trunk.stacks.{stack}.merge_feature.conv": (f"feature.{stack}", "stream"),
        f"trunk.stacks.{stack}.merge_heatmaps.conv": (None, "stream"),
        "decimal_head.expand.conv": ("stream", "head.0"),
        "decimal_head.squeeze.conv": (f"head.{steps}", "squeezed"),
        "decimal_head.predict": ("squeezed", None),
    }[name]
