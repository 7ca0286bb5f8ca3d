"""`scripts/gpu_round` on a machine without a GPU.

Packed faces are trained on, and the results come back, whatever ends the round.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

pytest.importorskip("accelerate")

from made_faces import SCHEME, write_faces

from hih_align import Config, FaceAligner, HIHNet
from hih_align.hub.checkpoints import find_checkpoint, load_network, save_checkpoint
from hih_align.hub.manifest import read_manifest
from hih_align.method.sizes import Size
from hih_align.schemes import scheme_from_dict
from hih_align.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from gpu_round import cargo, halves, parcel, rounds, training  # noqa: E402  # a maintainer's tool, in no installed package
from gpu_round.__main__ import main  # noqa: E402
from gpu_round.plan import read_plan  # noqa: E402

MIB = 1 << 20
PLANS = sorted((ROOT / "scripts").glob("gpu_plan*.yaml"))


# -- parcels: parts of a limited size


def some_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    return {f"a/{n}.bin": rng.bytes(400 + n) for n in range(5)}


def test_files_are_restored_from_parts(tmp_path: Path) -> None:
    files = some_files()
    assert parcel.write(tmp_path / "out", files, part=700) == []
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["manifest.json", "part-1-0.bin", "part-1-1.bin", "part-1-2.bin"]
    assert all(path.stat().st_size <= 700 for path in (tmp_path / "out").glob("part*"))
    parcel.collect([tmp_path / "out"], tmp_path / "in")
    assert {path: (tmp_path / "in" / path).read_bytes() for path in files} == files


def test_a_later_parcel_replaces_an_earlier_one(tmp_path: Path) -> None:
    parcel.write(tmp_path, some_files(), part=700)
    parcel.write(tmp_path, {"b": b"new"}, part=700)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "part-2-0.bin"]
    assert parcel.read(tmp_path) == {"b": b"new"}


def test_a_parcel_is_complete_whenever_the_machine_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step of writing a second parcel, the folder holds either the first parcel or the second."""
    first, second = some_files(), {**some_files(), "b": b"new"}
    seen: list[bool] = []

    def step(path: Path, data: bytes) -> None:
        monkeypatch.undo()
        seen.append("b" in parcel.read(tmp_path))
        assert parcel.read(tmp_path) in (first, second)
        replace(path, data)
        assert parcel.read(tmp_path) in (first, second)
        monkeypatch.setattr(parcel, "replace", step)

    replace = parcel.replace
    parcel.write(tmp_path, first, part=700)
    monkeypatch.setattr(parcel, "replace", step)
    parcel.write(tmp_path, second, part=700)
    assert seen == [False] * 4  # three parts, then the manifest
    monkeypatch.undo()
    assert parcel.read(tmp_path) == second


def test_files_without_room_are_named(tmp_path: Path) -> None:
    files = {"important": bytes(500), "large": bytes(900), "small": bytes(100)}
    assert parcel.write(tmp_path, files, part=300, total=1000) == ["large"]
    assert sorted(parcel.read(tmp_path)) == ["important", "small"]
    assert parcel.left_out(tmp_path) == ["large"]
    assert parcel.write(tmp_path, {"a": bytes(800)}, part=100, total=10000) == ["a"]  # a parcel has at most eight files


def test_damaged_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no manifest\.json"):
        parcel.read(tmp_path)
    parcel.write(tmp_path, some_files(), part=700)
    path = tmp_path / "part-1-1.bin"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"part-1-1\.bin is damaged"):
        parcel.collect([tmp_path], tmp_path / "in")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks part-1-1\.bin of 3 parts"):
        parcel.collect([tmp_path], tmp_path / "in")
    assert not (tmp_path / "in").exists()
    parcel.write(tmp_path / "evil", {"../../x": b"1"})
    with pytest.raises(ValueError, match="is outside"):
        parcel.collect([tmp_path / "evil"], tmp_path / "in")


def test_weights_of_another_round_are_not_replaced(tmp_path: Path) -> None:
    for name, weights in (("first", b"1"), ("second", b"2")):
        parcel.write(tmp_path / name, {"a.log": weights, "net/best/model.safetensors": weights})
    for _ in range(2):
        parcel.collect([tmp_path / "first"], tmp_path / "in")
    with pytest.raises(FileExistsError, match=r"net/best/model\.safetensors holds other weights.*new folder"):
        parcel.collect([tmp_path / "second"], tmp_path / "in")
    assert (tmp_path / "in" / "a.log").read_bytes() == b"1"


