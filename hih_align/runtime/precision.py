"""Which precisions the hardware computes in: the one place that knows.

A precision that the hardware does not have is emulated, which is several times slower than float32.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

#: First compute capability of NVIDIA GPUs that have bfloat16 (Ampere), and float16 at full rate (Volta).
_CUDA_BFLOAT16, _CUDA_FLOAT16 = (8, 0), (7, 0)

Autocast = Literal["no", "bf16", "fp16"]
_AUTOCAST: dict[torch.dtype, Autocast] = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


def native_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Floating-point dtypes that a device computes in without emulation, float32 always among them.

    bfloat16: CPUs with AVX512-BF16 or AMX, or Arm's bfloat16 instructions; NVIDIA GPUs from Ampere on (not T4, not
    V100); AMD GPUs. float16: CPUs with AVX512-FP16, where PyTorch uses it; NVIDIA GPUs from Volta on; AMD and Apple
    GPUs. Of other devices only float32 is known.
    """
    found = [torch.float32]
    if device.type == "cuda":
        newest = (99, 0) if torch.version.hip else torch.cuda.get_device_capability(device)
        found += [torch.bfloat16] * (newest >= _CUDA_BFLOAT16) + [torch.float16] * (newest >= _CUDA_FLOAT16)
    elif device.type == "mps":
        found += [torch.float16]
    elif device.type == "cpu" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        found += [torch.bfloat16] * _cpu_has_bfloat16() + [torch.float16] * _cpu_has_float16()
    return tuple(found)


def fastest_dtype(device: torch.device, preferred: Sequence[torch.dtype]) -> torch.dtype:
    """The first of ``preferred`` that is native to a device, else float32."""
    native = native_dtypes(device)
    return next((dtype for dtype in preferred if dtype in native), torch.float32)


def warn_if_emulated(dtype: torch.dtype, device: torch.device, name: str, instead: str, stacklevel: int = 3) -> None:
    """Warn where a device has no instructions for a floating-point dtype.

    Args:
        dtype: that was asked for; int8 is none of these.
        device: on which it is to be computed in.
        name: of the argument that asked, with its value.
        instead: values of that argument which are faster.
        stacklevel: of the warning.
    """
    if dtype.is_floating_point and device.type in ("cpu", "cuda") and dtype not in native_dtypes(device):
        warnings.warn(
            f"{name}: this {'CPU' if device.type == 'cpu' else 'GPU'} has no instructions for "
            f"{str(dtype).removeprefix('torch.')}, so it is emulated, several times slower than float32; {instead}",
            RuntimeWarning,
            stacklevel=stacklevel,
        )


def autocast_precision(asked: str, device: torch.device) -> Autocast:
    """The precision that a network is trained in.

    Args:
        asked: "auto", "no" (float32), "bf16" or "fp16". "auto" is "bf16" where the device has it, "fp16" on other
            NVIDIA GPUs that have that, and "no" elsewhere. "bf16" warns where it is emulated.
        device: that trains.
    """
    if asked == "auto":
        # float16 needs its gradients scaled, which is for GPUs
        preferred = (torch.bfloat16, torch.float16) if device.type == "cuda" else (torch.bfloat16,)
        return _AUTOCAST[fastest_dtype(device, preferred)]
    for dtype, name in _AUTOCAST.items():
        if name == asked:
            warn_if_emulated(dtype, device, f"precision is {asked!r}", "take 'auto' or 'no'", 4)
            return name
    raise ValueError(f"precision is {asked!r}, expected one of {['auto', *_AUTOCAST.values()]}")


def _cpu_has_bfloat16() -> bool:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    # of x86 PyTorch says yes wherever it can emulate bfloat16, which takes AVX512 alone
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # PyTorch 2.4 lacks it
    return bool(known()) if known is not None else "avx512_bf16" in _cpu_flags()


def _cpu_has_float16() -> bool:
    if not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return "avx512_fp16" in _cpu_flags()


def _cpu_flags() -> frozenset[str]:
    """Names of the CPU's instruction sets, as Linux gives them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
