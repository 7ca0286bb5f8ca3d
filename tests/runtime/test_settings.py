"""Global settings, threads, damaged weights and changed networks: none of them makes points wrong."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hih_align import CheckpointError, FaceAligner, HIHNet, runtime
from hih_align.method.network import SIZES, check_finite, plain_name
from hih_align.method.watch import Watch
from hih_align.runtime import inference

BOX = (177.0, 80, 275, 200)
Array = NDArray[Any]


@pytest.fixture(scope="module")
def w300() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", device="cpu")


@pytest.fixture
def own() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", device="cpu")


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Any:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def default_device(device: str) -> Any:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS = {
    "meta": lambda: torch.device("meta"),
    "default device": lambda: default_device("meta"),
    "default dtype": lambda: default_dtype(torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_global_settings_do_not_change_points(w300: FaceAligner, astronaut: Array, setting: str) -> None:
    expected = w300.align(astronaut, BOX)
    maps = w300.heatmaps(astronaut, BOX)
    with SETTINGS[setting]():  # type: ignore[attr-defined]
        dtype, autocast = torch.get_default_dtype(), torch.is_autocast_enabled("cpu")
        loaded = FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
        for aligner in (loaded, w300):
            found = aligner.align(astronaut, BOX)
            np.testing.assert_array_equal(found.points, expected.points)
            np.testing.assert_array_equal(found.scores, expected.scores)
            np.testing.assert_array_equal(aligner.heatmaps(astronaut, BOX).decimal, maps.decimal)
        assert (torch.get_default_dtype(), torch.is_autocast_enabled("cpu")) == (dtype, autocast)
        assert torch.empty(1).device.type == ("meta" if setting in ("meta", "default device") else "cpu")
    assert {(p.dtype, p.device.type, p.requires_grad) for p in loaded.network.parameters()} == {
        (torch.float32, "cpu", True)
    }
    assert not any(p.is_inference() for p in loaded.network.parameters())


def test_loading_does_not_use_the_random_generator() -> None:
    before = torch.get_rng_state()
    FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("setting", ["meta", "autocast", "float64"])
def test_conversion_under_settings(w300: FaceAligner, astronaut: Array, setting: str) -> None:
    """Only the conversion to ONNX uses PyTorch, and OpenVINO gets its result."""
    pytest.importorskip("onnxruntime")
    with SETTINGS[setting]():  # type: ignore[attr-defined]
        found = FaceAligner.from_pretrained("HIH_N/300w", device="cpu", backend="onnxruntime").align(astronaut, BOX)
    np.testing.assert_allclose(found.points, w300.align(astronaut, BOX).points, atol=0.01)


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_two_threads_load_a_runtime(runtime: str) -> None:
    pytest.importorskip(runtime)
    failed: list[BaseException] = []

    def load() -> None:
        try:
            FaceAligner.from_pretrained("HIH_N/300w", device="cpu", backend=runtime)
        except BaseException as error:  # an exception in a thread would not reach pytest
            failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_conversion_does_not_change_output_and_loggers_of_others(w300: FaceAligner, monkeypatch: Any) -> None:
    pytest.importorskip("onnxruntime")
    from hih_align.runtime.convert import to_onnx

    export, seen = torch.onnx.export, []

    def look(*args: Any, **options: Any) -> Any:
        seen.append((sys.stdout, logging.getLogger("torch.onnx").level, warnings.filters[:]))
        return export(*args, **options)

    monkeypatch.setattr(torch.onnx, "export", look)
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        before = (sys.stdout, logging.getLogger("torch.onnx").level, warnings.filters[:])
        to_onnx(inference.InferenceNet(w300.network, w300.config))
    assert seen == [before]
    assert stream.getvalue() == ""
    assert logging.getLogger("torch.onnx").level == before[1]


@pytest.mark.slow  # Python compiles all of PyTorch anew
def test_openvino_without_docstrings() -> None:
    """``python -OO`` removes docstrings. OpenVINO's own converter of PyTorch modules would fail for want of them."""
    pytest.importorskip("openvino")
    load = "FaceAligner.from_pretrained('HIH_N/300w', backend='openvino')"
    code = f"from hih_align import FaceAligner; print({load}.backend)"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "openvino\n"), done.stderr


# damaged weights


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_weights_that_are_not_finite(own: FaceAligner, tmp_path: Path, value: float, kind: str) -> None:
    name = "decimal_head.squeeze.conv.weight"
    with torch.no_grad():
        own.network.get_parameter(name)[0, 0] = value
    own.save_pretrained(tmp_path / "own")
    with pytest.raises(CheckpointError, match=rf"model.safetensors: {name} holds {kind}"):
        FaceAligner.from_pretrained(tmp_path / "own", device="cpu")
    model = inference.InferenceNet(own.network, own.config)
    with pytest.raises(ValueError, match=rf"decimal_head.squeeze.conv.weight holds {kind}"):
        inference.program(model)
    for module in ("onnxruntime", "openvino"):
        pytest.importorskip(module)
        with pytest.raises(ValueError, match=f"holds {kind}"):
            runtime.make(module, own.network, own.config, "cpu", None)  # type: ignore[arg-type]


