"""`released`: the authors' checkpoints, compared with a second implementation of their network from DESIGN.md."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hih_align.method.heatmaps import decode
from hih_align.method.network import MEAN, STD
from hih_align.method.released import load_released, rename

State = dict[str, Tensor]


# The released layout and network, written after the design notes, with the authors' names. This part uses no code of
# the package.


class Layout:
    """Names and shapes of the tensors in a released checkpoint, with the skip layers that are stored and never used."""

    def __init__(self, landmarks: int, stacks: int, decimal_size: int) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dead: set[str] = set()
        self.unit("pre_conv.0", 3, 64, 7)
        for name, inputs, outputs in (("pre_conv.1", 64, 128), ("pre_conv.3", 128, 128), ("pre_conv.4", 128, 256)):
            self.residual(name, inputs, outputs)
        for i in range(stacks):
            for level in (1, 2, 3, 4):
                for branch in (1, 2, 3):
                    self.residual(f"hg{i}.res{level}_{branch}", 256, 256)
            self.residual(f"hg{i}.res_center", 256, 256)
            self.residual(f"hg{i}_res1", 256, 256)
            self.unit(f"hg{i}_lin1", 256, 256, 1)
            self.biased(f"hg{i}_conv_pred", 256, landmarks)
            self.unit(f"hg{i}_conv1", 256, 256, 1)
            self.unit(f"hg{i}_conv2", landmarks, 256, 1)
        self.unit("offset_head.conv1", 256, 384, 1)
        for step in range({16: 1, 8: 2, 4: 3}[decimal_size]):
            self.unit(f"offset_head.down_ops.{step}.conv1", 384, 384, 3)
            self.unit(f"offset_head.down_ops.{step}.conv2", 384, 384, 3)
            self.unit(f"offset_head.down_ops.{step}.downsample.0", 384, 384, 1)
        self.unit("offset_head.head.0", 384, 384, 1)
        self.biased("offset_head.head.1", 384, landmarks)

    def unit(self, name: str, inputs: int, outputs: int, kernel: int) -> None:
        self.shapes[f"{name}.conv.weight"] = (outputs, inputs, kernel, kernel)
        for value in ("weight", "bias", "running_mean", "running_var"):
            self.shapes[f"{name}.bn.{value}"] = (outputs,)
        self.shapes[f"{name}.bn.num_batches_tracked"] = ()

    def biased(self, name: str, inputs: int, outputs: int) -> None:
        self.shapes[f"{name}.weight"] = (outputs, inputs, 1, 1)
        self.shapes[f"{name}.bias"] = (outputs,)

    def residual(self, name: str, inputs: int, outputs: int) -> None:
        self.unit(f"{name}.conv1", inputs, outputs // 2, 1)
        self.unit(f"{name}.conv2", outputs // 2, outputs // 2, 3)
        self.unit(f"{name}.conv3", outputs // 2, outputs, 1)
        before = set(self.shapes)
        self.unit(f"{name}.skip_layer", inputs, outputs, 1)
        if inputs == outputs:
            self.dead |= set(self.shapes) - before

    def state(self) -> State:
        generator = torch.Generator().manual_seed(0)
        state = {}
        for name, shape in self.shapes.items():
            value = torch.randn(shape, generator=generator)
            if name.endswith("num_batches_tracked"):
                value = torch.tensor(7)
            elif name.endswith("running_var"):
                value = 0.5 + value.abs()
            elif name.endswith("bn.weight"):
                value = 1 + 0.1 * value
            elif len(shape) == 4:
                value = value * (0.5 / np.prod(shape[1:])) ** 0.5
            else:
                value = 0.1 * value
            state[name] = value
        return state


def released_network(state: State, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Integer heatmaps of every stack, and decimal heatmaps."""

    def unit(name: str, x: Tensor, stride: int = 1, relu: bool = True) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2)
        mean, var, scale, shift = (
            state[f"{name}.bn.{v}"][:, None, None] for v in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (var + 1e-5).sqrt() * scale + shift
        return x.clamp(min=0) if relu else x

    def residual(name: str, x: Tensor) -> Tensor:
        out = unit(f"{name}.conv3", unit(f"{name}.conv2", unit(f"{name}.conv1", x)), relu=False)
        if x.shape[1] != out.shape[1]:
            x = unit(f"{name}.skip_layer", x, relu=False)
        return (out + x).clamp(min=0)

    def hourglass(name: str, level: int, x: Tensor) -> Tensor:
        beside = residual(f"{name}.res{level}_1", x)
        x = residual(f"{name}.res{level}_2", F.max_pool2d(x, 2))
        x = hourglass(name, level - 1, x) if level > 1 else residual(f"{name}.res_center", x)
        x = residual(f"{name}.res{level}_3", x)
        return beside + F.interpolate(x, size=beside.shape[-2:], mode="bilinear", align_corners=True)

    def biased(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = residual("pre_conv.1", unit("pre_conv.0", x, stride=2))
    x = residual("pre_conv.4", residual("pre_conv.3", F.max_pool2d(x, 2)))
    heatmaps = []
    i = 0
    while f"hg{i}_conv_pred.bias" in state:
        feature = unit(f"hg{i}_lin1", residual(f"hg{i}_res1", hourglass(f"hg{i}", 4, x)))
        heatmaps.append(biased(f"hg{i}_conv_pred", feature))
        x = x + unit(f"hg{i}_conv1", feature) + unit(f"hg{i}_conv2", heatmaps[-1])
        i += 1
    x = F.max_pool2d(unit("offset_head.conv1", x), 3, 2)
    i = 0
    while (name := f"offset_head.down_ops.{i}") + ".conv1.conv.weight" in state:
        down = unit(f"{name}.conv2", unit(f"{name}.conv1", x, stride=2), relu=False)
        x = (down + unit(f"{name}.downsample.0", x, stride=2, relu=False)).clamp(min=0)
        i += 1
    return heatmaps, biased("offset_head.head.1", unit("offset_head.head.0", x))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The path for a test's checkpoint. It is deleted after the test, because pytest would keep 90 MB for a HIH_B."""
    path = tmp_path / "WFLW.pth"
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def small() -> State:
    return Layout(3, 1, 16).state()


@pytest.fixture(scope="module")
def small_loaded(small: State, tmp_path_factory: pytest.TempPathFactory) -> State:
    path = tmp_path_factory.mktemp("small") / "WFLW.pth"
    torch.save({"state_dict": small}, path)
    state: State = load_released(path).network.state_dict()
    path.unlink()
    return state


# the reference values


@pytest.fixture(scope="module")
def reference(
    shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, NDArray[Any]], Any, Path]]:
    """The outputs of the released network, the module that made its weights, and these weights as a checkpoint."""
    source = shared / "reference" / "official_checkpoint.py"
    spec = importlib.util.spec_from_file_location("official_checkpoint", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stored = dict(np.load(source.with_name("official_hih_T.npz")))
    state = {
        name: torch.from_numpy(np.asarray(value)).to(torch.int64 if name.endswith("tracked") else torch.float32)
        for name, value in module.tensors(stored["keys"], stored["shapes"])
    }
    path = tmp_path_factory.mktemp("reference") / "WFLW_T.pth"
    torch.save({"state_dict": state, "best_nme": 0.0408}, path)
    yield stored, module, path
    path.unlink()


def test_layout_is_that_of_the_released_network(reference: tuple[dict[str, NDArray[Any]], Any, Path]) -> None:
    """`Layout`, which makes the checkpoints of the tests below, has the names and shapes of the reference file."""
    stored = reference[0]
    listed = {
        str(name): tuple(int(n) for n in str(shape).split(",") if n)
        for name, shape in zip(stored["keys"], stored["shapes"], strict=True)
    }
    assert Layout(98, 1, 8).shapes == listed


def test_agrees_with_the_released_network(reference: tuple[dict[str, NDArray[Any]], Any, Path]) -> None:
    stored, module, path = reference
    released = load_released(path)
    assert released.best_nme == 0.0408
    assert set(released.dead) == Layout(98, 1, 8).dead
    assert (released.network.landmarks, released.network.stacks, released.network.decimal_size) == (98, 1, 8)
    image = torch.from_numpy(module.image()).permute(2, 0, 1)[None] / 255
    image = (image - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.inference_mode():
        integer, decimal = released.network(image)
    integer, decimal = integer[0, -1], decimal[0]
    heat, offset = integer[: len(stored["heat"])].numpy(), decimal.numpy()
    assert np.abs(heat - stored["heat"]).max() < 1e-4 * np.ptp(stored["heat"])
    assert np.abs(offset - stored["offset"]).max() < 1e-4 * np.ptp(stored["offset"])
    for maps, gap in ((integer, stored["gap"]), (decimal, stored["gapo"])):
        top = maps.flatten(1).topk(2).values
        np.testing.assert_allclose(top[:, 0] - top[:, 1], gap, atol=1e-4)
    sure = np.minimum(stored["gap"], stored["gapo"]) > 1e-4
    assert sure.sum() >= 95
    np.testing.assert_array_equal(decode(integer, decimal).numpy()[sure], stored["points64"][sure])


# every size


# the reference has 98 landmarks, one stack and decimal size 8
@pytest.mark.parametrize(("landmarks", "stacks", "decimal_size"), [(68, 4, 8), (29, 2, 4), (7, 1, 16)])
def test_computes_the_same_as_the_released_network(file: Path, landmarks: int, stacks: int, decimal_size: int) -> None:
    layout = Layout(landmarks, stacks, decimal_size)
    state = layout.state()
    torch.save({"state_dict": state, "best_nme": 0.05}, file)
    released = load_released(file)
    network = released.network
    assert (network.landmarks, network.stacks, network.decimal_size) == (landmarks, stacks, decimal_size)
    assert not network.training
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert set(released.dead) == layout.dead
    assert len(released.dead) == len(set(released.dead)) == 6 * (1 + 14 * stacks)
    images = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        integer, decimal = network(images)
        expected, expected_decimal = released_network(state, images)
    for got, maps in [*zip(integer.unbind(1), expected, strict=True), (decimal, expected_decimal)]:
        assert got.shape == maps.shape
        assert (got - maps).abs().max() < 1e-4 * (maps.max() - maps.min())


def test_every_name_is_renamed_to_a_different_name() -> None:
    layout = Layout(98, 4, 4)
    assert len({rename(name) for name in layout.shapes}) == len(layout.shapes)


@pytest.mark.parametrize(
    ("write", "nme"),
    [
        (lambda state: {"state_dict": state, "best_nme": 0.05}, 0.05),
        (lambda state: {"state_dict": state, "best_nme": 5}, 5.0),
        (lambda state: state, None),
        (lambda state: {"state_dict": OrderedDict(state)}, None),
        (lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}}, None),
        # as the training script saved them: with a dict for the NME, and with the state of the training
        (lambda state: {"state_dict": state, "best_nme": {"epoch": 5, "nme": 0.04}, "epoch": 5, "optimizer": {}}, 0.04),
        (lambda state: {"state_dict": state, "best_nme": {"epoch": 5, "nme": np.float64(0.04)}}, 0.04),
        (lambda state: {"state_dict": state, "best_nme": np.float32(0.5)}, 0.5),
        (lambda state: {"state_dict": state, "best_nme": "low"}, None),
        (lambda state: {"state_dict": {k: v.half() for k, v in state.items()}, "best_nme": 0.05}, 0.05),
        (lambda state: {"state_dict": {k: v for k, v in state.items() if ".res" not in k or "skip" not in k}}, None),
    ],
    ids=[
        *("as described", "percent", "bare", "ordered", "several GPUs", "of training", "NumPy in a dict", "NumPy"),
        *("no number", "half", "without dead weights"),
    ],
)
def test_variants(
    file: Path, small: State, small_loaded: State, write: Callable[[State], Any], nme: float | None
) -> None:
    torch.save(write(small), file)
    released = load_released(file)
    assert released.best_nme == nme
    for name, value in released.network.state_dict().items():
        assert value.dtype == small_loaded[name].dtype
        torch.testing.assert_close(value, small_loaded[name], rtol=1e-3, atol=1e-3)


