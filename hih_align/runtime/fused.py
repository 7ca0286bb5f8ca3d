"""An implementation of the network for GPUs: each convolution with its bias, addition and ReLU is one call.

Between convolutions a GPU mostly reads and writes memory. Fused calls avoid most of this. The layers, their order and
their weights are those of `method.network` after `inference.folded`. `probe` measures on the GPU which implementation
is the fastest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method.network import DownBlock, HIHNet, Hourglass, Level, Residual, Stack, Unit

#: The matrix units of a GPU need numbers of channels that are multiples of this, in half precision.
CHANNELS = 8


@dataclass(frozen=True)
class Kernels:
    """The options of an implementation of the network. With all options False it is the plain one.

    Attributes:
        fuse: convolution, bias, addition and ReLU are one call of cuDNN. Numbers of channels are padded to multiples of
            `CHANNELS`.
        enlarge: bilinear enlarging is two matrix products. The second product includes the addition of the skip branch.
        products: with ``fuse``, 1x1 convolutions with ReLU are matrix products by cuBLASLt.
    """

    fuse: bool = False
    enlarge: bool = False
    products: bool = False

    def __str__(self) -> str:
        return "+".join(name for name in ("fuse", "enlarge", "products") if getattr(self, name)) or "plain"


PLAIN = Kernels()


class Calls(NamedTuple):
    """The two fused calls of cuDNN, or functions that compute the same."""

    conv_relu: Callable[..., Tensor]
    conv_add_relu: Callable[..., Tensor]


Pair = tuple[int, ...]


def _conv_relu(
    x: Tensor, weight: Tensor, bias: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups).relu_()


def _conv_add_relu(
    x: Tensor,
    weight: Tensor,
    z: Tensor,
    alpha: float,
    bias: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
) -> Tensor:
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups).add_(z, alpha=alpha).relu_()


#: The calls on devices without cuDNN.
REFERENCE = Calls(_conv_relu, _conv_add_relu)
CUDNN = Calls(torch.cudnn_convolution_relu, torch.cudnn_convolution_add_relu)


class FusedNet(nn.Module):
    """Computes what `HIHNet.predict` computes.

    Args:
        network: the result of `inference.folded`. It is copied.
        kernels: the options of the implementation.

    Attributes:
        input_size: the input size of the network in pixels.
    """

    def __init__(self, network: HIHNet, kernels: Kernels) -> None:
        super().__init__()
        self.kernels, self.input_size, self.landmarks = kernels, network.input_size, network.landmarks
        network = copy.deepcopy(network)
        if kernels.fuse:
            _merge_shortcut_biases(network)
            _pad(network)
        self.trunk, self.decimal_head = network.trunk, network.decimal_head
        sides = [network.input_size // 8 >> level for level in range(_depth(network))] if kernels.enlarge else []
        for side in sides:
            # the matrix that enlarges a row of ``side`` pixels to 2 * ``side`` pixels
            rows = F.interpolate(torch.eye(side)[None], scale_factor=2.0, mode="linear", align_corners=True)[0].T
            self.register_buffer(f"enlarge_{side}", rows.contiguous())
        self.requires_grad_(False).eval()

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See `HIHNet.predict`."""
        if self.kernels.fuse:
            images = _more_channels(images)
        x = self._run(self.trunk.stem, images)
        heatmaps = x
        for stack in cast("list[Stack]", list(self.trunk.stacks)):
            heatmaps, x = self._stack(stack, x)
        head = self.decimal_head
        x = F.max_pool2d(self._unit(head.expand, x), 3, stride=2)
        decimal = head.predict(self._unit(head.squeeze, self._run(head.down, x)))
        return heatmaps[:, : self.landmarks], decimal[:, : self.landmarks]

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        if isinstance(module, nn.Sequential):
            for part in module:
                x = self._run(part, x)
            return x
        if isinstance(module, Unit):
            return self._unit(module, x)
        if isinstance(module, Residual):
            inner = self._unit(module.conv2, self._unit(module.conv1, x))
            return self._add_relu(inner, module.conv3.conv, self._shortcut(module.shortcut, x))
        if isinstance(module, DownBlock):
            inner = self._unit(module.conv1, x)
            return self._add_relu(inner, module.conv2.conv, self._shortcut(module.shortcut, x))
        if isinstance(module, Hourglass):
            return self._hourglass(module, x)
        found: Tensor = module(x)
        return found

    def _hourglass(self, hourglass: Hourglass, x: Tensor) -> Tensor:
        levels = cast("list[Level]", list(hourglass.levels))
        skips = []
        for level in levels:
            skips.append(self._run(level.skip, x))
            x = self._run(level.down, F.max_pool2d(x, 2))
        x = self._run(hourglass.center, x)
        for level, skip in zip(reversed(levels), reversed(skips), strict=True):
            x = self._enlarged(self._run(level.up, x), skip)
        return x

    def _stack(self, stack: Stack, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self._unit(stack.feature, self._run(stack.residual, self._hourglass(stack.hourglass, x)))
        heatmaps: Tensor = stack.predict(feature)
        merged = self._unit(stack.merge_feature, feature).add_(x)
        return heatmaps, merged.add_(self._unit(stack.merge_heatmaps, heatmaps))

    # -- the steps

    def _unit(self, unit: Unit, x: Tensor) -> Tensor:
        conv = unit.conv
        if not isinstance(unit.relu, nn.ReLU):
            return _conv(x, conv)
        if not self._fits(conv):
            return _conv(x, conv).relu_()
        if self.kernels.products and conv.kernel_size == (1, 1) and conv.stride == (1, 1):
            return _product_relu(x, conv)
        call = (CUDNN if x.is_cuda else REFERENCE).conv_relu
        return call(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def _add_relu(self, x: Tensor, conv: nn.Conv2d, z: Tensor) -> Tensor:
        if not self._fits(conv):
            return _conv(x, conv).add_(z).relu_()
        call = (CUDNN if x.is_cuda else REFERENCE).conv_add_relu
        return call(x, conv.weight, z, 1.0, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    def _fits(self, conv: nn.Conv2d) -> bool:
        return self.kernels.fuse and conv.in_channels % CHANNELS == 0 and conv.out_channels % CHANNELS == 0

    def _shortcut(self, shortcut: nn.Module, x: Tensor) -> Tensor:
        return _conv(x, shortcut.conv) if isinstance(shortcut, Unit) else x

    def _enlarged(self, x: Tensor, skip: Tensor) -> Tensor:
        """Enlarge ``x`` (B, C, h, w) by a factor of 2 and add ``skip`` (B, C, 2h, 2w)."""
        if not self.kernels.enlarge:
            return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True).add_(skip)
        count, channels, height, width = x.shape
        down, across = self.get_buffer(f"enlarge_{height}"), self.get_buffer(f"enlarge_{width}")
        # with channels_last, a row of pixels is a contiguous vector: first enlarge the height, then the width
        rows = x.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        tall = torch.bmm(down.expand(count, -1, -1), rows).view(count * 2 * height, width, channels)
        beside = skip.permute(0, 2, 3, 1).reshape(count * 2 * height, 2 * width, channels)
        sum_ = torch.baddbmm(beside, across.expand(count * 2 * height, -1, -1), tall)
        return sum_.view(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def _conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _product_relu(x: Tensor, conv: nn.Conv2d) -> Tensor:
    count, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(-1, channels)
    assert conv.bias is not None
    found = torch._addmm_activation(conv.bias, rows, conv.weight.view(conv.out_channels, channels).t())
    return found.view(count, height, width, conv.out_channels).permute(0, 3, 1, 2)


def _depth(network: HIHNet) -> int:
    return max(len(stack.hourglass.levels) for stack in cast("list[Stack]", list(network.trunk.stacks)))


def _merge_shortcut_biases(network: HIHNet) -> None:
    """Move the bias of each shortcut to the last convolution of its block, which is added to the shortcut."""
    for block in network.modules():
        last = block.conv3 if isinstance(block, Residual) else block.conv2 if isinstance(block, DownBlock) else None
        if last is None or not isinstance(block.shortcut, Unit):
            continue
        shortcut = block.shortcut.conv
        assert last.conv.bias is not None
        assert shortcut.bias is not None
        last.conv.bias = nn.Parameter(last.conv.bias + shortcut.bias)
        shortcut.bias = None


def _pad(network: HIHNet) -> None:
    """Pad the channels of the image and of the heatmaps to a multiple of `CHANNELS`. The new weights are zero."""
    first = next(module for module in network.trunk.stem.modules() if isinstance(module, nn.Conv2d))
    _widen(first, inputs=True)
    for stack in cast("list[Stack]", list(network.trunk.stacks)):
        _widen(stack.predict, inputs=False)
        _widen(stack.merge_heatmaps.conv, inputs=True)
    _widen(network.decimal_head.predict, inputs=False)


def _widen(conv: nn.Conv2d, inputs: bool) -> None:
    more = -(conv.in_channels if inputs else conv.out_channels) % CHANNELS
    if inputs:
        conv.weight = nn.Parameter(F.pad(conv.weight, (0, 0, 0, 0, 0, more)))
        conv.in_channels += more
        return
    conv.weight = nn.Parameter(F.pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, more)))
    assert conv.bias is not None
    conv.bias = nn.Parameter(F.pad(conv.bias, (0, more)))
    conv.out_channels += more


def _more_channels(images: Tensor) -> Tensor:
    more = -images.shape[1] % CHANNELS
    # keep the memory format channels_last
    return F.pad(images.permute(0, 2, 3, 1), (0, more)).permute(0, 3, 1, 2)
