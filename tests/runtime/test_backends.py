"""`hih_align.runtime`: a private copy of the network is run, and all runtimes give the same results."""

from __future__ import annotations

import json
import pickle
import threading
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_crops import GRAIN
from torch import nn

from hih_align import Config, FaceAligner, HIHNet, Scheme, export
from hih_align import runtime as runtimes
from hih_align.crops import square_crop, warp
from hih_align.hub.manifest import read_manifest
from hih_align.method import heatmaps
from hih_align.method.decoder import STRIDE
from hih_align.method.network import MEAN, STD
from hih_align.method.sizes import SIZES
from hih_align.runtime import placement
from hih_align.runtime.inference import InferenceNet, folded
from hih_align.runtime.precision import computed_dtype
from hih_align.scores import Calibration

Array = NDArray[Any]

BOXES = np.array([(177.0, 80, 275, 200), (150, 60, 300, 230), (190, 90, 270, 190)])
RUNTIMES = ["openvino", "onnxruntime"]


def needs(runtime: str) -> None:
    for module in () if runtime == "torch" else (runtime, "onnx"):
        pytest.importorskip(module)


@pytest.fixture(scope="module")
def w300() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", device="cpu")


@pytest.fixture
def own() -> FaceAligner:
    """An aligner that a test may change."""
    torch.manual_seed(0)
    scheme = Scheme(id="three", names=("a", "b", "c"))
    return FaceAligner(HIHNet(3, 1, width=0.25), Config(scheme, 1, width=0.25), device="cpu")


@pytest.fixture
def crop(astronaut: Array) -> Array:
    transform = square_crop(BOXES[0], size=128)
    return warp(astronaut, transform.matrix, transform.size)


@pytest.mark.parametrize("runtime", ["torch", *RUNTIMES])
def test_a_network_of_another_input_size(runtime: str, astronaut: Array, tmp_path: Path) -> None:
    """HIH_N takes crops of 128 pixels. The points are those of its own heatmaps, decoded in the test."""
    needs(runtime)
    near = 0.02 + 8 * GRAIN  # a network of random weights enlarges differences of the crop
    torch.manual_seed(0)
    size = SIZES["HIH_N"]
    config = Config(Scheme(id="three", names=("a", "b", "c"), mirror=((0, 1),)), **size._asdict())
    network = HIHNet(3, *size).eval()
    aligner = FaceAligner(network, config, device="cpu")
    assert aligner.heatmaps(astronaut, BOXES[1]).integer.shape == (3, 32, 32)
    if runtime != "torch":
        export.export(aligner, tmp_path / "out", "onnx" if runtime == "onnxruntime" else "openvino")
        aligner = FaceAligner.from_pretrained(tmp_path / "out", backend=runtime, device="cpu")
    transform = square_crop(BOXES[1], config.crop_ratio, 128)
    crop = warp(astronaut, transform.matrix, 128)
    pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.inference_mode():
        integer, decimal = network.predict(((pixels - mean) / std)[None])
        expected = transform.to_image(STRIDE * heatmaps.decode(integer, decimal, aligner.decoder)[0])
    np.testing.assert_allclose(aligner.align(astronaut, BOXES[1]).points, expected, atol=near)
    # with mirroring, a mirrored image gives the mirrored points
    flipped = np.ascontiguousarray(astronaut[:, ::-1])
    edge = astronaut.shape[1] - 1
    box = (edge - BOXES[1][2], BOXES[1][1], edge - BOXES[1][0], BOXES[1][3])
    there = aligner.align(flipped, box, mirror=True).points[[1, 0, 2]]
    here = aligner.align(astronaut, BOXES[1], mirror=True).points
    np.testing.assert_allclose(edge - there[:, 0], here[:, 0], atol=near)


# the private copy


def test_the_copy_gives_the_result_of_the_network(w300: FaceAligner, crop: Array) -> None:
    """The copy is compared with the network itself, with the normalisation written out."""
    pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.inference_mode():
        integer, decimal = w300.network.predict(((pixels - mean) / std)[None])
        points, scores = InferenceNet(w300.network, w300.config)(torch.from_numpy(crop)[None])
        expected = STRIDE * heatmaps.decode(integer, decimal, w300.decoder).numpy()
    assert w300.config.reading is not None, "the landmarks of the shipped network correct each other"
    np.testing.assert_allclose(points, w300.config.reading.points(expected), atol=2e-3)
    curve = w300.config.calibration["expectation"]
    height = integer.amax((-2, -1)).numpy()
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-(curve.slope * height + curve.bias))), atol=1e-4)


