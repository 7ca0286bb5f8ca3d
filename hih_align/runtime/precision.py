"""Which precisions the hardware computes in: the one place that knows.

A precision that the hardware does not have is emulated, which is several times slower than float32. Devices and dtypes
go by their names in PyTorch, which is imported only where it alone knows.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

#: First compute capability of NVIDIA GPUs that have bfloat16 (Ampere), and float16 at full rate (Volta).
_CUDA_BFLOAT16, _CUDA_FLOAT16 = (8, 0), (7, 0)

Autocast = Literal["no", "bf16", "fp16"]
_AUTOCAST: dict[str, Autocast] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def native_dtypes(device: str, runtime: str = "torch") -> tuple[str, ...]:
    """Floating-point dtypes that a device computes in without emulation, "float32" always among them.

    bfloat16: CPUs with AVX512-BF16 or AMX, or Arm's bfloat16 instructions; NVIDIA GPUs from Ampere on (not T4, not
    V100); AMD GPUs. float16: CPUs with AVX512-FP16, where PyTorch uses it; NVIDIA GPUs from Volta on; AMD and Apple
    GPUs. Of other devices only float32 is known.

    Args:
        device: "cpu", "cuda:0", ...
        runtime: that computes; PyTorch has the CPU's instructions by oneDNN, without which it may have been built.
    """
    kind = device.partition(":")[0]
    found: list[str] = []
    if kind == "cpu":
        found = _of_cpu(runtime)
    elif kind == "cuda":
        import torch

        newest = (99, 0) if torch.version.hip else torch.cuda.get_device_capability(device)
        found = ["bfloat16"] * (newest >= _CUDA_BFLOAT16) + ["float16"] * (newest >= _CUDA_FLOAT16)
    elif kind == "mps":
        found = ["float16"]
    return "float32", *found


def fastest_dtype(device: str, preferred: Sequence[str], runtime: str = "torch") -> str:
    """The first of ``preferred`` that is native to a device, else "float32"."""
    native = native_dtypes(device, runtime)
    return next((dtype for dtype in preferred if dtype in native), "float32")


def warn_if_emulated(
    dtype: str, device: str, name: str, instead: str, stacklevel: int = 3, runtime: str = "torch"
) -> None:
    """Warn where a device has no instructions for a floating-point dtype.

    Args:
        dtype: that was asked for; int8 is none of these.
        device: on which it is to be computed in.
        name: of the argument that asked, with its value.
        instead: values of that argument which are faster.
        stacklevel: of the warning.
        runtime: that computes.
    """
    kind = device.partition(":")[0]
    if dtype in ("bfloat16", "float16") and kind in ("cpu", "cuda") and dtype not in native_dtypes(device, runtime):
        warnings.warn(
            f"{name}: this {'CPU' if kind == 'cpu' else 'GPU'} has no instructions for {dtype}, so it is emulated, "
            f"several times slower than float32; {instead}",
            RuntimeWarning,
            stacklevel=stacklevel,
        )


def autocast_precision(asked: str, device: str) -> Autocast:
    """The precision that a network is trained in.

    Args:
        asked: "auto", "no" (float32), "bf16" or "fp16". "auto" is "bf16" where the device has it, "fp16" on other
            NVIDIA GPUs that have that, and "no" elsewhere. "bf16" warns where it is emulated.
        device: that trains.
    """
    if asked == "auto":
        # float16 needs its gradients scaled, which is for GPUs
        on_gpu = device.partition(":")[0] == "cuda"
        return _AUTOCAST[fastest_dtype(device, ("bfloat16", "float16") if on_gpu else ("bfloat16",))]
    for dtype, name in _AUTOCAST.items():
        if name == asked:
            warn_if_emulated(dtype, device, f"precision is {asked!r}", "take 'auto' or 'no'", 4)
            return name
    raise ValueError(f"precision is {asked!r}, expected one of {['auto', *_AUTOCAST.values()]}")


def _of_cpu(runtime: str) -> list[str]:
    flags = _cpu_flags() if platform.machine().lower() in ("x86_64", "amd64") else frozenset()
    if flags:
        found = ["bfloat16"] * ("avx512_bf16" in flags) + ["float16"] * ("avx512_fp16" in flags)
    else:
        found = _of_cpu_by_torch()
    if runtime == "torch" and found:
        import torch

        found *= torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return found


def _of_cpu_by_torch() -> list[str]:
    """Where Linux does not say it. Of x86 PyTorch says yes where it can emulate bfloat16, which takes AVX512 alone."""
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    bfloat16, float16 = torch.ops.mkldnn._is_mkldnn_bf16_supported(), torch.ops.mkldnn._is_mkldnn_fp16_supported()
    if platform.machine().lower() in ("x86_64", "amd64"):
        known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # PyTorch 2.4 lacks it
        bfloat16, float16 = bfloat16 and known is not None and bool(known()), False
    return ["bfloat16"] * bool(bfloat16) + ["float16"] * bool(float16)


def _cpu_flags() -> frozenset[str]:
    """Names of the CPU's instruction sets, as Linux gives them; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
