"""`hih_align.export`: files for other runtimes, with a description of their content."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from hih_align import CheckpointError, FaceAligner, export
from hih_align import runtime as runtimes
from hih_align.cli.app import app
from hih_align.crops import square_crop, warp
from hih_align.data.annotations import Dataset, read_dataset
from hih_align.hub.checkpoints import find_checkpoint
from hih_align.hub.config import write_config
from hih_align.hub.manifest import local_weights, read_manifest
from hih_align.runtime import convert, precision
from hih_align.runtime.metadata import FILES, KEY, fingerprint

Array = NDArray[Any]

BOX = np.array((177.0, 80, 275, 200))
RUNTIMES = {"openvino": "openvino", "onnx": "onnxruntime"}


@pytest.fixture(scope="module")
def w300() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_T", device="cpu")


@pytest.fixture(scope="module")
def nano() -> FaceAligner:
    return FaceAligner.from_pretrained("HIH_N/300w", device="cpu")


@pytest.fixture(params=RUNTIMES)
def exported(request: pytest.FixtureRequest, converted_nano: Callable[..., str]) -> Path:
    """The folder that `export` wrote, beside which no temporary file is left."""
    pytest.importorskip("onnx")
    folder = Path(converted_nano(RUNTIMES[request.param], weights=False))
    assert list(folder.parent.iterdir()) == [folder]
    return folder


def crops_of(image: Array, size: int) -> Array:
    transforms = [square_crop(BOX + shift, size=size) for shift in (0, 7, -9)]
    return np.stack([warp(image, t.matrix, t.size) for t in transforms])


def test_an_exported_folder_is_a_checkpoint_and_runs_its_file(
    nano: FaceAligner, exported: Path, astronaut: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = exported.name
    monkeypatch.setattr(runtimes, "_of_network", None)  # a conversion would fail
    aligner = FaceAligner.from_pretrained(exported, backend=runtime, device="cpu")
    monkeypatch.undo()
    expected = nano.align(astronaut, BOX)
    found = aligner.align(astronaut, BOX)
    np.testing.assert_allclose(found.points, expected.points, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    assert found.model == "HIH_N/300w"
    copied = pickle.loads(pickle.dumps(aligner)).align(astronaut, BOX)
    np.testing.assert_allclose(copied.points, expected.points, atol=0.01)


def test_a_folder_holds_only_what_is_needed(exported: Path, tmp_path: Path) -> None:
    """The folder has no second copy of the weights. The error for a user who needs the weights says what to do."""
    runtime = exported.name
    needed = {"config.json", FILES[runtime]} | ({"model.bin"} if runtime == "openvino" else set())  # type: ignore[index]
    assert {path.name for path in exported.iterdir()} == needed
    what = f"was exported: it holds {FILES[runtime]} for backend '{runtime}', and no model.safetensors"  # type: ignore[index]
    advice = f"Pass backend='{runtime}', or load the checkpoint that it was exported from, HIH_N/300w"
    with pytest.raises(FileNotFoundError, match=f"{what}.*{advice}"):
        FaceAligner.from_pretrained(exported, device="cpu")
    other = next(name for name in RUNTIMES.values() if name != runtime)
    with pytest.raises(FileNotFoundError, match=advice):
        FaceAligner.from_pretrained(exported, device="cpu", backend=other)
    aligner = FaceAligner.from_pretrained(exported, device="cpu", backend="auto")
    assert aligner.backend == runtime
    for use in (lambda: aligner.network, lambda: aligner.save_pretrained(tmp_path / "saved")):
        with pytest.raises(ValueError, match=r"network is not here: .* load the checkpoint .* HIH_N/300w"):
            use()
    assert not (tmp_path / "saved").exists()
    (tmp_path / "config.json").write_bytes((exported / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        FaceAligner.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_exported_file_whose_weights_are_not_finite_is_refused(
    converted_nano: Callable[..., str], tmp_path: Path, value: float
) -> None:
    """A runtime does not show the weights of a file, so the file is run once when it is loaded."""
    onnx = pytest.importorskip("onnx")
    shutil.copytree(converted_nano("onnxruntime", weights=False), tmp_path, dirs_exist_ok=True)
    model = onnx.load(tmp_path / "model.onnx")
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    damaged = onnx.numpy_helper.to_array(weights).copy()
    damaged.flat[0] = value
    weights.CopyFrom(onnx.numpy_helper.from_array(damaged, weights.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"model\.onnx returns NaN or infinity"):
        FaceAligner.from_pretrained(tmp_path, device="cpu", backend="onnxruntime")


def test_a_network_that_is_replaced_is_used(astronaut: Array) -> None:
    small, other = (FaceAligner.from_pretrained(name, device="cpu") for name in ("HIH_N/300w", "HIH_N/300w"))
    with torch.no_grad():
        other.network.decimal_head.predict.bias.add_(1)  # type: ignore[union-attr]
        other.network.trunk.stacks[0].predict.weight.mul_(-1)  # type: ignore[union-attr,index]
    before = small.align(astronaut, BOX).points
    small.network = other.network
    after = small.align(astronaut, BOX).points
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, other.align(astronaut, BOX).points)


def run_alone(exported: Path, crops: Array) -> tuple[Any, Any, str]:
    """Points, scores and description, computed without hih_align."""
    if exported.name == "onnxruntime":
        import onnxruntime

        session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
        points, scores = session.run(["points", "scores"], {"crops": crops})
        return points, scores, session.get_modelmeta().custom_metadata_map[KEY]
    import openvino

    model = openvino.Core().read_model(exported / "model.xml")
    # without this hint the CPU may choose bfloat16
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"crops": crops})
    return found["points"], found["scores"], str(model.get_rt_info(KEY).value)


def test_a_file_works_without_the_package(nano: FaceAligner, exported: Path, astronaut: Array) -> None:
    """The file takes any batch size. Its metadata describe the inputs and outputs."""
    crops = crops_of(astronaut, nano.config.input_size)
    expected = nano._runtime()(crops)
    for count in (1, 3):
        points, scores, text = run_alone(exported, crops[:count])
        np.testing.assert_allclose(points, expected[0][:count], atol=0.02)
        np.testing.assert_allclose(scores, expected[1][:count], atol=1e-3)
    about = json.loads(text)
    assert about["config"]["scheme"] == "300w"
    assert about["config"]["crop_ratio"] == nano.config.crop_ratio
    assert about["input"]["shape"] == ["batch", 128, 128, 3]
    assert [output["name"] for output in about["outputs"]] == ["points", "scores"]
    assert (about["precision"], about["weights"]) == ("fp32", fingerprint(nano.network, nano.config))


def test_a_file_that_does_not_fit_is_refused(exported: Path, tmp_path: Path) -> None:
    runtime: Any = exported.name
    with pytest.raises(ValueError, match=r"was exported with decoder .* export it again"):
        FaceAligner.from_pretrained(exported, backend=runtime, decode="argmax", device="cpu")
    # other weights, as after fine-tuning in the same folder
    other = FaceAligner.from_pretrained("HIH_N", device="cpu")
    with torch.no_grad():
        other.network.decimal_head.predict.bias.add_(1)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="was exported from other weights"):
        FaceAligner(other.network, other.config, backend=runtime, exported=exported, device="cpu")
    # a file that the package did not write
    (tmp_path / FILES[runtime]).write_text("nonsense")
    with pytest.raises(CheckpointError, match=f"{FILES[runtime]} cannot be read"):
        FaceAligner(other.network, other.config, backend=runtime, exported=tmp_path, device="cpu")


def test_the_working_directory_may_change(
    nano: FaceAligner, exported: Path, astronaut: Array, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A copy in another process, and `refresh`, read the file again."""
    monkeypatch.chdir(exported.parent)
    aligner = FaceAligner.from_pretrained(exported.name, device="cpu", backend=exported.name)
    data = pickle.dumps(aligner)
    monkeypatch.chdir(tmp_path)
    aligner.refresh()
    for one in (aligner, pickle.loads(data)):
        np.testing.assert_allclose(one.align(astronaut, BOX).points, nano.align(astronaut, BOX).points, atol=0.01)


