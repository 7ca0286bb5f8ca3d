"""Measures which implementation of a network (`fused.Kernels`) is the fastest on this GPU, once per process."""

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

#: Number of faces in a measured batch.
FACES = 64

#: After this many seconds, no further implementation is tried.
SECONDS = 10.0

#: Another implementation is used only if it is faster by this share.
FASTER = 0.03

#: Largest difference from the heatmaps of the plain implementation, as a share of their root mean square. Another order
#: of sums in half precision causes smaller differences. A wrong result causes much larger ones.
TOLERANCE = {torch.float16: 0.05, torch.bfloat16: 0.2}

#: Steps of the search. Each step adds an option to the fastest implementation so far.
_CHANGES = ({"fuse": True}, {"enlarge": True}, {"products": True})

Heatmaps = tuple[Tensor, Tensor]
Stopwatch = Callable[[Callable[[], object]], float]


@dataclass(frozen=True)
class Tried:
    """The result for an implementation: seconds for `FACES` faces, or None and the reason why it cannot be used."""

    kernels: Kernels
    seconds: float | None
    reason: str = ""


_lock = threading.Lock()
_found: dict[tuple[object, ...], tuple[Tried, ...]] = {}


def fastest(tried: tuple[Tried, ...]) -> Kernels:
    """The fastest implementation. The plain one, unless another one is faster by more than `FASTER`."""
    best = tried[0]
    for one in tried[1:]:
        if one.seconds is not None and (best.seconds is None or one.seconds < best.seconds * (1 - FASTER)):
            best = one
    return best.kernels


def probe(plain: InferenceNet, make: Callable[[Kernels], InferenceNet]) -> tuple[Tried, ...]:
    """The results for networks of this shape on this GPU, the plain implementation first. The first call measures them.

    Args:
        plain: the model in the plain implementation, on a CUDA GPU. `TOLERANCE` must contain its dtype.
        make: creates the model in another implementation.
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
    """Try the options one after the other. An option is not used if it is slower, fails, or gives other heatmaps.

    If the plain implementation fails, no option is tried.

    Args:
        way: for an implementation, returns a function that computes the heatmaps of always the same faces.
        stopwatch: measures the seconds of a call.
        tolerance: see `TOLERANCE`.
    """
    began = time.perf_counter()
    plain = way(PLAIN)
    try:
        expected = plain()
        tried = [Tried(PLAIN, stopwatch(plain))]
    except Exception as error:  # so many faces do not fit into the memory of the GPU; fewer may
        return (Tried(PLAIN, None, _reason(error)),)
    for change in _CHANGES:
        kernels = replace(fastest(tuple(tried)), **change)
        if kernels.products and not kernels.fuse:
            continue
        if time.perf_counter() - began > SECONDS:
            tried.append(Tried(kernels, None, f"not tried: the search took more than {SECONDS:g} s"))
            continue
        try:
            call = way(kernels)
            off = max(_off(found, there) for found, there in zip(call(), expected, strict=True))
            if off <= tolerance:  # False for NaN
                tried.append(Tried(kernels, stopwatch(call)))
            else:
                tried.append(Tried(kernels, None, f"heatmaps differ by {off:.2g} of their root mean square"))
        except Exception as error:  # any error: the plain implementation works
            tried.append(Tried(kernels, None, _reason(error)))
    return tuple(tried)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt().clamp(min=1e-12))


def gpu_seconds(call: Callable[[], object], runs: int = 5) -> float:
    """Mean seconds of a call on the current GPU, measured by CUDA events after two calls to warm up."""
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