def test_commands_tell_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full, empty = tmp_path / "full", tmp_path / "empty"
    full.mkdir()
    (full / "some.txt").touch()
    into = ["--into", str(tmp_path / "in")]
    away = tmp_path / "cargo" / "away"
    away.mkdir(parents=True)
    for command, message in (
        (["run", "100", str(full), "--folder", str(tmp_path)], "holds some.txt, expected an empty folder"),
        (["run", "100", str(full / "some.txt"), "--folder", str(tmp_path)], "is a file, expected an empty folder"),
        (["run", "100", str(empty), "--folder", str(tmp_path)], "no volume is in"),
        (["send", str(full), "--folder", str(tmp_path)], "holds some.txt, expected an empty folder"),
        (["send", str(empty), "--folder", str(tmp_path)], "has no round"),
        (["collect", str(empty), *into], "no manifest.json (found: no such folder)"),
        (["collect", str(full), *into], "no manifest.json (found: some.txt)"),
        (["pack", "--folder", str(away.parent)], "run scripts/gpu_round restore before pack"),
    ):
        with handlers():
            assert main(command) == 1
        assert message in capsys.readouterr().err


# -- files that travel to the machine


def checkout(folder: Path) -> Path:
    """A repository with a large file, a small file, an ignored file and a new file."""
    folder.mkdir()
    run = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "init", "-q"], cwd=folder, check=True)
    (folder / "weights").mkdir()
    for name, size in (("weights/large.bin", 2 * MIB), ("weights/kept.bin", 2 * MIB), ("small.txt", 10)):
        (folder / name).write_bytes(bytes(size))
    (folder / ".gitignore").write_text(".gpu/\n")
    subprocess.run([*run, "add", "."], cwd=folder, check=True)
    subprocess.run([*run, "commit", "-qm", "all"], cwd=folder, check=True)
    (folder / ".gpu").mkdir()
    (folder / ".gpu" / "ignored").write_bytes(bytes(9))
    (folder / "new.txt").write_bytes(bytes(7))
    return folder


def test_large_files_are_moved_away_and_restored(tmp_path: Path) -> None:
    root = checkout(tmp_path / "checkout")
    sizes = cargo.tracked(root)
    large = {"weights/large.bin": 2 * MIB, "weights/kept.bin": 2 * MIB}
    assert sizes == {**large, "small.txt": 10, ".gitignore": 6, "new.txt": 7}
    away = root / ".gpu" / "away"
    cargo.make_kept(["weights/kept.bin"], root, root / ".gpu")
    assert sorted(cargo.lighten(root, away)) == sorted(large)
    assert not large.keys() & cargo.tracked(root).keys()
    assert cargo.lighten(root, away) == []
    cargo.make_kept(["weights/kept.bin"], root, root / ".gpu")  # a file that was moved away is found, too
    assert sorted(cargo.restore(root, away)) == sorted(large)
    assert cargo.tracked(root) == sizes
    assert not away.exists()
    assert cargo.restore(root, away) == []


def test_no_weights_are_lost_if_the_working_tree_got_others_meanwhile(tmp_path: Path) -> None:
    """``git checkout`` brings the committed weights back; those that were moved away may be newer."""
    root = checkout(tmp_path / "checkout")
    away, trained = root / ".gpu" / "away", bytes([1]) * 2 * MIB
    (root / "weights" / "large.bin").write_bytes(trained)
    cargo.lighten(root, away)
    subprocess.run(["git", "checkout", "-q", "weights/large.bin"], cwd=root, check=True)
    for move in (cargo.lighten, cargo.restore):
        with pytest.raises(ValueError, match=r"large\.bin differs from"):
            move(root, away)
        assert (away / "weights" / "large.bin").read_bytes() == trained
    assert (root / "weights" / "kept.bin").is_file()  # nothing stands in its way
    (root / "weights" / "large.bin").unlink()
    assert cargo.restore(root, away) == ["weights/large.bin"]
    assert (root / "weights" / "large.bin").read_bytes() == trained


