"""PyTorch on a CUDA GPU. The GPU cuts out the crops, and the network is replayed as CUDA graphs.

For few faces, launching the kernels one by one takes longer than running them. A CUDA graph launches all of them at
once. The CPU waits for the GPU only when it reads the points.
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

#: Batch sizes of the graphs. Another batch is padded to the next size, or split into batches of the largest size.
GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 64)

#: Number of runs before a capture. In these runs libraries choose kernels and allocate workspaces, which cannot be
#: captured.
WARM_UP = 3

_capturing = threading.Lock()  # CUDA allows one capture at a time in a process


class Recorder(Protocol):
    """The operations of a GPU that `CudaGraphs` needs."""

    def aside(self) -> AbstractContextManager[None]:
        """Run the kernels of the block after all earlier kernels of the caller, and before all its later kernels."""
        ...

    def record(self, function: Callable[[Tensor], Tensor], pixels: Tensor) -> Callable[[], Tensor]:
        """Record ``function(pixels)``. To be called inside `aside`.

        Each call of the returned function runs ``function`` on the current content of ``pixels``. The next call of this
        or of another recorded function overwrites the tensor that it returned.
        """
        ...


class GraphRecorder:
    """See `Recorder`. The graphs of a recorder share memory, so they run one after the other on its own stream."""

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
            # with "thread_local", other threads may allocate memory during the capture
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                found = function(pixels)

        def replay() -> Tensor:
            graph.replay()
            return found

        return replay


class CudaGraphs:
    """Replays a function of a batch as graphs of fixed batch sizes. Thread-safe.

    A graph is captured when its size is first needed. If the capture fails (an old driver, too little memory), a
    warning says so, and from then on the function is called without graphs.

    Args:
        function: maps (B, ...) to (B, ...). It must not wait for the device, and its rows must not depend on each
            other.
        recorder: the recorder of the device.
        lock: held while a graph runs. Functions that share a recorder must share the lock.
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], recorder: Recorder, lock: threading.Lock | None = None
    ) -> None:
        self._function = function
        self._recorder = recorder
        self._graphs: dict[int, tuple[Tensor, Callable[[], Tensor]]] = {}
        self._usable = True
        self._lock = lock or threading.Lock()  # graphs share memory

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
                except Exception as error:  # any error: without graphs the function works, or raises a clear error
                    self._usable = False
                    self._graphs.clear()
                    warnings.warn(
                        f"CUDA graphs cannot be used here, so aligning is slower: {error}",
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
            pixels[: len(part)].copy_(part)  # the content of the other rows does not matter
            found = replay()[: len(part)].clone()
        if found.is_cuda:  # created on the recorder's stream, but used on the caller's stream
            found.record_stream(torch.cuda.current_stream(found.device))
        return found


class CudaBackend(TorchBackend):
    """See `Backend`.

    Args:
        network, config, device, dtype: as in `make`.
        recorder: records graphs. None: a `GraphRecorder` of the device.
        kernels: the implementation of the network. None: on a GPU in half precision the fastest one, which is measured
            once per process (`probe`); else the plain one.
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
        self._device = self._model.get_buffer("scale").device  # with the number of the GPU

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
        """See `Backend`. The device cuts out the faces."""
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
        """As `_find`, for rows of `packed`. So cutting out the face is a part of the graph."""
        return self._find(unpacked(rows, self._model.network.input_size))
