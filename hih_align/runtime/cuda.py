"""PyTorch on a CUDA GPU: crops are made there, and the network is replayed as CUDA graphs.

A batch of few faces is over sooner than its kernels can be launched one by one; a graph launches them all at once.
Nothing waits for the GPU until the points are read.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..crops import Crop
from ..hub.config import Config
from ..method.network import HIHNet
from ..method.settings import plain_torch
from .backend import Found, Photograph
from .device_crops import packed, unpacked, warp
from .fused import PLAIN, Kernels
from .inference import InferenceNet
from .probe import TOLERANCE, fastest, probe
from .pytorch import TorchBackend, on_device
from .transfer import upload

#: Batches that graphs are captured for. Others are filled up to the next, or cut into several of the largest.
GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 64)

#: Runs before a capture: libraries choose their kernels and fetch their workspaces, which a graph cannot hold.
WARM_UP = 3

_capturing = threading.Lock()  # one capture at a time in the process: CUDA's rule


class Recorder(Protocol):
    """What `CudaGraphs` needs of a GPU."""

    def aside(self) -> AbstractContextManager[None]:
        """Run what is inside after all that the caller has launched, and before all that it will launch."""
        ...

    def record(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Callable[[], Tensor]:
        """``function(pixels)`` to be done again and again, with whatever ``pixels`` then holds; inside `aside`.

        What the result returns is overwritten by the next call, also by one of another record.
        """
        ...


class GraphRecorder:
    """See `Recorder`. Its graphs share their memory, so they run one after the other, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stubs
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See `Recorder`."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Callable[[], Tensor]:
        """See `Recorder`."""
        with _capturing:
            for _ in range(WARM_UP):
                function(pixels)
            graph = torch.cuda.CUDAGraph()
            # other threads may fetch memory meanwhile
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                found = function(pixels)

        def replay() -> Tensor:
            graph.replay()
            return found

        return replay


class CudaGraphs:
    """A function of a batch, replayed as a graph of a fixed batch size; thread-safe.

    A graph is captured when its size is first needed. Where that fails (an old driver, too little memory), a warning
    says so, and from then on the function is called.

    Args:
        function: (B, ...) to (B, ...), without a wait for the device; its rows do not depend on each other.
        recorder: of the device that it runs on.
        lock: held while a graph runs; functions that share a recorder share it.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], recorder: Recorder, lock: threading.Lock | None = None
    ) -> None:
        self._function = function
        self._recorder = recorder
        self._graphs: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}
        self._usable = True
        self._lock = lock or threading.Lock()  # they share their memory

    def __call__(self, batch: Tensor) -> Tensor:
        """``function(batch)``, in parts of at most the largest of `GRAPH_SIZES`."""
        if len(batch) <= GRAPH_SIZES[-1]:
            return self._part(batch)
        return torch.cat([self._part(part) for part in torch.split(batch, GRAPH_SIZES[-1])])

    def _part(self, part: Tensor) -> Tensor:
        with self._lock:
            if self._usable:
                try:
                    return self._replay(part)
                except Exception as error:  # whatever it is: without graphs it either works, or says what is wrong
                    self._usable = False
                    self._graphs.clear()
                    warnings.warn(
                        f"CUDA graphs cannot be used here, so faces are aligned without them, more slowly: {error}",
                        RuntimeWarning,
                        stacklevel=2,
                    )
        return self._function(part)

    def _replay(self, part: Tensor) -> Tensor:
        size = next(size for size in GRAPH_SIZES if size >= len(part))
        with self._recorder.aside():
            if size not in self._graphs:
                pixels = part.new_zeros(size, *part.shape[1:])
                self._graphs[size] = pixels, self._recorder.record(self._function, pixels)
            pixels, replay = self._graphs[size]
            pixels[: len(part)].copy_(part)  # what is in the other rows does not matter
            found = replay()[: len(part)].clone()
        if found.is_cuda:  # made on the recorder's stream, and used on the caller's
            found.record_stream(torch.cuda.current_stream(found.device))
        return found


class CudaBackend(TorchBackend):
    """See `Backend`.

    Args:
        network, config, device, dtype: as in `make`.
        recorder: None is the device's own.
        kernels: how the network is run; None: on a GPU in half precision the fastest way, which is measured once in a
            process (`probe`), else the plain one.
    """

    def __init__(
        self,
        network: HIHNet,
        config: Config,
        device: torch.device,
        dtype: torch.dtype,
        recorder: Recorder | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__(network, config, device, dtype)
        self._device = self._model.get_buffer("scale").device  # with its number

        def model(kernels: Kernels) -> InferenceNet:
            return on_device(InferenceNet(network, config, dtype, kernels), self._device)

        if kernels is None:
            half = device.type == "cuda" and dtype in TOLERANCE
            kernels = fastest(probe(self._model, model)) if half else PLAIN
        self.kernels = kernels
        if kernels != PLAIN:
            self._model = model(kernels)
        recorder, lock = recorder or GraphRecorder(self._device), threading.Lock()
        self._graphs = CudaGraphs(self._find, recorder, lock)
        self._single = CudaGraphs(self._find_packed, recorder, lock)

    def __call__(self, crops: NDArray[np.uint8]) -> Found:
        """See `Backend`."""
        with torch.inference_mode(), plain_torch(self._device.type):
            return self._read(self._graphs(upload(crops, self._device)))

    def align(self, photographs: Sequence[Photograph], transforms: Sequence[Crop], mirror: bool = False) -> Found:
        """See `Backend`; the faces are cut out on the device."""
        with torch.inference_mode(), plain_torch(self._device.type):
            if len(transforms) == 1 and not mirror:
                row = packed(photographs[0], transforms[0], self._device)
                if row is not None:
                    return self._read(self._single(row))
            crops = warp(photographs, transforms, self._device)
            if mirror:
                crops = torch.cat((crops, crops.flip(2)))
            return self._read(self._graphs(crops))

    def _find_packed(self, rows: Tensor) -> Tensor:
        """As `_find`, of rows of `packed`: cutting the face out is a part of the graph."""
        return self._find(unpacked(rows, self._model.network.input_size))
