"""PyTorch on any device: the reference, and the only runtime of the base installation. `cuda` extends it for GPUs."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..hub.config import Config
from ..method.network import HIHNet
from ..method.settings import plain_torch
from . import fork
from .backend import Backend, Found, Runtime, faces_at_once
from .inference import InferenceNet
from .memory import raise_trim_threshold
from .transfer import upload


class TorchBackend(Backend):
    """See `Backend`."""

    name: Runtime = "torch"

    def __init__(self, network: HIHNet, config: Config, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = str(dtype).removeprefix("torch.")
        self._device = device
        self._group = faces_at_once(config.size)
        self._model = on_device(InferenceNet(network, config, dtype), device)
        if device.type == "cpu":
            raise_trim_threshold()

    def __call__(self, crops: NDArray[np.uint8]) -> Found:
        """See `Backend`."""
        return fork.run(self._points, crops)

    def heatmaps(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, S, S, 3) uint8 crops -> integer (B, H, S/4, S/4) and decimal (B, H, n, n) heatmaps of H heads."""
        return fork.run(self._heatmaps, crops)

    def _points(self, crops: NDArray[np.uint8]) -> Found:
        with torch.inference_mode(), plain_torch(self._device.type):
            return self._read(torch.cat([self._find(part) for part in self._parts(crops)]))

    def _heatmaps(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode(), plain_torch(self._device.type):
            integer, decimal = zip(*(self._model.heatmaps(part) for part in self._parts(crops)), strict=True)
            return torch.cat(integer).cpu().numpy(), torch.cat(decimal).cpu().numpy()

    def _find(self, crops: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 crops -> (B, K, 3) float32 x, y, score, all on the device."""
        points, scores = self._model(crops)
        return torch.cat((points, scores[..., None]), -1)

    def _read(self, found: Tensor) -> Found:
        together = found.cpu().numpy()  # only here the CPU waits for the device
        return together[..., :2], together[..., 2]

    def _parts(self, crops: NDArray[np.uint8]) -> tuple[Tensor, ...]:
        if self._device.type == "cpu":
            return torch.split(torch.from_numpy(crops), self._group)
        return (upload(crops, self._device),)


def on_device(model: InferenceNet, device: torch.device) -> InferenceNet:
    """Move the module to a device. The memory format of its weights is channels_last, which is faster."""
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