def test_dead_names_are_the_names_in_the_file(file: Path, small: State) -> None:
    torch.save({f"module.{name}": value for name, value in small.items()}, file)
    assert set(load_released(file).dead) <= set(small)
    # a dead layer may hold any tensor
    for name in Layout(3, 1, 16).dead:
        if small[name].dtype == torch.float32:
            small = {**small, name: torch.full_like(small[name], torch.nan)}
    torch.save(small, file)
    assert all(value.isfinite().all() for value in load_released(file).network.state_dict().values())


def test_legacy_format(file: Path, small: State) -> None:
    """Files of PyTorch before 1.6: the authors' files may have this format."""
    torch.save({"state_dict": small, "best_nme": 0.05}, file, _use_new_zipfile_serialization=False)
    assert load_released(file).best_nme == 0.05


@pytest.mark.parametrize(("name", "landmarks"), [("hih_t_300w.pth", 68), ("hih_t_wflw.pth", 98)])
def test_start_weights(shared: Path, name: str, landmarks: int) -> None:
    released = load_released(shared / "weights" / name)
    assert (released.network.landmarks, released.network.stacks, released.network.decimal_size) == (landmarks, 1, 8)
    assert set(released.dead) == Layout(landmarks, 1, 8).dead
    assert released.best_nme is not None


