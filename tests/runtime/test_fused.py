"""`fused` and `probe`: each way of running the network gives the same result, and the fastest way is taken.

cuDNN's functions are replaced by PyTorch code that computes the same, because there may be no GPU. The tests at the end
need a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hih_align import SCHEMES, Config, FaceAligner, HIHNet
from hih_align.method.network import Unit
from hih_align.runtime import cuda as cuda_module
from hih_align.runtime import fused as fused_module
from hih_align.runtime import probe as probe_module
from hih_align.runtime.cuda import CudaBackend
from hih_align.runtime.fused import CUDNN, PLAIN, REFERENCE, Calls, FusedNet, Kernels
from hih_align.runtime.inference import InferenceNet, folded
from hih_align.runtime.probe import FASTER, Tried, fastest, gpu_seconds, probe, search


@pytest.fixture(autouse=True)
def _endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe has no time limit, so that the tests pass on a slow machine."""
    monkeypatch.setattr(probe_module, "SECONDS", 1e9)


WAYS = [Kernels(*values) for values in itertools.product((False, True), repeat=3)]


def shaken(landmarks: int, stacks: int, **size: Any) -> HIHNet:
    """A network whose batch norms and biases have random values, so that each of them changes the result."""
    torch.manual_seed(0)
    network = HIHNet(landmarks, stacks, **size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.6, 1.4)  # type: ignore[arg-type]
            for values in (module.bias, module.running_mean):
                nn.init.normal_(values, std=0.3)  # type: ignore[arg-type]
    return network.eval()


@pytest.fixture(scope="module")
def small() -> HIHNet:
    """A network with two stacks, so that heatmaps are merged, and a number of landmarks that needs padding."""
    return shaken(5, 2, width=0.25, head_channels=64, input_size=128)


def images(count: int = 2, side: int = 128) -> Tensor:
    made = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    return made.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kernels", WAYS, ids=str)
