"""Which way of running a network is the fastest on this GPU, by measuring it once in a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..method.network import HIHNet
from ..method.settings import plain_torch
from .fused import PLAIN, Kernels
from .inference import InferenceNet

#: Faces that are measured together.
FACES = 64

#: Once a probe has taken so many seconds, no further way is tried.
SECONDS = 10.0

#: A way has to be faster by this share.
FASTER = 0.03

#: How far a way's heatmaps may be off the plain ones, as a share of their root mean square. What comes of another order
#: of sums in half precision is below; a wrong sum is far above.
TOLERANCE = {torch.float16: 0.05, torch.bfloat16: 0.2}

#: Steps of the search; each adds to what was the fastest before it.
_CHANGES = ({"fuse": True}, {"enlarge": True}, {"products": True})

Heatmaps = tuple[Tensor, Tensor]
Stopwatch = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Tried:
    """A way of running the network: seconds of `FACES` faces, or why it cannot be had."""

    kernels: Kernels
    seconds: float | None
    reason: str = ""


_lock = threading.Lock()
_found: dict[tuple[object, ...], tuple[Tried, ...]] = {}


def fastest(tried: tuple[Tried, ...]) -> Kernels:
    """The way that is taken; the plain one unless another is faster by more than `FASTER`."""
    best = tried[0]
    for one in tried[1:]:
        if one.seconds is not None and (best.seconds is None or one.seconds < best.seconds * (1 - FASTER)):
            best = one
    return best.kernels


def probe(plain: InferenceNet, make: Callable[[Kernels], InferenceNet]) -> tuple[Tried, ...]:
    """The ways that were tried for networks of this shape on this GPU, the plain one first; measured when first asked.

    Args:
        plain: the model in the plain way, on a CUDA GPU, in a dtype that `TOLERANCE` has.
        make: the same in another way.
    """
    network, device = plain.network, plain.get_buffer("scale").device
    assert isinstance(network, HIHNet)
    key = device, plain.dtype, network.size, network.landmarks
    with _lock:
        if key not in _found:
            side = network.input_size
            crops = torch.randint(256, (FACES, side, side, 3), generator=torch.Generator().manual_seed(0), device="cpu")

            def way(kernels: Kernels) -> Callable[[], Heatmaps]:
                model = plain if kernels == PLAIN else make(kernels)
                return lambda: model.heatmaps(pixels)

            with torch.inference_mode(), torch.cuda.device(device), plain_torch(device.type):
                pixels = crops.to(torch.uint8).to(device)
                _found[key] = search(way, gpu_seconds, TOLERANCE[plain.dtype])
        return _found[key]


def search(
    way: Callable[[Kernels], Callable[[], Heatmaps]], stopwatch: Stopwatch, tolerance: float
) -> tuple[Tried, ...]:
    """Try the ways one after the other: what is slower, fails or finds something else is left out.

    Args:
        way: what computes the heatmaps of the same faces in a way.
        stopwatch: seconds of a call.
        tolerance: see `TOLERANCE`.
    """
    began = time.perf_counter()
    plain = way(PLAIN)
    expected = plain()
    tried = [Tried(PLAIN, stopwatch(plain))]
    for change in _CHANGES:
        kernels = replace(fastest(tuple(tried)), **change)
        if kernels.products and not kernels.fuse:
            continue
        if time.perf_counter() - began > SECONDS:
            tried.append(Tried(kernels, None, f"not tried: {SECONDS:g} s were over"))
            continue
        try:
            call = way(kernels)
            off = max(_off(found, there) for found, there in zip(call(), expected, strict=True))
            if off <= tolerance:  # NaN is not
                tried.append(Tried(kernels, stopwatch(call)))
            else:
                tried.append(Tried(kernels, None, f"heatmaps are off by {off:.2g} of their root mean square"))
        except Exception as error:  # whatever it is, the plain way works
            tried.append(Tried(kernels, None, str(error).splitlines()[0] if str(error) else type(error).__name__))
    return tuple(tried)


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt().clamp(min=1e-12))


def gpu_seconds(call: Callable[[], object], runs: int = 5) -> float:
    """Seconds of a call on the current GPU, by its own clock, after two that warm up."""
    for _ in range(2):
        call()
    event: Any = torch.cuda.Event
    begin, end = (event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(runs):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000 / runs
