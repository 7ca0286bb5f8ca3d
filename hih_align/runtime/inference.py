"""What every runtime runs: pixels of crops -> points and scores, in one module without a parameter to train."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .. import scores
from ..hub.config import Config
from ..method import heatmaps
from ..method.decoder import STRIDE
from ..method.network import MEAN, STD, HIHNet, Unit, check_finite
from ..method.settings import plain_torch
from .fused import PLAIN, FusedNet, Kernels

#: Held while a network is converted: `torch.export` and the tracer serve one thread of a process at a time.
CONVERTING = threading.RLock()


class InferenceNet(nn.Module):
    """A copy of a network for inference: normalisation before it, batch norm folded into its convolutions, decoder
    and scores after it.

    Args:
        network: copied; stays as it is.
        config: whose decoder and calibration are used.
        dtype: of the network's weights and activations; pixels are normalised and heatmaps decoded in float32.
        kernels: how the network is run.
    """

    def __init__(
        self, network: HIHNet, config: Config, dtype: torch.dtype = torch.float32, kernels: Kernels = PLAIN
    ) -> None:
        super().__init__()
        plain = folded(network)
        self.network: HIHNet | FusedNet = (plain if kernels == PLAIN else FusedNet(plain, kernels)).to(dtype)
        self.decoder = config.decoder
        self.readout = config.readout
        self.calibration = config.calibration.get(config.decoder.method)
        self.dtype = dtype
        # a row of pixels at once: three channels alone would be too short a loop
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device="cpu").repeat(network.input_size) for values in (MEAN, STD)
        )
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        if self.readout is not None:
            used, sources = self.readout.used, self.readout.sources
            self.register_buffer("used", torch.from_numpy(used))
            self.register_buffer("sources", torch.from_numpy(np.searchsorted(used, sources)))
            weights = torch.from_numpy(self.readout.weights[:, used])
            self.register_buffer("mix", torch.stack((weights.real, weights.imag)).float()[:, :, :, None])
        self.requires_grad_(False).eval()

    def check(self) -> None:
        """Refuse to convert NaN or infinity. Raises `ValueError`, which names the tensor."""
        check_finite(self.network.state_dict(), "network")

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Points and scores.

        Args:
            crops: (B, S, S, 3) uint8 RGB, S the network's ``input_size``.

        Returns:
            points (B, K, 2) float32, (x, y) in crop pixels, and scores (B, K) float32 in [0, 1].
        """
        integer, decimal = self.heatmaps(crops)
        if self.readout is None:
            return self._points(integer, decimal), scores.score(integer, self.calibration)
        used = self.get_buffer("used")
        integer, decimal = integer.index_select(1, used), decimal.index_select(1, used)
        points, sure = self._points(integer, decimal), scores.score(integer, self.calibration)
        sources = self.get_buffer("sources")
        sure = sure.index_select(1, sources)
        if self.readout.picks:
            return points.index_select(1, sources), sure
        # about the crop's middle, and by no matrix product: a runtime in bfloat16 has no room for coordinates in it
        middle = (self.network.input_size - 1) / 2
        x, y = torch.split((points - middle)[:, None], 1, -1)
        real, imaginary = self.get_buffer("mix").unbind(0)
        mixed = torch.cat((x * real - y * imaginary, x * imaginary + y * real), -1)
        return mixed.sum(2) + middle, sure

    def _points(self, integer: Tensor, decimal: Tensor) -> Tensor:
        return heatmaps.decode(integer, decimal, self.decoder) * STRIDE

    def heatmaps(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8 crops -> float32 integer (B, H, S/4, S/4) and decimal (B, H, n, n) heatmaps of the
        network's H heads (`Config.heads`)."""
        side = self.network.input_size
        rows = crops.flatten(2).float()
        pixels = torch.addcmul(self.get_buffer("shift"), rows, self.get_buffer("scale")).to(self.dtype)
        # in memory a pixel's channels stay beside each other: channels_last
        integer, decimal = self.network.predict(pixels.view(-1, side, side, 3).permute(0, 3, 1, 2))
        return integer.float().contiguous(), decimal.float().contiguous()  # reductions over maps are faster so


def program(model: InferenceNet) -> torch.export.ExportedProgram:
    """The module as a graph, with a batch of any size."""
    model.check()
    side = model.network.input_size
    with CONVERTING, plain_torch():
        # an example of one would be taken for a constant
        example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
        return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def folded(network: HIHNet) -> HIHNet:
    """A float32 copy in eval mode whose batch norms are part of the convolutions before them."""
    result = _unwrapped(copy.deepcopy(network)).float().eval()
    for unit in result.modules():
        if isinstance(unit, Unit):
            unit.conv = fuse_conv_bn_eval(unit.conv, unit.bn)
            unit.bn = nn.Identity()  # type: ignore[assignment]  # nothing is left to do
            if isinstance(unit.relu, nn.ReLU):
                unit.relu = nn.ReLU(inplace=True)
    return result


def _unwrapped(module: nn.Module) -> Any:
    """A module without `torch.compile` around it or what it holds, in place: a copy is compiled by none."""
    while (inner := getattr(module, "_orig_mod", None)) is not None:  # told without its class, seconds to import
        module = inner
    for name, child in module.named_children():
        if (plain := _unwrapped(child)) is not child:
            setattr(module, name, plain)
    return module