def test_every_way_gives_the_result_of_the_network(small: HIHNet, kernels: Kernels) -> None:
    fused = FusedNet(folded(small), kernels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        for found, expected in zip(fused.predict(images()), small.predict(images()), strict=True):
            assert found.shape == expected.shape
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kernels", [Kernels(True), Kernels(True, True, True)], ids=str)
def test_networks_of_the_papers_width(kernels: Kernels) -> None:
    network = shaken(68, 1)
    fused = FusedNet(folded(network), kernels).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        for found, expected in zip(fused.predict(images(1, 256)), network.predict(images(1, 256)), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def counting(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """A list of the calls of the two cuDNN functions: name and kernel size of each call."""
    made: list[tuple[str, int]] = []

    def watched(name: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def inner(x: Tensor, weight: Tensor, *others: Any) -> Tensor:
            assert x.is_contiguous(memory_format=torch.channels_last)
            assert x.shape[1] % 8 == 0
            assert weight.shape[0] % 8 == 0
            made.append((name, weight.shape[-1]))
            return call(x, weight, *others)

        return inner

    calls = Calls(watched("relu", REFERENCE.conv_relu), watched("add", REFERENCE.conv_add_relu))
    monkeypatch.setattr(fused_module, "REFERENCE", calls)
    return made


def test_every_convolution_with_relu_is_one_cudnn_call(small: HIHNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image's channels and the five heatmaps are padded, so that cuDNN can run every layer.

    No layout is changed.
    """
    made = counting(monkeypatch)
    units = [module for module in small.modules() if isinstance(module, Unit)]
    with_relu = sum(isinstance(unit.relu, nn.ReLU) for unit in units)
    blocks = sum(type(module).__name__ in ("Residual", "DownBlock") for module in small.modules())
    with torch.inference_mode():
        FusedNet(folded(small), Kernels(True)).to(memory_format=torch.channels_last).predict(images())  # type: ignore[call-overload]
        assert [name for name, _ in made].count("relu") == with_relu
        assert [name for name, _ in made].count("add") == blocks
        made.clear()
        FusedNet(folded(small), Kernels(True, True, True)).to(memory_format=torch.channels_last).predict(images())  # type: ignore[call-overload]
    assert ("relu", 1) not in made  # convolutions of 1 x 1 are matrix products
    assert ("relu", 3) in made
    assert [name for name, _ in made].count("add") == blocks


def test_the_given_network_is_not_changed(small: HIHNet) -> None:
    plain = folded(small)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    FusedNet(plain, Kernels(True, True, True))
    assert before.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_cudnn_functions_are_called_as_they_are_declared() -> None:
    """Names and order of the arguments agree with PyTorch's declaration, which exists in builds without CUDA, too."""
    for call, ours in zip(
        (torch.ops.aten.cudnn_convolution_relu, torch.ops.aten.cudnn_convolution_add_relu), REFERENCE, strict=True
    ):
        declared = [argument.name.removeprefix("self") or "x" for argument in call.default._schema.arguments]
        code = ours.__code__
        assert list(code.co_varnames[: code.co_argcount]) == declared
    assert (torch.cudnn_convolution_relu, torch.cudnn_convolution_add_relu) == CUDNN


# -- choice of the way


def maps(value: float) -> tuple[Tensor, Tensor]:
    return torch.full((2, 3, 4, 4), value), torch.full((2, 3, 8, 8), value)


def searched(seconds: dict[str, float], values: dict[str, float] | None = None, fails: str = "") -> tuple[Tried, ...]:
    asked: list[str] = []

    def way(kernels: Kernels) -> Callable[[], tuple[Tensor, Tensor]]:
        def call() -> tuple[Tensor, Tensor]:
            asked.append(str(kernels))
            if str(kernels) == fails:
                raise RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED\nsecond line")
            return maps((values or {}).get(str(kernels), 1.0))

        return call

    def stopwatch(call: Callable[[], object]) -> float:
        call()
        return seconds[asked[-1]]

    return search(way, stopwatch, 0.05)


def test_the_fastest_way_is_built_step_by_step() -> None:
    tried = searched({"plain": 1.0, "fuse": 0.6, "fuse+enlarge": 0.5, "fuse+enlarge+products": 0.55})
    assert [str(one.kernels) for one in tried] == ["plain", "fuse", "fuse+enlarge", "fuse+enlarge+products"]
    assert fastest(tried) == Kernels(True, True)


def test_a_way_that_is_hardly_faster_is_not_taken() -> None:
    tried = searched({"plain": 1.0, "fuse": 1 - FASTER / 2, "enlarge": 0.9})
    assert fastest(tried) == Kernels(enlarge=True)
    # products are possible only together with fuse
    assert [str(one.kernels) for one in tried] == ["plain", "fuse", "enlarge"]


def test_a_way_that_fails_or_gives_another_result_is_not_taken() -> None:
    tried = searched({"plain": 1.0, "enlarge": 0.5}, fails="fuse")
    assert (tried[1].seconds, tried[1].reason) == (None, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
    assert fastest(tried) == Kernels(enlarge=True)
    wrong = searched({"plain": 1.0, "enlarge": 0.5}, {"fuse": 1.1})
    assert wrong[1].seconds is None
    assert "differ by 0.1" in wrong[1].reason
    nothing = searched({"plain": 1.0, "enlarge": 2.0}, {"fuse": float("nan")})
    assert fastest(nothing) == PLAIN


def test_a_probe_without_enough_memory_keeps_the_plain_way() -> None:
    tried = searched({}, fails="plain")
    assert tried == (Tried(PLAIN, None, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),)
    assert fastest(tried) == PLAIN


def test_a_probe_stops_at_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "SECONDS", -1.0)
    tried = searched({"plain": 1.0})
    assert fastest(tried) == PLAIN
    assert all("not tried" in one.reason for one in tried[1:])


def test_a_probe_runs_once_for_networks_of_the_same_shape(small: HIHNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is used in place of a GPU; every way runs on the CPU, too."""
    times = iter([1.0, 0.5, 0.6, 0.4])
    monkeypatch.setattr(probe_module, "gpu_seconds", lambda call: next(times))
    monkeypatch.setattr(probe_module, "FACES", 1)
    monkeypatch.setattr(probe_module, "_found", {})
    monkeypatch.setitem(probe_module.TOLERANCE, torch.float32, 1e-4)
    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    config = Config(SCHEMES["300w"], stacks=2)

    def make(kernels: Kernels) -> InferenceNet:
        return InferenceNet(small, config, kernels=kernels)

    tried = probe(make(PLAIN), make)
    assert [(str(one.kernels), one.seconds) for one in tried] == [
        ("plain", 1.0),
        ("fuse", 0.5),
        ("fuse+enlarge", 0.6),
        ("fuse+products", 0.4),
    ]
    assert probe(make(PLAIN), make) is tried  # no further time is measured


class Untimed:
    """A recorder that no backend uses to record."""


def test_only_gpus_in_half_precision_are_probed(small: HIHNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any) -> Any:
        raise AssertionError("probed")

    monkeypatch.setattr(cuda_module, "probe", refuse)
    config = Config(SCHEMES["300w"], stacks=2)
    for dtype in (torch.float32, torch.bfloat16):
        backend = CudaBackend(small, config, torch.device("cpu"), dtype, Untimed())
        assert backend.kernels == PLAIN
        assert isinstance(backend._model.network, HIHNet)
    told = CudaBackend(small, config, torch.device("cpu"), torch.float32, Untimed(), Kernels(True))
    assert isinstance(told._model.network, FusedNet)


# -- with a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernels", WAYS[1:], ids=str)
def test_every_way_on_cuda(kernels: Kernels, dtype: torch.dtype) -> None:
    """With cuDNN and cuBLASLt, the trained network's heatmaps agree, for a batch and for one face."""
    if kernels.products and not kernels.fuse:
        pytest.skip("products need fuse")
    aligner = FaceAligner.from_pretrained("HIH_T", device="cuda", dtype=dtype)
    device = torch.device("cuda")
    crops = torch.randint(256, (64, 256, 256, 3), dtype=torch.uint8, device=device)
    with torch.inference_mode():
        plain, other = (
            InferenceNet(aligner.network, aligner.config, dtype, way).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            for way in (PLAIN, kernels)
        )
        for batch in (crops, crops[:1]):
            for found, expected in zip(other.heatmaps(batch), plain.heatmaps(batch), strict=True):
                assert probe_module._off(found, expected) < probe_module.TOLERANCE[dtype]


@pytest.mark.cuda
def test_the_probe_takes_the_fastest_way() -> None:
    aligner = FaceAligner.from_pretrained("HIH_T", device="cuda", dtype="float16")
    backend = aligner._runtime()
    assert isinstance(backend, CudaBackend)
    tried = next(iter(probe_module._found.values()))
    print(*tried, sep="\n")
    assert backend.kernels == fastest(tried)
    assert all(one.seconds is not None for one in tried), tried
    assert gpu_seconds(lambda: None) >= 0