# files that are not such a checkpoint


@pytest.mark.parametrize("path", ["gone.pth", "."])
def test_missing_file(path: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^checkpoint: no such file"):
        load_released(tmp_path / path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_file(file: Path, small: State, share: float, legacy: bool) -> None:
    torch.save({"state_dict": small}, file, _use_new_zipfile_serialization=not legacy)
    os.truncate(file, int(file.stat().st_size * share))
    with pytest.raises(ValueError, match=r"^checkpoint: .*WFLW\.pth cannot be read"):
        load_released(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_files(file: Path, legacy: bool) -> None:
    """Damaged bytes always raise a ValueError: where the damage is harmless, the content is still not a checkpoint."""
    content = {"state_dict": {"hg0_conv_pred.weight": torch.zeros(3, 4)}}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^checkpoint: "):
            load_released(file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04", b"PK\x03\x04" + bytes(100), bytes(range(256))])
def test_other_files(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"^checkpoint: .*WFLW\.pth cannot be read"):
        load_released(file)


class Malicious:
    """An object that runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_malicious_file(file: Path, tmp_path: Path, small: State, kind: str) -> None:
    trace = tmp_path / "executed"
    content = {"best_nme": Malicious(f"touch {trace}"), "state_dict": dict(list(small.items())[:6])}
    if kind == "pickle":
        file.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match=r"^checkpoint: .* cannot be read as a PyTorch file of tensors") as caught:
        load_released(file)
    assert not trace.exists()
    # the message has one line and does not advise the user to load without weights_only
    assert "system" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "trust" not in str(caught.value)
    with contextlib.suppress(RuntimeError):  # PyTorch cannot use the content, but the command has run
        torch.load(file, weights_only=False)
    assert trace.exists(), "the file was harmless, the test proved nothing"


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(3)],
        torch.zeros(3),
        {},
        {"state_dict": {}},
        {"state_dict": None},
        {"state_dict": {"hg0_conv_pred.weight": [1.0]}},
        {"state_dict": [torch.zeros(3)]},
    ],
    ids=repr,
)
def test_no_state_dict(file: Path, content: Any) -> None:
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"^checkpoint: .* holds no state dict of tensors"):
        load_released(file)


def without(*parts: str) -> Callable[[State], State]:
    return lambda state: {name: value for name, value in state.items() if not any(part in name for part in parts)}


def replaced(name: str, value: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, name: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: {"layer1.weight": torch.zeros(3)}, "is not in the released HIH layout"),
        (lambda _: {1: torch.zeros(3)}, "is not in the released HIH layout"),
        (without("hg0_conv_pred"), "is not in the released HIH layout"),
        (without("down_ops"), "is not in the released HIH layout"),
        (replaced("offset_head.down_ops.3.conv1.conv.weight", torch.zeros(1)), "has 1 unknown weights"),
        (replaced("hg0_conv_pred.weight", torch.tensor(1.0)), "is not in the released HIH layout"),
        (replaced("hg0_conv_pred.weight", torch.zeros(0, 256, 1, 1)), "is not in the released HIH layout"),
        (without("hg0.res2_3.conv2.bn.running_var"), "has 1 missing weights, the first .*levels.2.up.conv2.bn.running"),
        (without("hg0_conv_pred.bias"), "has 1 missing weights, the first .*predict.bias"),
        (replaced("hg0_extra.weight", torch.zeros(3)), "has 1 unknown weights, the first hg0_extra.weight"),
        (replaced("module.backbone.x", torch.zeros(3)), "has 1 unknown weights, the first backbone.x"),
        (replaced("hg0_lin1.conv.weight", torch.zeros(256, 128, 1, 1)), "has 1 wrongly shaped weights, .*feature"),
        (replaced("hg0_conv_pred.weight", torch.zeros(4, 256, 1, 1)), "wrongly shaped weights"),
        # must not make the loader build a network of a million stacks
        (replaced("hg999999_conv_pred.weight", torch.zeros(3, 256, 1, 1)), "has 1 unknown weights, the first hg999999"),
    ],
)
def test_weights_that_do_not_fit(file: Path, small: State, change: Callable[[State], Any], message: str) -> None:
    torch.save({"state_dict": change(small)}, file)
    with pytest.raises(ValueError, match=rf"^checkpoint: .*WFLW\.pth .*({message})"):
        load_released(file)


@pytest.mark.parametrize(("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "infinity")])
def test_weights_that_are_not_finite(file: Path, small: State, value: float, kind: str) -> None:
    state = small | {"hg0_conv_pred.bias": torch.full_like(small["hg0_conv_pred.bias"], value)}
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}, file)
    with pytest.raises(
        ValueError, match=rf"^checkpoint: .*WFLW\.pth: hg0_conv_pred.bias holds {kind}, expected finite"
    ):
        load_released(file)