def test_finite_weights_whose_sum_overflows_are_taken() -> None:
    for dtype, value in ((torch.float32, 3e38), (torch.float64, 1e300), (torch.float16, 6e4)):
        check_finite({"weight": torch.full((9,), value, dtype=dtype)}, "file")
    with pytest.raises(ValueError, match="file: weight holds NaN"):
        check_finite({"weight": torch.tensor([float("inf"), float("-inf"), float("nan")])}, "file")


# changed networks


def test_a_replaced_submodule_is_used(own: FaceAligner, astronaut: Array) -> None:
    before = own.align(astronaut, BOX).points
    head = HIHNet(68, *SIZES["HIH_N"]).decimal_head.eval()
    own.network.decimal_head = head
    fresh = FaceAligner(own.network, own.config, device="cpu").align(astronaut, BOX).points
    assert (fresh != before).any()
    np.testing.assert_array_equal(own.align(astronaut, BOX).points, fresh)


def test_refresh_after_a_change_that_pytorch_does_not_count(own: FaceAligner, astronaut: Array) -> None:
    before = own.align(astronaut, BOX).points
    for parameter in own.network.decimal_head.parameters():
        parameter.data.copy_(parameter.data * 0.7)
    own.refresh()
    fresh = FaceAligner(own.network, own.config, device="cpu").align(astronaut, BOX).points
    assert (fresh != before).any()
    np.testing.assert_array_equal(own.align(astronaut, BOX).points, fresh)


def test_a_compiled_network_and_a_wrapped_one(own: FaceAligner, astronaut: Array, tmp_path: Path) -> None:
    expected = own.align(astronaut, BOX).points
    names = set(own.network.state_dict())
    for wrapped in (torch.compile(own.network), torch.nn.DataParallel(own.network)):
        own.network = wrapped  # type: ignore[assignment]
        assert isinstance(own.network, HIHNet)
        np.testing.assert_array_equal(own.align(astronaut, BOX).points, expected)
    own.network.decimal_head = torch.compile(own.network.decimal_head)  # type: ignore[assignment]
    assert any("_orig_mod." in name for name in own.network.state_dict())
    np.testing.assert_array_equal(own.align(astronaut, BOX).points, expected)
    own.save_pretrained(tmp_path / "own")
    again = FaceAligner.from_pretrained(tmp_path / "own", device="cpu")
    assert set(again.network.state_dict()) == names
    np.testing.assert_array_equal(again.align(astronaut, BOX).points, expected)


def test_a_network_that_does_not_fit(own: FaceAligner) -> None:
    with pytest.raises(ValueError, match=r"network has .*'landmarks': 5"):
        own.network = HIHNet(5, 1)
    with pytest.raises(TypeError, match="network is Linear, expected an HIHNet"):
        own.network = torch.nn.Linear(2, 2)  # type: ignore[assignment]


def test_names_without_wrappers() -> None:
    assert plain_name("module._orig_mod.trunk.module.a._orig_mod.weight") == "trunk.a.weight"
    assert plain_name("trunk.my_module.weight") == "trunk.my_module.weight"


def test_a_watch_is_much_faster_than_reading_all_tensors(own: FaceAligner) -> None:
    """The watch runs before each call, so it must be fast.

    Both are timed in turns, the fastest of many runs, so that another process does not slow only one of them down.
    """
    import timeit

    watch = Watch(own.network)

    def walk() -> Any:
        return [
            (t.data_ptr(), t._version)
            for m in own.network.modules()
            for t in (*m._parameters.values(),)
            if t is not None
        ]

    assert not watch.changed()
    times = np.min([[timeit.timeit(f, number=10) for f in (watch.changed, walk)] for _ in range(60)], axis=0)
    assert times[0] < times[1] / 2


def test_heatmaps_in_another_runtime_fold_the_network_once(astronaut: Array, monkeypatch: Any) -> None:
    pytest.importorskip("onnxruntime")
    aligner = FaceAligner.from_pretrained("HIH_N/300w", device="cpu", backend="onnxruntime")
    made: list[int] = []
    folded = inference.folded
    monkeypatch.setattr(inference, "folded", lambda network: made.append(1) or folded(network))
    first = aligner.heatmaps(astronaut, BOX)
    for _ in range(2):
        np.testing.assert_array_equal(aligner.heatmaps(astronaut, BOX).integer, first.integer)
    assert len(made) == 1
    with torch.no_grad():
        aligner.network.decimal_head.predict.weight *= 0.5
    assert (aligner.heatmaps(astronaut, BOX).decimal != first.decimal).any()