def test_a_missing_file_to_keep_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"keep names weights/none\.bin"):
        cargo.make_kept(["weights/none.bin"], tmp_path, tmp_path / ".gpu")


def stowable(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for pack in ("one", "two"):
        images = folder / "packs" / pack / "images"
        images.mkdir(parents=True)
        (images.parent / "annotations.json").write_text(json.dumps([0] * 20000))
        for number in range(10):
            (images / f"{number}.jpg").write_bytes(rng.bytes(30_000))
    (folder / "wheels").mkdir()
    (folder / "wheels" / "some.whl").write_bytes(rng.bytes(50_000))
    (folder / "kept" / "weights").mkdir(parents=True)
    (folder / "kept" / "weights" / "kept.bin").write_bytes(b"kept")


def test_cargo_is_spread_over_volumes(tmp_path: Path) -> None:
    folder, there = tmp_path / "here", tmp_path / "there"
    stowable(folder)
    volumes = cargo.stow(folder, [300_000] * 3)
    assert [volume.relative_to(folder).as_posix() for volume in volumes] == [f"volume-{n}/cargo.zip" for n in (1, 2, 3)]
    assert all(volume.stat().st_size <= 300_000 for volume in volumes)
    (tmp_path / "root").mkdir()
    with pytest.raises(cargo.MissingError, match=r"no volume is in .*there: carry there/volume-1"):
        cargo.unstow(there, tmp_path / "root")
    for number in (0, 2, 1):  # in each call one volume
        target = there / volumes[number].relative_to(folder)
        target.parent.mkdir(parents=True)
        target.write_bytes(volumes[number].read_bytes())
        if number != 1:
            with pytest.raises(cargo.MissingError, match=r"volume 2 of 3 is not in .*: carry there/volume-2"):
                cargo.unstow(there, tmp_path / "root")
    kept = tmp_path / "root" / "weights" / "kept.bin"
    for _ in range(2):  # the tool removes the kept file before each call
        cargo.unstow(there, tmp_path / "root")
        assert kept.read_bytes() == b"kept"
        kept.unlink()
    for path in (path for path in folder.rglob("*") if path.suffix not in (".zip", ".bin") and path.is_file()):
        assert (there / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert not list(there.rglob("cargo.zip"))
    old, changed = (there / "packs" / "one" / "images" / f"{number}.jpg" for number in (0, 1))
    before, size = old.stat().st_mtime_ns, changed.stat().st_size
    changed.write_bytes(bytes(size))
    for volume in volumes:  # the volumes come again
        (there / volume.relative_to(folder)).write_bytes(volume.read_bytes())
    cargo.unstow(there, tmp_path / "root")
    assert old.stat().st_mtime_ns == before
    assert changed.read_bytes() == (folder / changed.relative_to(there)).read_bytes()
    with pytest.raises(cargo.TooLargeError, match=r"takes 0\.6 MiB \(.*two 0\.3.*more volumes"):
        cargo.stow(folder, [300_000] * 2)
    assert not list(folder.glob("volume-*"))  # neither old volumes nor incomplete new ones
    assert len(cargo.stow(folder, [700_000] * 2)) == 1
    target = there / "volume-1" / "cargo.zip"
    target.write_bytes((folder / "volume-1" / "cargo.zip").read_bytes())
    cargo.unstow(there, tmp_path / "root")  # the volumes of another pack replace the old ones


def test_volumes_are_filled_before_the_next_one_begins(tmp_path: Path) -> None:
    """A large file that does not fit into the rest of a volume does not waste this rest."""
    for name, size in (("wheels/a.whl", 300_000), ("starts/b.bin", 500_000), ("packs/p/c.jpg", 300_000)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(size))
    assert len(cargo.stow(tmp_path, [700_000] * 2)) == 2


def test_all_packages_that_the_machine_lacks_are_packed() -> None:
    """The machine has no network, so the packages that a packed package needs are packed, too."""
    packed = {name.replace("_", "-") for name in cargo.LACKING}
    needed = {name for one in cargo.LACKING for name in requires(one) or () if "extra ==" not in name}
    assert {re.split(r"[^\w-]", name)[0].replace("_", "-") for name in needed} <= packed


def test_weights_of_the_tests_on_the_machine_are_packed() -> None:
    """`pack` takes along the weights that the tests for a GPU load."""
    rows = read_manifest()
    names: set[str] = set()
    for file in rounds.TESTS:
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(
                "mark.cuda" in ast.unparse(one) for one in node.decorator_list
            ):
                names |= set(re.findall(r"from_pretrained\('(\w+)'", ast.unparse(node)))
    assert {"HIH_T", "HIH_N"} <= names
    for plan in PLANS:
        assert {rows[f"{name}/300w"].file for name in names} <= {Path(path).name for path in read_plan(plan).keep}


def test_the_plan_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    plain = {"packs": {"a": {"data": "x", "scheme": "wflw"}}, "val": "a"}
    network = {"name": "n", "recipe": "wild", "data": {"a": 1.0}}
    for changes, message in (
        ({"networks": []}, "networks is empty"),
        ({"networks": [network, network]}, "expected different names"),
        ({"networks": [network | {"data": {"b": 1.0}}]}, "pack is 'b'"),
        ({"networks": [network], "val": "c"}, "pack is 'c'"),
        ({"networks": [network | {"val": "d"}]}, "pack is 'd'"),
        ({"networks": [network | {"share": 0.0}]}, "share"),
        ({"networks": [network], "nets": 1}, "unknown keys"),
    ):
        path.write_text(json.dumps(plain | changes))
        with pytest.raises(ValueError, match=message):
            read_plan(path)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_of_the_repository_are_valid(path: Path) -> None:
    """The plan's recipes exist, know the plan's keys, and have one stage each."""
    from hih_align.training.recipe import load_recipe

    plan = read_plan(path)
    for network in plan.networks:
        recipe = load_recipe(network.recipe, network.size, {**network.set, "seconds": 60.0, "calibrate": "no"})
        assert recipe.seconds == 60
        assert network.init is not None
    assert all((ROOT / name).is_file() for name in plan.keep)


def test_weights_are_stored_in_float16(tmp_path: Path) -> None:
    scheme = scheme_from_dict(SCHEME)
    config = Config(scheme, **Size(1, width=0.25, head_channels=64, input_size=128)._asdict())
    network = HIHNet(4, *config.size)
    save_checkpoint(tmp_path / "net" / "best", network, config)
    halves.halve(tmp_path, tmp_path / "halves")
    path = tmp_path / "halves" / "net" / "best" / "model.safetensors"
    assert path.stat().st_size < 0.6 * (tmp_path / "net" / "best" / "model.safetensors").stat().st_size
    there = load_network(find_checkpoint(str(path.parent))).state_dict()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(there[name], value, rtol=1e-3, atol=1e-6)
    before = path.stat().st_mtime_ns
    halves.halve(tmp_path, tmp_path / "halves")
    assert path.stat().st_mtime_ns == before  # the file is not written again
    with torch.no_grad():
        next(network.parameters()).mul_(1e6)
    save_checkpoint(tmp_path / "net" / "best", network, config)
    save_checkpoint(tmp_path / "other" / "best", HIHNet(4, *config.size), config)
    rounds.send(tmp_path, tmp_path / "out")  # the other networks are sent anyway
    found = parcel.read(tmp_path / "out")
    assert b"net/best/model.safetensors: " in found["float16-error.txt"]
    assert {path for path in found if path.endswith("safetensors")} >= {"other/best/model.safetensors"}


def test_weights_that_are_replaced_while_they_are_converted_are_converted_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(value: float) -> None:
        (tmp_path / "net" / "best").mkdir(parents=True, exist_ok=True)
        weights = safetensors.numpy.save({"weight": np.full(1, value, np.float32)})
        parcel.replace(tmp_path / "net" / "best" / "model.safetensors", weights)
        (tmp_path / "net" / "best" / "config.json").write_text("{}")

    def load_slowly(data: bytes) -> Any:
        write(2)  # the training has a better network
        return load(data)

    write(1)
    load = safetensors.numpy.load
    monkeypatch.setattr(safetensors.numpy, "load", load_slowly)
    halves.halve(tmp_path, tmp_path / "halves")
    monkeypatch.undo()
    halves.halve(tmp_path, tmp_path / "halves")
    found = load((tmp_path / "halves" / "net" / "best" / "model.safetensors").read_bytes())
    assert found["weight"] == 2


# -- a round


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan of two small networks on six faces, and with the plan's volumes."""
    folder = tmp_path_factory.mktemp("round")
    scheme = folder / "scheme.json"
    scheme.write_text(json.dumps(SCHEME))
    sources = {"few": write_faces(folder / "few", 6, 0), "val": write_faces(folder / "val", 3, 1)}
    (folder / "split.txt").write_text("0.png\n2.png\n5.png\n")
    small = {"width": 0.25, "head_channels": 64, "input_size": 128, "store_side": 96, "precision": "no", "ema": 0.9}
    stages = [{"epochs": 2, "size": 64, "batch": 2, "lr": 5e-4}]
    network = {"recipe": "modern/t", "data": {"few": 1.0}, "set": {**small, "stages": stages}}
    config = Config(scheme_from_dict(SCHEME), **Size(1, width=0.25, head_channels=64, input_size=128)._asdict())
    save_checkpoint(folder / "start", HIHNet(4, *config.size), config)
    plan = {
        "packs": {name: {"data": str(path), "scheme": str(scheme), "side": 96} for name, path in sources.items()}
        | {"two": {"data": str(sources["few"]), "scheme": str(scheme), "where": str(folder / "split.txt"), "faces": 2}},
        "networks": [
            network | {"name": "first", "init": str(folder / "start"), "share": 2},
            network | {"name": "second", "data": {"val": 1.0}, "val": "two"},
        ],
        "val": "val",
    }
    (folder / "plan.yaml").write_text(json.dumps(plan))
    here = folder / "here"
    read = read_plan(folder / "plan.yaml")
    cargo.make_packs(read, ROOT, here, again=False)
    cargo.make_starts(read, ROOT, here)
    cargo.stow(here, [10 * MIB])
    return folder


def machine(packed: Path, folder: Path) -> Path:
    """The folder as it is on the machine: it holds only the volumes."""
    for volume in (packed / "here").glob("volume-*/cargo.zip"):
        target = folder / volume.relative_to(packed / "here")
        target.parent.mkdir(parents=True)
        target.write_bytes(volume.read_bytes())
    return folder


def test_packs_are_made_once(packed: Path) -> None:
    assert len(json.loads((packed / "here" / "packs" / "few" / "annotations.json").read_text())["annotations"]) == 6
    assert len(json.loads((packed / "here" / "packs" / "two" / "annotations.json").read_text())["annotations"]) == 2
    picture = packed / "here" / "packs" / "few" / "images" / "000000.jpg"
    before = picture.stat().st_mtime_ns
    read = read_plan(packed / "plan.yaml")
    shutil.copytree(packed / "here" / "packs" / "two", packed / "here" / "packs" / "of another plan")
    cargo.make_packs(read, ROOT, packed / "here", again=False)
    assert picture.stat().st_mtime_ns == before
    assert sorted(path.name for path in (packed / "here" / "packs").iterdir()) == ["few", "two", "val"]
    split = packed / "split.txt"
    of_split = packed / "here" / "packs" / "two" / "images" / "000000.jpg"
    made = of_split.stat().st_mtime_ns
    text = split.read_text()
    split.write_text(text + "3.png\n")
    os.utime(split, (0, 0))  # another time than before, whatever the clock's steps
    cargo.make_packs(read, ROOT, packed / "here", again=False)
    assert of_split.stat().st_mtime_ns > made  # the pack of a changed split file is made anew
    assert picture.stat().st_mtime_ns == before
    split.write_text(text)
    cargo.make_packs(read, ROOT, packed / "here", again=True)
    assert picture.stat().st_mtime_ns > before


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of a training also sleeps: where only the time counts, the processor need not work all the time."""
    step = Trainer._step

    def sleepy(self: Trainer, *arguments: Any) -> None:
        step(self, *arguments)
        time.sleep(0.15)

    monkeypatch.setattr(Trainer, "_step", sleepy)


@pytest.mark.usefixtures("few_steps")
def test_networks_share_the_time(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training process's code runs in this process. The first network gets two thirds of four seconds.

    The second network gets the rest. The time to make a trainer counts.
    """
    make = Trainer.__init__

    def slow(self: Trainer, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        time.sleep(0.3)

    monkeypatch.setattr(Trainer, "__init__", slow)
    monkeypatch.setattr(training, "BESIDE", 0.5)
    monkeypatch.setattr(training, "LEAST", -1e9)  # so that a slow machine trains, too
    folder, out = machine(packed, tmp_path / "gpu"), tmp_path / "out"
    cargo.unstow(folder, tmp_path)
    (out / "checks" / "training").mkdir(parents=True)
    faster = {"fastest": {"HIH_T": {"compile": False}, "HIH_S": {"compile": "cudagraphs"}}}
    (out / "checks" / "training" / "gpu_training.json").write_text(json.dumps(faster))
    (tmp_path / "go").touch()
    began = time.time()
    with handlers():
        training.train_all(packed / "plan.yaml", folder, out, began + 4, tmp_path / "go", 1, "cpu")
    runs = {name: json.loads((out / name / "run.json").read_text()) for name in ("first", "second")}
    assert runs["first"]["init"] is not None
    assert runs["second"]["init"] is None
    assert 1.0 <= runs["first"]["recipe"]["seconds"] <= 4 * 2 / 3 - 0.5
    for name in runs:
        result = json.loads((out / name / "result.json").read_text())
        assert result["completed"]
        assert result["seconds"] == 1.0 or result["seconds"] < runs[name]["recipe"]["seconds"] - 0.3
        told = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        assert told[-1]["steps"] == result["steps"]
        assert min(line["nme"] for line in told if "nme" in line) == result["nme"]
        assert len(FaceAligner.from_pretrained(str(out / name / "best")).scheme) == 4


@pytest.mark.usefixtures("few_steps")
def test_a_network_that_fails_does_not_use_the_time_of_the_others(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "LEAST", -1e9)
    folder, out = machine(packed, tmp_path / "gpu"), tmp_path / "out"
    cargo.unstow(folder, tmp_path)
    (folder / "starts" / "first" / "model.safetensors").write_bytes(b"damaged")
    monkeypatch.setattr(training, "_faster", lambda out, size: {"compile": "no such way"})
    (tmp_path / "go").touch()
    with handlers():
        training.train_all(packed / "plan.yaml", folder, out, time.time() + 2, tmp_path / "go", 1, "cpu")
    errors = (out / "first-error.txt").read_text()
    assert "no such way" in errors
    assert "damaged" in errors
    assert "no such way" in (out / "second-error.txt").read_text()
    assert json.loads((out / "second" / "result.json").read_text())["completed"]
    assert "CheckpointError" in capsys.readouterr().err


def test_nothing_is_trained_on_a_machine_without_a_gpu(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with handlers(), pytest.raises(SystemExit, match=r"no CUDA GPU.*--device cpu"):
        training.train_all(packed / "plan.yaml", tmp_path, tmp_path / "out", time.time() + 9, tmp_path / "go", 1)


def test_an_epoch_that_is_stopped_returns_its_last_network(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM comes after the first step, before any validation. A further call trains again."""
    step = Trainer._step

    def stopped(self: Trainer, *arguments: Any) -> None:
        step(self, *arguments)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_step", stopped)
    folder, out = machine(packed, tmp_path / "gpu"), tmp_path / "round"
    cargo.unstow(folder, tmp_path)
    (tmp_path / "go").touch()
    for number in (1, 2):
        rounds.put_aside(out)
        with handlers():
            training.train_all(packed / "plan.yaml", folder, out, time.time() + 300, tmp_path / "go", 1, "cpu")
        assert rounds.send(out, tmp_path / f"out{number}") == []
        parcel.collect([tmp_path / f"out{number}"], tmp_path / f"in{number}")
        first = tmp_path / f"in{number}" / "first"
        assert json.loads((first / "result.json").read_text())["steps"] == 1
        assert not (first / "best").exists()
        assert len(FaceAligner.from_pretrained(str(first / "last")).scheme) == 4
    assert (out / "before" / "1" / "first" / "last").is_dir()


@contextmanager
def handlers() -> Iterator[None]:
    """Restore the handlers of the signals at the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quick(name: str, script: str, limit: float) -> rounds.Check:
    return rounds.Check(name, ["sh", "-c", script], limit)


def test_checks_have_time_limits_and_their_output_is_returned(packed: Path, tmp_path: Path) -> None:
    folder = machine(packed, tmp_path / "gpu")
    checks = [
        quick("fails", "echo three failed; exit 1", 60),
        quick("hangs", "echo begun; exec sleep 600", 2),
        quick("works", "echo fine", 60),
    ]
    made = rounds.Round(ROOT, folder, packed / "plan.yaml", tmp_path / "out", 200, checks, train=False)
    with handlers():
        assert made.run() == 1
    found = parcel.read(tmp_path / "out")
    assert found["checks/fails.log"] == b"three failed\n"
    assert found["checks/hangs.log"] == b"begun\n"
    assert found["checks/works.log"] == b"fine\n"


def test_a_stopped_round_returns_what_it_has(packed: Path, tmp_path: Path) -> None:
    """The whole round, as a command in another folder. SIGTERM comes after the first network's first validation.

    Then the round starts no more work and writes what it has.
    """
    folder, out = machine(packed, tmp_path / "gpu"), tmp_path / "out"
    command = [
        "run",
        "1000",
        "out",
        "--plan",
        packed / "plan.yaml",
        "--folder",
        folder,
        "--device",
        "cpu",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(
        [*map(str, [ROOT / "scripts" / "gpu_round", *command])],
        env={**os.environ, "PYTHON": sys.executable},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    best = folder / "round" / "first" / "best" / "config.json"
    end = time.time() + 300
    while not best.is_file() and time.time() < end and process.poll() is None:
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 1
    assert sum(path.is_file() for path in out.iterdir()) <= parcel.FILES
    assert main(["collect", str(out), "--into", str(tmp_path / "in")]) == 0
    first = tmp_path / "in" / "first"
    assert len(FaceAligner.from_pretrained(str(first / "best")).scheme) == 4
    assert json.loads((first / "metrics.jsonl").read_text().splitlines()[0])["nme"] > 0
    # on a slow machine the step does not end in time and the training is killed; then there is no result
    result = first / "result.json"
    assert not result.is_file() or not json.loads(result.read_text())["completed"]
    assert "decoded in" in (tmp_path / "in" / "training.log").read_text()
    assert not (tmp_path / "in" / "second").exists()


def test_the_rest_is_returned_by_further_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(scheme_from_dict(SCHEME), **Size(1, width=0.25, head_channels=64, input_size=128)._asdict())
    for name in ("a/best", "b/best", "b/last"):
        save_checkpoint(tmp_path / "round" / name, HIHNet(4, *config.size), config)
    shutil.copytree(tmp_path / "round" / "a" / "best", tmp_path / "round" / "a" / "last")  # it is not sent
    write, size = parcel.write, 0.7 * (tmp_path / "round" / "a" / "best" / "model.safetensors").stat().st_size
    monkeypatch.setattr(parcel, "write", lambda out, files: write(out, files, total=int(size)))
    missing = [f"b/{name}/model.safetensors" for name in ("best", "last")]
    assert rounds.send(tmp_path / "round", tmp_path / "out1") == missing
    for name, sent, told in (("out2", missing[0], missing[1]), ("out3", missing[1], "all results are sent")):
        assert main(["send", str(tmp_path / name), "--folder", str(tmp_path)]) == 0
        assert [path for path in parcel.read(tmp_path / name) if path.endswith("safetensors")] == [sent]
        assert told in capsys.readouterr().out
    outs = [str(tmp_path / f"out{number}") for number in (1, 2, 3)]
    assert main(["collect", *outs[:2], "--into", str(tmp_path / "in")]) == 0
    error = capsys.readouterr().err
    assert missing[0] not in error
    assert f"out2 had no room for {missing[1]}" in error
    assert main(["collect", outs[2], "--into", str(tmp_path / "in")]) == 0
    for name in ("a/best", "b/best", "b/last"):
        load_network(find_checkpoint(str(tmp_path / "in" / name)))
    assert not (tmp_path / "in" / "a" / "last").exists()
