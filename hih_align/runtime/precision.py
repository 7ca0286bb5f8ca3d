"""The precisions that the hardware supports. All other modules ask this module.

PyTorch emulates a precision that the hardware does not support, which is several times slower than float32. OpenVINO
emulates it or computes in float32 instead. Devices and dtypes are given by their PyTorch names. PyTorch is imported
only if nothing else knows the answer.
"""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

#: First compute capability of NVIDIA GPUs with bfloat16 (Ampere), and with float16 at full speed (Volta).
_CUDA_BFLOAT16, _CUDA_FLOAT16 = (8, 0), (7, 0)

#: The instruction sets to which the environment variable ONEDNN_MAX_CPU_ISA can limit oneDNN, and which lack bfloat16.
#: PyTorch and OpenVINO compute with oneDNN.
_WITHOUT_BFLOAT16 = ("sse41", "avx", "avx2", "avx2_vnni", "avx512_core", "avx512_core_vnni")

Autocast = Literal["no", "bf16", "fp16"]
_AUTOCAST: dict[str, Autocast] = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def native_dtypes(device: str, runtime: str = "torch") -> tuple[str, ...]:
    """The floating-point dtypes that a device supports without emulation. "float32" is always among them.

    bfloat16: CPUs with AVX512-BF16, AMX or Arm's bfloat16 instructions; NVIDIA GPUs from Ampere on (not T4, not V100);
    AMD GPUs. float16: CPUs with AVX512-FP16, if PyTorch uses it; NVIDIA GPUs from Volta on; AMD and Apple GPUs. For
    other devices only float32 is known.

    Args:
        device: "cpu", "cuda:0", ...
        runtime: the runtime that computes. PyTorch uses the CPU's instructions through oneDNN; a build may lack it.

    On a CPU, ONEDNN_MAX_CPU_ISA is respected.
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
    """The first of ``preferred`` that the device supports without emulation, else "float32"."""
    native = native_dtypes(device, runtime)
    return next((dtype for dtype in preferred if dtype in native), "float32")


def computed_dtype(dtype: str, runtime: str) -> str:
    """The dtype in which a runtime computes on this CPU if ``dtype`` is asked for.

    It is ``dtype``, or "float32" if OpenVINO neither has the dtype on this CPU nor emulates it.
    """
    return "float32" if runtime == "openvino" and dtype not in ("float32", *_of_openvino()) else dtype


def warn_if_emulated(
    dtype: str, device: str, name: str, instead: str, stacklevel: int = 3, runtime: str = "torch"
) -> None:
    """Warn if a device has no instructions for a floating-point dtype. The warning says what the runtime does instead.

    Args:
        dtype: the requested dtype; int8 never warns.
        device: the device that computes.
        name: the argument that requested the dtype, with its value.
        instead: faster values of that argument.
        stacklevel: of the warning.
        runtime: the runtime that computes.
    """
    kind = device.partition(":")[0]
    if dtype in ("bfloat16", "float16") and kind in ("cpu", "cuda") and dtype not in native_dtypes(device, runtime):
        what = "it is emulated, several times slower than float32"
        if kind == "cpu" and computed_dtype(dtype, runtime) == "float32":
            what = "OpenVINO computes in float32 instead"
        warnings.warn(
            f"{name}: this {'CPU' if kind == 'cpu' else 'GPU'} has no instructions for {dtype}, so {what}; {instead}",
            RuntimeWarning,
            stacklevel=stacklevel,
        )


def autocast_precision(asked: str, device: str) -> Autocast:
    """The precision of a training.

    Args:
        asked: "auto", "no" (float32), "bf16" or "fp16". "auto" means "bf16" if the device supports it, else "fp16" on
            NVIDIA GPUs that support it, else "no". "bf16" warns if it is emulated.
        device: the device that trains.
    """
    if asked == "auto":
        # float16 needs scaled gradients, which work only on GPUs
        on_gpu = device.partition(":")[0] == "cuda"
        return _AUTOCAST[fastest_dtype(device, ("bfloat16", "float16") if on_gpu else ("bfloat16",))]
    for dtype, name in _AUTOCAST.items():
        if name == asked:
            warn_if_emulated(dtype, device, f"precision is {asked!r}", "take 'auto' or 'no'", 4)
            return name
    raise ValueError(f"precision is {asked!r}, expected one of {['auto', *_AUTOCAST.values()]}")


def _of_cpu(runtime: str) -> list[str]:
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower() in _WITHOUT_BFLOAT16:
        return []
    flags = _cpu_flags() if platform.machine().lower() in ("x86_64", "amd64") else frozenset()
    if flags:
        found = ["bfloat16"] * ("avx512_bf16" in flags) + ["float16"] * ("avx512_fp16" in flags)
    else:
        found = _of_cpu_by_torch()
    if runtime == "torch" and found:
        import torch

        found *= torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return found


def _of_openvino() -> tuple[str, ...]:
    """The dtypes besides float32 in which OpenVINO computes on this CPU, natively or emulated."""
    from .openvino import core

    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(dtype for dtype, name in (("bfloat16", "BF16"), ("float16", "FP16")) if name in capabilities)


def _of_cpu_by_torch() -> list[str]:
    """For other systems than Linux. On x86 PyTorch reports bfloat16 if it can emulate it, which needs only AVX512."""
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return []
    bfloat16, float16 = torch.ops.mkldnn._is_mkldnn_bf16_supported(), torch.ops.mkldnn._is_mkldnn_fp16_supported()
    if platform.machine().lower() in ("x86_64", "amd64"):
        known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # it is private: a later one may lack it
        bfloat16, float16 = bfloat16 and known is not None and bool(known()), False
    return ["bfloat16"] * bool(bfloat16) + ["float16"] * bool(float16)


def _cpu_flags() -> frozenset[str]:
    """The names of the CPU's instruction sets on Linux; empty on other systems."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