def test_folding_removes_batch_norms_and_does_not_change_the_network(own: FaceAligner) -> None:
    for module in own.network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(module.weight, -1, 1)
            nn.init.uniform_(module.bias, -1, 1)
    before = {name: value.clone() for name, value in own.network.state_dict().items()}
    copy = folded(own.network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in copy.modules())
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        for got, expected in zip(copy.predict(images), own.network.predict(images), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    after = own.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_points_that_overflow_in_float16_are_an_error(astronaut: Array) -> None:
    """They are NaN, while float32 and bfloat16 compute numbers."""
    network = FaceAligner.from_pretrained("HIH_N/300w", device="cpu").network
    with torch.no_grad():
        next(unit for unit in network.modules() if isinstance(unit, nn.BatchNorm2d)).weight.mul_(1e5)
    config = read_manifest()["HIH_N/300w"].config
    assert np.isfinite(FaceAligner(network, config, device="cpu").align(astronaut, BOXES[0]).points).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of emulation
        half = FaceAligner(network, config, device="cpu", dtype="float16")
    with pytest.raises(ValueError, match=r"dtype is 'float16', in which HIH_N/300w overflows: take dtype='float32'"):
        half.align(astronaut, BOXES[0])


def test_the_network_stays_trainable_in_each_precision(w300: FaceAligner, astronaut: Array, tmp_path: Path) -> None:
    half = FaceAligner.from_pretrained("HIH_N/300w", dtype="bfloat16", device="cpu")
    half.align(astronaut, BOXES[0])
    assert half.dtype is torch.bfloat16
    assert any(isinstance(module, nn.BatchNorm2d) for module in half.network.modules())
    half.network.train()
    sum(maps.sum() for maps in half.network(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.dtype is torch.float32 and p.grad is not None for p in half.network.parameters())
    # the saved weights are the loaded ones, not weights rounded to bfloat16
    half = FaceAligner.from_pretrained("HIH_N/300w", dtype="bfloat16", device="cpu")
    half.save_pretrained(tmp_path)
    saved = FaceAligner.from_pretrained(tmp_path, device="cpu").network.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in w300.network.state_dict().items())


def test_training_mode_does_not_affect_the_copy(own: FaceAligner, astronaut: Array) -> None:
    expected = own.align(astronaut, BOXES[0])
    own.network.train()
    np.testing.assert_array_equal(own.align(astronaut, BOXES[0]).points, expected.points)


def _step(network: HIHNet) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    network(torch.rand(1, 3, 64, 64))[0].square().mean().backward()
    optimizer.step()


def _move(network: HIHNet) -> None:
    network.bfloat16().float()


def _replace(network: HIHNet) -> None:
    network.load_state_dict({n: v * 0.9 for n, v in network.state_dict().items()}, assign=True)


def _load(network: HIHNet) -> None:
    network.load_state_dict({n: v * 0.9 for n, v in network.state_dict().items()})


def _statistics(network: HIHNet) -> None:
    network.train()
    with torch.no_grad():
        network(torch.rand(2, 3, 64, 64))
    network.eval()


@pytest.mark.parametrize("change", [_step, _move, _load, _replace, _statistics])
def test_a_loaded_network_is_checked_for_changes_once_it_was_read(
    own: FaceAligner, astronaut: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    """Before the user reads ``network``, no call checks its weights for changes.

    The check takes up to a tenth of a millisecond per call.
    """
    own.save_pretrained(tmp_path)
    loaded = FaceAligner.from_pretrained(tmp_path, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr("hih_align.method.watch.Watch.changed", None)
        before = loaded.align(astronaut, BOXES[0]).points
    change(loaded.network)
    after = loaded.align(astronaut, BOXES[0])
    assert (after.points != before).any()
    fresh = FaceAligner(loaded.network, loaded.config, device="cpu").align(astronaut, BOXES[0])
    np.testing.assert_array_equal(after.points, fresh.points)


@pytest.mark.parametrize("change", [_step, _move, _load, _replace, _statistics])
def test_a_changed_network_is_used(own: FaceAligner, astronaut: Array, change: Any) -> None:
    before = own.align(astronaut, BOXES[0])
    change(own.network)
    after = own.align(astronaut, BOXES[0])
    assert (after.points != before.points).any()
    fresh = FaceAligner(own.network, own.config, device="cpu").align(astronaut, BOXES[0])
    np.testing.assert_array_equal(after.points, fresh.points)
    assert own._runtime() is own._runtime()  # the copy is made once


def test_a_model_of_a_folder_shares_its_private_copy(own: FaceAligner, tmp_path: Path) -> None:
    own.save_pretrained(tmp_path / "own")
    loaded = FaceAligner.from_pretrained(tmp_path / "own", device="cpu")
    assert loaded.with_config(replace(loaded.config, crop_ratio=1.6))._runtime() is loaded._runtime()


def test_a_parametrized_layer_is_copied(own: FaceAligner, astronaut: Array) -> None:
    before = own.align(astronaut, BOXES[0]).points
    torch.nn.utils.parametrizations.weight_norm(own.network.decimal_head.predict)
    np.testing.assert_allclose(own.align(astronaut, BOXES[0]).points, before, atol=1e-3)


def test_another_config_shares_the_private_copy_if_it_can(own: FaceAligner, astronaut: Array) -> None:
    """A crop ratio is no part of the private copy, and a decoder is. A changed network is noticed by both aligners."""
    wide = own.with_config(replace(own.config, crop_ratio=1.6))
    assert wide._runtime() is own._runtime()
    assert own.with_config(own.config, "argmax")._runtime() is not own._runtime()
    moved = own.with_config(replace(own.config, calibration={"expectation": Calibration(10.0, -5.0)}))
    assert moved.align(astronaut, BOXES[0]).calibrated
    assert not wide.align(astronaut, BOXES[0]).calibrated
    before = own.align(astronaut, BOXES[0]).points
    _step(own.network)
    for aligner in (wide, own):
        fresh = FaceAligner(own.network, aligner.config, device="cpu").align(astronaut, BOXES[0])
        np.testing.assert_array_equal(aligner.align(astronaut, BOXES[0]).points, fresh.points)
    assert (own.align(astronaut, BOXES[0]).points != before).any()
    with pytest.raises(ValueError, match="network has"):
        own.with_config(replace(own.config, stacks=2))


def test_threads_see_one_new_copy(own: FaceAligner, astronaut: Array) -> None:
    _step(own.network)
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(own._runtime())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(runtime) for runtime in seen}) == 1


# all runtimes give the same results


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    needs(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def converted(runtime: str) -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", backend=runtime, device="cpu")


def test_a_converted_network_gives_the_same_results(
    w300: FaceAligner, converted: FaceAligner, runtime: str, astronaut: Array
) -> None:
    assert (converted.backend, converted.dtype, converted.device.type) == (runtime, torch.float32, "cpu")
    for options in ({"refine": 0}, {"refine": 1}, {"refine": 0, "mirror": True}):
        found, expected = (aligner.align(astronaut, BOXES, **options) for aligner in (converted, w300))
        scale = 128 / (1.25 * 170)  # scale from image pixels to crop pixels, for the largest box
        np.testing.assert_allclose(found.points, expected.points, atol=0.02 / scale)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    # other faces in the batch do not change the result
    np.testing.assert_array_equal(
        converted.align(astronaut, BOXES, refine=0).points,
        [converted.align(astronaut, box, refine=0).points for box in BOXES],
    )
    # heatmaps are available, and the network can be trained
    np.testing.assert_allclose(
        converted.heatmaps(astronaut, BOXES[0]).integer, w300.heatmaps(astronaut, BOXES[0]).integer, atol=1e-4
    )
    assert torch.equal(next(converted.network.parameters()), next(w300.network.parameters()))


def assert_pickled(aligner: FaceAligner, image: Array) -> None:
    again = pickle.loads(pickle.dumps(aligner))
    assert (again.backend, again.dtype, again.config) == (aligner.backend, torch.float32, aligner.config)
    np.testing.assert_array_equal(again.align(image, BOXES).points, aligner.align(image, BOXES).points)


def test_pickled(w300: FaceAligner, astronaut: Array) -> None:
    assert_pickled(w300, astronaut)


@pytest.mark.parametrize("runtime", ["openvino"], indirect=True)  # the receiver converts: one runtime is enough
def test_a_converted_network_pickled(converted: FaceAligner, astronaut: Array) -> None:
    assert_pickled(converted, astronaut)


def test_a_converted_network_in_eight_threads(converted: FaceAligner, astronaut: Array) -> None:
    expected = converted.align(astronaut, BOXES, refine=0).points
    found: list[Array] = []
    threads = [
        threading.Thread(target=lambda: found.append(converted.align(astronaut, BOXES, refine=0).points))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for points in found:
        np.testing.assert_array_equal(points, expected)


def sure(maps: Array) -> Array:
    """Whether the largest value exceeds the second largest by more than 1e-3: (..., h, w) -> (...)."""
    two = np.sort(maps.reshape(*maps.shape[:-2], -1), -1)[..., -2:]
    return np.asarray(two[..., 1] - two[..., 0] > 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("decode", [None, "argmax"])
def test_runtimes_agree_on_300w_val(runtime: str, shared: Path, decode: Any) -> None:
    """On the whole set, points agree to 0.02 crop pixels and scores to 1e-3.

    With argmax the points agree exactly, where the maximum is clear.
    """
    data = json.loads((shared / "data" / "300w_val" / "annotations.json").read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    aligners = [
        FaceAligner.from_pretrained("HIH_T", device="cpu", backend=b, decode=decode) for b in ("torch", runtime)
    ]
    assert len(data["annotations"]) > 200
    for face in data["annotations"]:
        x, y, width, height = face["bbox"]
        image = shared / "data" / "300w_val" / "images" / names[face["image_id"]]
        box = (x, y, x + width, y + height)
        expected, found = (aligner.align(image, box, refine=0) for aligner in aligners)
        distance = np.abs(found.points - expected.points).max(-1) * 256 / (1.25 * max(width, height))
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        if decode is None:
            assert distance.max() < 0.02, image
        else:
            maps = aligners[0].heatmaps(image, box)
            known = sure(maps.integer) & sure(maps.decimal)
            assert known.mean() > 0.8
            assert distance[known].max() < 0.01, image  # a decimal cell is half a crop pixel


def test_bfloat16_of_openvino(astronaut: Array) -> None:
    needs("openvino")
    full = FaceAligner.from_pretrained("HIH_N", device="cpu")
    half = FaceAligner.from_pretrained("HIH_N", backend="openvino", dtype="bfloat16", device="cpu")
    assert half.dtype is getattr(torch, computed_dtype("bfloat16", "openvino"))
    found, expected = (aligner.align(astronaut, BOXES, refine=0).points for aligner in (half, full))
    distance = np.linalg.norm(found - expected, axis=-1)
    assert distance.mean() < 0.1  # coordinates are not in bfloat16, which would have errors of one pixel
    assert distance.max() < 1


# choice of the runtime


def test_auto_takes_the_first_installed_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"openvino", "onnxruntime", "torch"}
    monkeypatch.setattr(runtimes, "find_spec", lambda name: name if name in {*here, "onnx"} else None)
    for expected in ("openvino", "onnxruntime", "torch"):
        assert runtimes.choose("auto", "cpu") == expected
        here.discard(expected)
    here |= {"openvino", "onnxruntime", "torch"}
    assert runtimes.choose("auto", "cuda") == "torch"
    with pytest.raises(ValueError, match="device is 'cuda', but backend 'openvino' runs only on the CPU"):
        runtimes.choose("openvino", "cuda")


@pytest.mark.parametrize(("runtime", "extra"), [("openvino", "openvino"), ("onnxruntime", "onnx")])
def test_a_runtime_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, runtime: str, extra: str) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: name if name == "torch" else None)
    with pytest.raises(ImportError, match=rf"{runtime}.*pip install 'hih-align\[{extra}\]'"):
        FaceAligner.from_pretrained("HIH_N/300w", backend=runtime)
    assert FaceAligner.from_pretrained("HIH_N/300w", backend="auto", device="cpu").backend == "torch"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_only_a_conversion_needs_the_converter(
    monkeypatch: pytest.MonkeyPatch, runtime: str, converted_nano: Callable[[str], str]
) -> None:
    """A folder with an exported file runs where the package that converts networks is not installed."""
    exported = Path(converted_nano(runtime))
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name == "onnx" else name)
    assert runtimes.choose(runtime, "cpu", exported) == runtime
    assert runtimes.choose("auto", "cpu", exported) == runtime
    assert runtimes.choose("auto", "cpu") == "torch"
    with pytest.raises(ImportError, match=f"backend is '{runtime}', which needs onnx:"):
        runtimes.choose(runtime, "cpu")
    with pytest.raises(ImportError, match=f"backend is '{runtime}', which needs onnx:"):
        FaceAligner.from_pretrained("HIH_N", backend=runtime)
    for backend in (runtime, "auto"):
        assert FaceAligner.from_pretrained(exported, backend=backend, device="cpu").backend == runtime


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_exported_folder_where_pytorch_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, runtime: str, converted_nano: Callable[[str], str]
) -> None:
    exported = converted_nano(runtime)
    for module in (runtimes, placement):
        monkeypatch.setattr(module, "find_spec", lambda name: name if name == runtime else None)
    assert FaceAligner.from_pretrained(exported, backend="auto").backend == runtime
    other = f"needs torch: pip install torch, or pass backend='{runtime}', whose file '.*' holds"
    with pytest.raises(ImportError, match=f"backend is 'torch', which {other}"):
        FaceAligner.from_pretrained(exported)