def test_a_file_beside_named_weights_belongs_to_another_model(
    nano: FaceAligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: Array
) -> None:
    """Weights of the manifest may lie in any folder of the user, with exported files of other models in it."""
    pytest.importorskip("onnxruntime")
    row = read_manifest()["HIH_N/300w"]
    weights = local_weights(row)
    assert weights is not None
    (tmp_path / row.file).symlink_to(weights)
    (tmp_path / "model.onnx").write_text("of another program")
    monkeypatch.setattr("hih_align.hub.manifest.weight_folders", lambda: [tmp_path])
    assert find_checkpoint("HIH_N/300w").exported == []
    write_config(tmp_path, nano.config)  # now the folder could be taken for a checkpoint
    found = FaceAligner.from_pretrained("HIH_N/300w", backend="onnxruntime", device="cpu")
    np.testing.assert_allclose(found.align(astronaut, BOX).points, nano.align(astronaut, BOX).points, atol=0.01)
    monkeypatch.setattr(runtimes, "AUTO", ("torch", "onnxruntime"))
    assert FaceAligner.from_pretrained("HIH_N/300w", backend="auto", device="cpu").backend == "torch"


@pytest.fixture
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a conversion: the file holds only what describes it."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export, "_write_onnx", lambda model, file, precision, about, _: file.write_text(about))
    monkeypatch.setattr(export, "program", lambda model: None)
    monkeypatch.setattr(torch.export, "save", lambda made, file, extra_files: file.write(extra_files[KEY].encode()))


