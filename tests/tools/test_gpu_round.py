"""`scripts/gpu_round` on a machine without a GPU.

Packed faces are trained on, and the results come back, whatever ends the round.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")

from made_faces import SCHEME, write_faces

from hih_align import Config, FaceAligner, HIHNet
from hih_align.hub.checkpoints import find_checkpoint, load_network, save_checkpoint
from hih_align.method.network import Size
from hih_align.schemes import scheme_from_dict

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
from gpu_round import cargo, halves, parcel, rounds, training  # noqa: E402  # a maintainer's tool, in no installed package
from gpu_round.__main__ import main  # noqa: E402
from gpu_round.plan import read_plan  # noqa: E402

MIB = 1 << 20


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
    parcel.write(tmp_path / "evil", {"../../x": b"1"})
    with pytest.raises(ValueError, match="is outside"):
        parcel.collect([tmp_path / "evil"], tmp_path / "in")


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
    with zipfile.ZipFile(volumes[0]) as archive:
        assert {"wheels/some.whl", "packs/one/annotations.json", "packs/two/annotations.json"} <= set(
            archive.namelist()
        )
    for volume in volumes:
        target = there / volume.relative_to(folder)
        target.parent.mkdir(parents=True)
        target.write_bytes(volume.read_bytes())
    (tmp_path / "root").mkdir()
    cargo.unstow(there, tmp_path / "root")
    assert (tmp_path / "root" / "weights" / "kept.bin").read_bytes() == b"kept"
    for path in (path for path in folder.rglob("*") if path.suffix not in (".zip", ".bin") and path.is_file()):
        assert (there / path.relative_to(folder)).read_bytes() == path.read_bytes()
    assert not list(there.rglob("cargo.zip"))
    with pytest.raises(cargo.TooLargeError, match=r"takes 0\.7 MiB \(.*two 0\.3.*more volumes"):
        cargo.stow(folder, [300_000] * 2)
    assert not list(folder.glob("volume-*"))  # neither old volumes nor incomplete new ones


def test_the_plan_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    plain = {"packs": {"a": {"data": "x", "scheme": "wflw"}}, "val": "a"}
    network = {"name": "n", "recipe": "wild", "data": {"a": 1.0}}
    for changes, message in (
        ({"networks": []}, "networks is empty"),
        ({"networks": [network, network]}, "expected different names"),
        ({"networks": [network | {"data": {"b": 1.0}}]}, "pack is 'b'"),
        ({"networks": [network], "val": "c"}, "pack is 'c'"),
        ({"networks": [network | {"share": 0.0}]}, "share"),
        ({"networks": [network], "nets": 1}, "unknown keys"),
    ):
        path.write_text(json.dumps(plain | changes))
        with pytest.raises(ValueError, match=message):
            read_plan(path)


def test_the_plan_of_the_repository_is_valid() -> None:
    """The plan's recipes exist, know the plan's keys, and have one stage each."""
    from hih_align.training.recipe import load_recipe

    plan = read_plan(ROOT / "scripts" / "gpu_plan.yaml")
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
    with pytest.raises(ValueError, match="does not fit into float16"):
        halves.halve(tmp_path, tmp_path / "halves")


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
            network | {"name": "second"},
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
    cargo.make_packs(read, ROOT, packed / "here", again=False)
    assert picture.stat().st_mtime_ns == before
    cargo.make_packs(read, ROOT, packed / "here", again=True)
    assert picture.stat().st_mtime_ns > before


def test_networks_share_the_time(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training process's code runs in this process. The first network gets two thirds of five seconds.

    The second network gets the rest.
    """
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
        training.train_all(packed / "plan.yaml", folder, out, began + 5, tmp_path / "go", 1)
    runs = {name: json.loads((out / name / "run.json").read_text()) for name in ("first", "second")}
    assert runs["first"]["init"] is not None
    assert runs["second"]["init"] is None
    assert 1.0 <= runs["first"]["recipe"]["seconds"] <= 5 * 2 / 3 - 0.5
    for name in runs:
        result = json.loads((out / name / "result.json").read_text())
        assert result["completed"]
        told = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        assert told[-1]["steps"] == result["steps"]
        assert min(line["nme"] for line in told if "nme" in line) == result["nme"]
        assert len(FaceAligner.from_pretrained(str(out / name / "best")).scheme) == 4


def test_a_network_that_fails_does_not_use_the_time_of_the_others(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "LEAST", -1e9)
    folder, out = machine(packed, tmp_path / "gpu"), tmp_path / "out"
    cargo.unstow(folder, tmp_path)
    (folder / "starts" / "first" / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "go").touch()
    with handlers():
        training.train_all(packed / "plan.yaml", folder, out, time.time() + 2, tmp_path / "go", 1)
    assert "damaged" in (out / "first-error.txt").read_text()
    assert json.loads((out / "second" / "result.json").read_text())["completed"]
    assert "CheckpointError" in capsys.readouterr().err


@contextmanager
def handlers() -> Iterator[None]:
    """Restore the handlers of the signals at the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quick(name: str, code: str, limit: float) -> rounds.Check:
    return rounds.Check(name, [sys.executable, "-c", code], limit)


def test_checks_have_time_limits_and_their_output_is_returned(packed: Path, tmp_path: Path) -> None:
    folder = machine(packed, tmp_path / "gpu")
    checks = [
        quick("fails", "print('three failed'); raise SystemExit(1)", 60),
        quick("hangs", "import time; print('begun', flush=True); time.sleep(600)", 3),
        quick("works", "print('fine')", 60),
    ]
    made = rounds.Round(ROOT, folder, packed / "plan.yaml", tmp_path / "out", 200, checks, train=False)
    with handlers():
        assert made.run() == 1
    found = parcel.read(tmp_path / "out")
    assert found["checks/fails.log"] == b"three failed\n"
    assert found["checks/hangs.log"] == b"begun\n"
    assert found["checks/works.log"] == b"fine\n"


def test_a_stopped_round_returns_what_it_has(packed: Path, tmp_path: Path) -> None:
    """The whole round, as a command. SIGTERM comes after the first network's first validation.

    Then the round starts no more work and writes what it has.
    """
    folder, out = machine(packed, tmp_path / "gpu"), tmp_path / "out"
    command = ["run", "1000", out, "--plan", packed / "plan.yaml", "--folder", folder, "--no-checks", "--workers", "1"]
    process = subprocess.Popen(
        [*map(str, [ROOT / "scripts" / "gpu_round", *command])],
        env={**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""},
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


def test_the_rest_is_returned_by_a_further_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(scheme_from_dict(SCHEME), **Size(1, width=0.25, head_channels=64, input_size=128)._asdict())
    for name in ("a", "b"):
        save_checkpoint(tmp_path / "round" / name / "best", HIHNet(4, *config.size), config)
    write, size = parcel.write, 0.7 * (tmp_path / "round" / "a" / "best" / "model.safetensors").stat().st_size
    monkeypatch.setattr(parcel, "write", lambda out, files: write(out, files, total=int(size)))
    assert rounds.send(tmp_path / "round", tmp_path / "out1") == ["b/best/model.safetensors"]
    assert main(["send", str(tmp_path / "out2"), "--folder", str(tmp_path)]) == 0
    assert "b/best/model.safetensors" in parcel.read(tmp_path / "out2")
    assert "a/best/model.safetensors" not in parcel.read(tmp_path / "out2")
    parcel.collect([tmp_path / "out1", tmp_path / "out2"], tmp_path / "in")
    for name in ("a", "b"):
        load_network(find_checkpoint(str(tmp_path / "in" / name / "best")))