@pytest.mark.parametrize("where", ["traced", "exported"])
def test_both_exporters_of_pytorch(monkeypatch: pytest.MonkeyPatch, w300: FaceAligner, crop: Array, where: str) -> None:
    """The newer exporter takes over where PyTorch has no older one. Both graphs give PyTorch's points."""
    for module in ("onnxruntime", "onnx", "onnxscript"):
        pytest.importorskip(module)
    from hih_align.runtime import convert
    from hih_align.runtime.onnxruntime import OnnxRuntimeBackend

    used: list[str] = []
    for name in ("_traced", "_exported"):
        monkeypatch.setattr(convert, name, _noted(getattr(convert, name), used))
    if where == "exported":
        if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
            pytest.skip("this PyTorch always has the older exporter, and its newer one cannot export the network")
        older = torch.onnx.export

        def newer_only(*args: Any, dynamo: bool, **options: Any) -> Any:
            if not dynamo:
                raise TypeError("export() has no option dynamo=False any more")
            return older(*args, dynamo=dynamo, **options)

        monkeypatch.setattr(torch.onnx, "export", newer_only)
    network = deepcopy(w300.network)
    hourglass: Any = network.trunk.stacks[0].hourglass  # type: ignore[union-attr]
    hourglass.levels = hourglass.levels[:1]  # the others have the same operations; the newer exporter is slow
    model = InferenceNet(network, w300.config)
    found = OnnxRuntimeBackend(convert.to_onnx(model), None, 1)(np.stack((crop, crop[:, ::-1])))
    assert used == (["_traced"] if where == "traced" else ["_traced", "_exported"])
    expected = model(torch.from_numpy(np.stack((crop, crop[:, ::-1]))))
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want.numpy(), atol=1e-3)


def _noted(function: Callable[[InferenceNet], bytes], used: list[str]) -> Callable[[InferenceNet], bytes]:
    def noted(model: InferenceNet) -> bytes:
        used.append(function.__name__)
        return function(model)

    return noted


def test_dtypes_that_a_runtime_lacks(converted_nano: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an exported folder, and of a network before it is converted, which takes seconds."""
    for name, dtype in (("openvino", "float16"), ("onnxruntime", "bfloat16")):
        exported = converted_nano(name)
        monkeypatch.setattr(f"hih_align.runtime.convert.to_{name.removesuffix('runtime')}", None)
        for model in (exported, "HIH_N/300w"):
            with pytest.raises(ValueError, match=f"dtype is '{dtype}', expected .* with backend '{name}'"):
                FaceAligner.from_pretrained(model, backend=name, dtype=dtype)
