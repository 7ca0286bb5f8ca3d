"""The precisions that the hardware supports, and the precision that is chosen."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hih_align import FaceAligner
from hih_align.runtime import placement, precision
from hih_align.runtime.precision import autocast_precision, computed_dtype, fastest_dtype, native_dtypes

CPU, CUDA = "cpu", "cuda"
F32, BF16, F16 = "float32", "bfloat16", "float16"


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that simulates a CPU with certain flags, and a GPU."""

    def has(*flags: str, machine: str = "x86_64", mkldnn: bool = True, gpu: tuple[int, int] | None = None) -> None:
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
        monkeypatch.setattr("platform.machine", lambda: machine)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: mkldnn)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "avx512_bf16" in flags, raising=False)
        monkeypatch.setattr(precision, "_cpu_flags", lambda: frozenset(flags))
        can = "avx512f" in flags or "bf16" in flags  # the answer of PyTorch, which counts emulation as support
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: can, raising=False)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: can, raising=False)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: gpu)
        # OpenVINO emulates bfloat16 by AVX512, and computes in float32 without it
        monkeypatch.setattr(precision, "_of_openvino", lambda: (BF16,) if "avx512f" in flags else ())

    return has


@pytest.mark.parametrize(
    ("options", "cpu", "training"),
    [
        ({"flags": ("avx2",)}, {F32}, "no"),
        ({"flags": ("avx2", "avx512f")}, {F32}, "no"),  # bfloat16 is emulated, which is seven times slower than float32
        ({"flags": ("avx2", "avx512f", "avx512_bf16")}, {F32, BF16}, "bf16"),
        ({"flags": ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16")}, {F32, BF16, F16}, "bf16"),
        ({"flags": ("avx512f", "avx512_bf16"), "mkldnn": False}, {F32}, "no"),
        ({"flags": ("bf16",), "machine": "aarch64"}, {F32, BF16, F16}, "bf16"),
        ({"flags": (), "machine": "arm64"}, {F32}, "no"),
    ],
)
def test_cpus(hardware: Any, options: dict[str, Any], cpu: set[str], training: str) -> None:
    flags = options.pop("flags")
    hardware(*flags, **options)
    assert set(native_dtypes(CPU)) == cpu
    assert autocast_precision("auto", CPU) == training
    expected = BF16 if BF16 in cpu else F32
    assert placement.choose_dtype("auto", CPU, "torch") == expected
    # OpenVINO has its own kernels
    own = BF16 if "avx512_bf16" in flags or BF16 in cpu else F32
    assert placement.choose_dtype("auto", CPU, "openvino") == own
    assert placement.choose_dtype("auto", CPU, "onnxruntime") is None  # this runtime has only one precision


@pytest.mark.parametrize(
    ("limit", "native"),
    [
        ("AVX2", {F32}),
        ("AVX512_CORE", {F32}),
        ("avx512_core", {F32}),
        ("AVX512_CORE_AMX", {F32, BF16}),
        ("", {F32, BF16}),
    ],
)
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_instructions_that_the_environment_forbids(
    monkeypatch: pytest.MonkeyPatch, hardware: Any, limit: str, native: set[str], runtime: str
) -> None:
    hardware("avx512f", "avx512_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert set(native_dtypes(CPU, runtime)) == native


@pytest.mark.parametrize(
    ("gpu", "native", "training", "inference"),
    [
        ((6, 1), {F32}, "no", F32),  # GTX 1080
        ((7, 0), {F32, F16}, "fp16", F16),  # V100
        ((7, 5), {F32, F16}, "fp16", F16),  # T4
        ((8, 0), {F32, BF16, F16}, "bf16", F16),  # A100
        ((9, 0), {F32, BF16, F16}, "bf16", F16),  # H100
    ],
)
def test_gpus(hardware: Any, gpu: tuple[int, int], native: set[str], training: str, inference: str) -> None:
    hardware(gpu=gpu)
    assert set(native_dtypes(CUDA)) == native
    assert autocast_precision("auto", CUDA) == training
    assert placement.choose_dtype("auto", CUDA, "torch") == inference


def test_outside_linux_pytorch_is_asked(hardware: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, expected in ((("avx512f", "avx512_bf16"), BF16), (("avx512f",), F32)):
        hardware(*flags)
        monkeypatch.setattr(precision, "_cpu_flags", frozenset)
        assert fastest_dtype(CPU, [BF16]) == expected
        monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # it is private: a later one may lack it
        assert fastest_dtype(CPU, [BF16]) == F32


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags that the Linux kernel reports, read here without the package's helper functions."""
    path = Path("/proc/cpuinfo")
    words = set(path.read_text().split()) if path.is_file() else set()
    if "avx2" not in words:
        pytest.skip("not an x86 CPU with Linux and AVX2")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert (BF16 in native_dtypes(CPU)) == ("avx512_bf16" in words)
    assert (F16 in native_dtypes(CPU)) == ("avx512_fp16" in words)


def test_a_named_precision_is_taken_with_a_warning_if_it_is_emulated(hardware: Any) -> None:
    hardware("avx2", "avx512f")
    with pytest.warns(RuntimeWarning, match=r"precision is 'bf16': this CPU has no .*bfloat16, .* take 'auto' or 'no'"):
        assert autocast_precision("bf16", CPU) == "bf16"
    hardware(gpu=(7, 5))
    with pytest.warns(RuntimeWarning, match="this GPU has no instructions for bfloat16"):
        assert autocast_precision("bf16", CUDA) == "bf16"
    hardware("avx512f", "avx512_bf16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for asked in ("bf16", "no", "auto"):
            autocast_precision(asked, CPU)
    with pytest.raises(ValueError, match="precision is 'half', expected one of"):
        autocast_precision("half", CPU)


@pytest.mark.parametrize(
    ("backend", "flags", "what", "computed"),
    [
        ("torch", ["avx2"], "it is emulated, several times slower than float32", torch.bfloat16),
        ("openvino", ["avx2", "avx512f"], "it is emulated, several times slower than float32", torch.bfloat16),
        ("openvino", ["avx2"], "OpenVINO computes in float32", torch.float32),
    ],
)
def test_an_aligner_warns_if_its_precision_is_not_native(
    hardware: Any,
    converted_nano: Callable[..., str],
    backend: str,
    flags: list[str],
    what: str,
    computed: torch.dtype,
    astronaut: NDArray[np.uint8],
    astronaut_box: tuple[float, ...],
) -> None:
    model = converted_nano(backend, weights=False)
    hardware(*flags)
    message = f"dtype is 'bfloat16': this CPU has no instructions for bfloat16, so {what}.* take dtype='auto'"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        half = FaceAligner.from_pretrained(model, device="cpu", dtype="bfloat16", backend=backend)
    assert [Path(warning.filename).name for warning in caught if warning.category is RuntimeWarning] == [
        Path(__file__).name
    ]
    assert half.dtype is computed
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        auto = FaceAligner.from_pretrained(model, device="cpu", dtype="auto", backend=backend)
        assert auto.dtype is torch.float32
        half.align(astronaut, astronaut_box, refine=0)  # the warning comes once, not at each call


def test_the_answer_of_openvino_is_that_of_a_compiled_model() -> None:
    ov = pytest.importorskip("openvino")
    from hih_align.runtime.openvino import core

    given = ov.opset13.parameter([1, 8], np.float32)
    model = ov.Model([ov.opset13.relu(given)], [given])
    names = {"f32": F32, "bf16": BF16}
    for hint, dtype in names.items():
        compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        computed = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        assert computed_dtype(dtype, "openvino") == names[computed]
    assert computed_dtype(BF16, "torch") == BF16