@pytest.mark.usefixtures("_quickly")
def test_a_long_name(nano: FaceAligner, tmp_path: Path) -> None:
    made = export.export(nano, tmp_path / ("x" * 255), "onnx")
    assert made.file.is_file()
    assert made.file == made.folder / FILES["onnxruntime"]
    assert [path.name for path in tmp_path.iterdir()] == ["x" * 255]


@pytest.mark.usefixtures("_quickly")
def test_the_working_directory_is_filled(nano: FaceAligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder stays the same folder, with its mode. Its config comes last: without it nothing is loaded."""
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat()
    moved: list[str] = []
    real = os.rename
    monkeypatch.setattr(os, "rename", lambda old, new: (moved.append(Path(new).name), real(old, new)))
    made = export.export(nano, ".", "onnx")
    assert (tmp_path.stat().st_ino, tmp_path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert made.file.is_file()
    assert moved == ["model.onnx", "config.json"]
    assert sorted(os.listdir(".")) == sorted(moved)


def test_bad_exports(nano: FaceAligner, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for arguments, error, message in [
        ((tmp_path / "a", "tflite"), ValueError, "format is 'tflite', expected one of"),
        ((tmp_path / "a", "torch", "int8"), ValueError, "precision is 'int8', expected one of"),
        ((tmp_path / "a", "torch", "half"), ValueError, "precision is 'half', expected one of"),
        ((tmp_path / "full", "torch"), ValueError, r"full holds notes\.txt, expected a new folder, or one"),
        ((tmp_path / "full" / "notes.txt", "torch"), ValueError, "notes.txt is a file, expected a new folder"),
        ((tmp_path / "no" / "a", "torch"), FileNotFoundError, "is in a folder that does not exist"),
    ]:
        with pytest.raises(error, match=message):
            export.export(nano, *arguments)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "notes.txt"]


@pytest.mark.parametrize("format", ["openvino", "torch", "onnx"])
def test_a_full_disk(
    nano: FaceAligner, converted_nano: Callable[..., str], tmp_path: Path, format: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenVINO reports it by a RuntimeError, and PyTorch ends the process."""
    graph = Path(converted_nano("onnxruntime", weights=False), "model.onnx").read_bytes()
    monkeypatch.setattr(convert, "to_onnx", lambda model: graph)
    monkeypatch.setattr(export, "program", lambda model: None)  # takes a second
    monkeypatch.setattr(torch.export, "save", lambda made, file, extra_files: file.write(bytes(400_000)))
    resource = pytest.importorskip("resource", reason="Windows has no limit on the size of files")
    pytest.importorskip(format)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"model\.\w+ cannot be written|File too large"):
            export.export(nano, tmp_path / "out", format)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_no_file_of_an_int8_export_is_open_when_its_folder_gets_its_name(
    nano: FaceAligner, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows does not rename a folder with an open file. OpenVINO keeps the weights of a loaded model open."""
    pytest.importorskip("openvino")
    if not Path("/proc/self/maps").exists():
        pytest.skip("only Linux lists the open files of a process in /proc")
    seen: list[list[str]] = []

    def rename(source: Path, target: Path) -> None:
        maps = Path("/proc/self/maps").read_text().splitlines()
        seen.append([line for line in maps if source.name in line])
        os.replace(source, target)

    monkeypatch.setattr("os.rename", rename)
    monkeypatch.setattr(export, "WORSE", 10.0)
    monkeypatch.setattr(export, "_quantize_openvino", lambda graph, faces: graph)  # nncf need not be installed
    faces = few(read_dataset(shared / "data" / "300w_val" / "annotations.json", "300w"), 2)
    export.export(nano, tmp_path / "out", "openvino", "int8", calibration=faces, validation=faces)
    assert seen == [[]]


@pytest.mark.usefixtures("_quickly")
def test_a_failed_export_leaves_no_files(nano: FaceAligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_config", full)
    with pytest.raises(OSError, match="No space"):
        export.export(nano, tmp_path / "out", "onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_quickly")
def test_auto_takes_a_native_precision_and_an_emulated_one_warns(
    nano: FaceAligner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule is the same as for ``dtype``: "auto" never takes an emulated precision.

    A precision that the user names is taken, with a warning if it is emulated.
    """
    float32, bfloat16 = "float32", "bfloat16"
    for native, expected in (((float32,), "fp32"), ((float32, bfloat16), "bf16")):
        monkeypatch.setattr(precision, "native_dtypes", lambda *_, native=native: native)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            made = export.export(nano, tmp_path / expected, "torch", "auto")
        assert made.precision == json.loads(made.file.read_text())["precision"] == expected
    monkeypatch.setattr(precision, "native_dtypes", lambda *_: (float32,))
    monkeypatch.setattr(export, "program", None)  # a conversion would fail
    emulated = "precision is 'bf16': this CPU has no .* take 'auto' or 'fp32'"
    with pytest.warns(RuntimeWarning, match=emulated), pytest.raises(TypeError, match="NoneType"):
        export.export(nano, tmp_path / "named", "torch", "bf16")
    monkeypatch.setattr(precision, "native_dtypes", lambda *_: (float32, bfloat16))
    assert export.export(nano, tmp_path / "onnx", "onnx", "auto").precision == "fp32"  # this format has no bfloat16


def test_the_command(astronaut: Array, tmp_path: Path) -> None:
    """It exports in bfloat16. The program of PyTorch gives the points of an aligner in this precision."""
    arguments = ["export", "HIH_N/300w", "--format", "torch", "--precision", "bf16", "--out", str(tmp_path / "half")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    file = tmp_path / "half" / "model.pt2"
    assert f"{file} (bf16)" in result.output
    assert sorted(path.name for path in file.parent.iterdir()) == ["config.json", "model.pt2", "model.safetensors"]
    assert CliRunner().invoke(app, arguments).exit_code == 1  # the folder exists now
    without = CliRunner().invoke(app, ["export", "HIH_T", "--format", "onnx", "--precision", "int8", "--out", "x"])
    assert without.exit_code == 1
    extra = {KEY: ""}
    module = torch.export.load(file, extra_files=extra).module()
    assert json.loads(extra[KEY])["precision"] == "bf16"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of emulation
        half = FaceAligner.from_pretrained("HIH_N/300w", dtype="bfloat16", device="cpu")
    crops = crops_of(astronaut, half.config.input_size)
    for count in (1, 3):
        points, scores = module(torch.from_numpy(crops[:count]))
        expected = half._runtime()(crops[:count])
        np.testing.assert_allclose(points, expected[0], atol=0.01)
        np.testing.assert_allclose(scores, expected[1], atol=1e-3)


# int8


def few(dataset: Dataset, count: int) -> Dataset:
    return replace(dataset, records=dataset.records[:: len(dataset) // count][:count])


@pytest.mark.slow
@pytest.mark.parametrize("format", RUNTIMES)
def test_int8(w300: FaceAligner, shared: Path, tmp_path: Path, format: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnx", RUNTIMES[format], *(["nncf"] if format == "openvino" else [])):
        pytest.importorskip(module)
    data = shared / "data"
    train, val = (
        few(read_dataset(data / name / "annotations.json", "300w"), count)
        for name, count in (("300w_train", 32), ("300w_val", 24))
    )
    with pytest.raises(ValueError, match="needs calibration and validation faces"):
        export.export(w300, tmp_path / "out", format, "int8", calibration=train)
    monkeypatch.setattr(export, "WORSE", -10.0)
    with pytest.raises(export.AccuracyError, match=r"the NME on 300w_val from .* to .*Nothing is written"):
        export.export(w300, tmp_path / "out", format, "int8", calibration=train, validation=val)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(export, "WORSE", 1.0)
    made = export.export(w300, tmp_path / "out", format, "int8", calibration=train, validation=val)
    assert made.before is not None
    assert made.after is not None
    assert made.after - made.before < 0.5
    small = FaceAligner.from_pretrained(tmp_path / "out", backend=RUNTIMES[format], device="cpu")
    assert small.dtype is torch.int8
    assert (
        (tmp_path / "out" / FILES[RUNTIMES[format]])
        .with_suffix(".bin" if format == "openvino" else ".onnx")
        .stat(  # type: ignore[index]
        )
        .st_size
        < 12e6
    )
