"""The inference module that all runtimes run or convert. It maps crops to points and scores, and cannot be trained."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .. import scores
from ..hub.config import Config
from ..method import heatmaps
from ..method.decoder import STRIDE
from ..method.network import MEAN, STD, HIHNet, Unit, check_finite
from ..method.reading import Reading
from ..method.settings import plain_torch
from ..method.unloaded import with_parts
from .fused import PLAIN, FusedNet, Kernels

#: Held while a network is converted: only one thread of a process can use `torch.export` and the tracer at a time.
CONVERTING = threading.RLock()


class InferenceNet(nn.Module):
    """A copy of a network for inference, with normalisation, decoder and scores.

    Batch normalisation is folded into the convolutions.

    Args:
        network: the network. It is copied and not changed.
        config: the config with the decoder and the calibration.
        dtype: dtype of the weights and activations of the network. Normalisation and decoding are in float32.
        kernels: the implementation of the network.
    """

    # buffers; `get_buffer` cannot be exported by PyTorch before 2.7
    scale: Tensor
    shift: Tensor
    used: Tensor
    sources: Tensor

    def __init__(
        self, network: HIHNet, config: Config, dtype: torch.dtype = torch.float32, kernels: Kernels = PLAIN
    ) -> None:
        super().__init__()
        plain = folded(network)
        self.network: HIHNet | FusedNet = plain if kernels == PLAIN else FusedNet(plain, kernels)
        if dtype != torch.float32 or kernels != PLAIN:
            self.network.to(dtype)
        self.decoder = config.decoder
        readout = config.reading
        self.reading: Reading | None = None
        self.selects = readout is not None
        self.calibration = config.calibration.get(config.decoder.method)
        self.dtype = dtype
        # constants for a whole row of pixels: a loop over three channels would be too short to be fast
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device="cpu").repeat(network.input_size) for values in (MEAN, STD)
        )
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)
        if readout is not None:
            used, sources = np.union1d(readout.used, config.sources), config.sources
            self.register_buffer("used", torch.from_numpy(used))
            self.register_buffer("sources", torch.from_numpy(np.searchsorted(used, sources)))
            if not readout.picks:
                self.reading = Reading(readout, used, (network.input_size - 1) / 2)
        self.requires_grad_(False).eval()

    def check(self) -> None:
        """Check the weights before a conversion. Raises `ValueError` if a tensor contains NaN or infinity."""
        check_finite(self.network.state_dict(), "network")

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Points and scores.

        Args:
            crops: (B, S, S, 3) uint8 RGB. S is the ``input_size`` of the network.

        Returns:
            points (B, K, 2) float32, (x, y) in crop pixels, and scores (B, K) float32 in [0, 1].
        """
        integer, decimal = self.heatmaps(crops)
        if not self.selects:
            return self._points(integer, decimal), scores.score(integer, self.calibration)
        used = self.used
        integer, decimal = integer.index_select(1, used), decimal.index_select(1, used)
        points, sure = self._points(integer, decimal), scores.score(integer, self.calibration)
        sources = self.sources
        read = points.index_select(1, sources) if self.reading is None else self.reading(points)
        return read, sure.index_select(1, sources)

    def _points(self, integer: Tensor, decimal: Tensor) -> Tensor:
        return heatmaps.decode(integer, decimal, self.decoder) * STRIDE

    def heatmaps(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, S, 3) uint8 crops -> integer (B, H, S/4, S/4) and decimal (B, H, n, n) heatmaps, float32.

        H is the number of heads of the network (`Config.heads`).
        """
        side = self.network.input_size
        rows = crops.flatten(2).float()
        pixels = torch.addcmul(self.shift, rows, self.scale).to(self.dtype)
        # the memory format is channels_last
        integer, decimal = self.network.predict(pixels.view(-1, side, side, 3).permute(0, 3, 1, 2))
        return integer.float().contiguous(), decimal.float().contiguous()  # this makes reductions over maps faster


def program(model: InferenceNet) -> torch.export.ExportedProgram:
    """Export the module as a graph for batches of any size."""
    model.check()
    side = model.network.input_size
    with CONVERTING, plain_torch():
        # with a batch of 1, the export would treat the batch size as a constant
        example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
        return torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def folded(network: HIHNet) -> HIHNet:
    """A float32 copy in eval mode. Each batch normalisation is folded into the convolution before it."""
    return _copied(network)


def _copied(module: nn.Module, own: bool = True) -> Any:
    """A folded copy in eval mode with float32 tensors, and without the wrappers of `torch.compile`.

    Args:
        module: the module. It is not changed.
        own: whether the tensors of the copy are its own. Folding makes new ones, so it does not need them.
    """
    while (inner := getattr(module, "_orig_mod", None)) is not None:  # no isinstance: the import takes seconds
        module = inner
    own = own and not isinstance(module, Unit)
    result = with_parts(module, lambda part: _copied(part, own), lambda tensor: _float32(tensor, own))
    result.training = False
    if isinstance(result, Unit):
        _fold(result)
    return result


def _float32(tensor: Tensor, own: bool) -> Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    found = tensor.detach().to(dtype, copy=own)
    return nn.Parameter(found, requires_grad=False) if isinstance(tensor, nn.Parameter) else found


def _fold(unit: Unit) -> None:
    conv, bn = unit.conv, unit.bn
    mean, var = bn.running_mean, bn.running_var
    assert mean is not None
    assert var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, mean, var, bn.eps, bn.weight, bn.bias)
    unit.bn = nn.Identity()  # type: ignore[assignment]  # nothing is left to do
    if isinstance(unit.relu, nn.ReLU):
        unit.relu = nn.ReLU(inplace=True)
