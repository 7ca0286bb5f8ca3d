"""`hih_align.backends`: what runs is a private copy, and every runtime finds the same."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from hih_align import Config, FaceAligner, HIHNet, Scheme, backends, heatmaps
from hih_align.backends.inference import InferenceNet, folded
from hih_align.crops import square_crop, warp
from hih_align.network import MEAN, STD

Array = NDArray[Any]

BOXES = np.array([(177.0, 80, 275, 200), (150, 60, 300, 230), (190, 90, 270, 190)])
RUNTIMES = ["openvino", "onnxruntime"]


def needs(runtime: str) -> None:
    for module in backends._NEEDS.get(runtime, ()):
        pytest.importorskip(module)


@pytest.fixture(scope="module")
def w300() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_T", device="cpu")


@pytest.fixture
def own() -> FaceAligner:
    """One that a test may change."""
    torch.manual_seed(0)
    return FaceAligner(HIHNet(3, 1), Config(Scheme(id="three", names=("a", "b", "c")), 1), device="cpu")


@pytest.fixture
def crop(astronaut: Array) -> Array:
    transform = square_crop(BOXES[0])
    return warp(astronaut, transform.matrix, transform.size)


# the private copy


def test_the_copy_computes_what_the_network_does(w300: FaceAligner, crop: Array) -> None:
    """Against the network itself, and the normalisation written out."""
    pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.inference_mode():
        integer, decimal = w300.network.predict(((pixels - mean) / std)[None])
        points, scores = InferenceNet(w300.network, w300.config)(torch.from_numpy(crop)[None])
        expected = heatmaps.STRIDE * heatmaps.decode(integer, decimal, w300.decoder)
    np.testing.assert_allclose(points, expected, atol=2e-3)
    curve = w300.config.calibration["expectation"]
    height = integer.amax((-2, -1)).numpy()
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-(curve.slope * height + curve.bias))), atol=1e-4)


def test_folding_leaves_no_batch_norm_and_the_network_as_it_is(own: FaceAligner) -> None:
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


def test_the_network_stays_trainable_whatever_runs(w300: FaceAligner, astronaut: Array, tmp_path: Path) -> None:
    half = FaceAligner.from_pretrained("HIH_T", dtype="bfloat16", device="cpu")
    half.align(astronaut, BOXES[0])
    assert half.dtype is torch.bfloat16
    assert any(isinstance(module, nn.BatchNorm2d) for module in half.network.modules())
    half.network.train()
    sum(maps.sum() for maps in half.network(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.dtype is torch.float32 and p.grad is not None for p in half.network.parameters())
    # and what is saved is what was loaded, not what bfloat16 left of it
    half = FaceAligner.from_pretrained("HIH_T", dtype="bfloat16", device="cpu")
    half.save_pretrained(tmp_path)
    saved = FaceAligner.from_pretrained(tmp_path, device="cpu").network.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in w300.network.state_dict().items())


def test_training_mode_does_not_reach_the_copy(own: FaceAligner, astronaut: Array) -> None:
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
def test_a_changed_network_is_followed(own: FaceAligner, astronaut: Array, change: Any) -> None:
    before = own.align(astronaut, BOXES[0])
    change(own.network)
    after = own.align(astronaut, BOXES[0])
    assert (after.points != before.points).any()
    fresh = FaceAligner(own.network, own.config, device="cpu").align(astronaut, BOXES[0])
    np.testing.assert_array_equal(after.points, fresh.points)
    assert own._runtime() is own._runtime()  # once


def test_threads_see_one_new_copy(own: FaceAligner, astronaut: Array) -> None:
    _step(own.network)
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(own._runtime())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(runtime) for runtime in seen}) == 1


@pytest.mark.parametrize("runtime", ["torch", *RUNTIMES])
def test_pickled(w300: FaceAligner, astronaut: Array, runtime: str) -> None:
    needs(runtime)
    aligner = w300 if runtime == "torch" else FaceAligner.from_pretrained("HIH_T", backend=runtime, device="cpu")
    again = pickle.loads(pickle.dumps(aligner))
    assert (again.backend, again.dtype, again.config) == (runtime, torch.float32, w300.config)
    np.testing.assert_array_equal(again.align(astronaut, BOXES).points, aligner.align(astronaut, BOXES).points)
