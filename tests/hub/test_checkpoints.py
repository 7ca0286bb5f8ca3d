"""`checkpoints`: from a name to the manifest, the file and the network. Downloads are tested in test_hub.py."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray

import hih_align
from hih_align import SCHEMES, CheckpointError, Config, Decoder, FaceAligner, HIHNet, Scheme, WeightsUnavailableError
from hih_align.hub.checkpoints import (
    CORRECTION,
    Checkpoint,
    find_checkpoint,
    load_network,
    save_checkpoint,
    save_config,
)
from hih_align.hub.config import config_from_dict, read_config, write_config
from hih_align.hub.manifest import ManifestRow, check_writable, local_weights, manifest_path, read_manifest, record
from hih_align.landmarks import Landmarks
from hih_align.method.sizes import SIZES, Size
from hih_align.scores import Calibration

WEIGHTS = b"stand-in for weights"
MINE = Scheme(id="mine", names=("a", "b", "c"), mirror=((0, 1),), five=((0,), (1,), (2,), (0,), (1,)))


@pytest.fixture(scope="module")
def stored() -> bytes:
    """The shipped HIH_T/300w file."""
    path = local_weights(read_manifest()["HIH_T/300w"])
    assert path is not None
    return path.read_bytes()


@pytest.fixture
def row() -> ManifestRow:
    return read_manifest()["HIH_T/300w"]


class Install:
    """A made-up installation in a folder: a package folder and a manifest, in which `checkpoints` searches."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / "site"
        self.package = self.root / "hih_align"
        self.package.mkdir(parents=True)
        monkeypatch.setattr("hih_align.hub.manifest.__file__", str(self.package / "hub" / "manifest.py"))
        monkeypatch.delenv("HIH_ALIGN_WEIGHTS", raising=False)

    def manifest(self, inside: bool = False, **change: Any) -> None:
        """Write the real manifest, with changes in its first row."""
        source = Path(__file__).parents[2] / "weights_manifest.json"
        data = json.loads(source.read_text())
        data["checkpoints"][0] |= {"sha256": hashlib.sha256(WEIGHTS).hexdigest()} | change
        folder = self.package if inside else self.root
        (folder / "weights_manifest.json").write_text(json.dumps(data))

    @staticmethod
    def put(folder: Path, data: bytes = WEIGHTS) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "HIH_T_300w.safetensors"
        path.write_bytes(data)
        return path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    return Install(tmp_path, monkeypatch)


# the manifest


def test_the_manifest() -> None:
    rows = read_manifest()
    sizes = ("HIH_T", "HIH_S", "HIH_B", "HIH_N")
    assert list(rows) == [f"{size}/{scheme}" for size in sizes for scheme in ("300w", "wflw")]
    for id, row in rows.items():
        assert (row.id, id) == (f"{row.size}/{row.scheme}", row.id)
        assert (row.config.size, row.config.name) == (SIZES[row.size], id)
        assert row.config.scheme is SCHEMES[row.scheme]
        assert row.landmarks == len(row.config.scheme)
        assert row.file.endswith(".safetensors")
        assert row.license
        assert (row.repo_id is None) == (row.revision is None)
        for metric in row.metrics:
            assert {"metric", "dataset", "value", "command", "date", "hardware"} <= set(metric), id


TRAINED = [id for id, row in read_manifest().items() if row.sha256]


def test_trained_networks_stay_in_the_manifest() -> None:
    assert {"HIH_T/300w", "HIH_T/wflw", "HIH_S/300w", "HIH_S/wflw", "HIH_B/300w", "HIH_B/wflw"} <= set(TRAINED)


@pytest.mark.parametrize("id", TRAINED)
def test_shipped_weights_are_those_of_the_manifest(id: str) -> None:
    row = read_manifest()[id]
    package = Path(hih_align.__file__).parent
    # the small networks are in the wheel; the other weights are in the checkout
    path = (package if row.size in ("HIH_N", "HIH_T") else manifest_path().parent) / "weights" / row.file
    assert local_weights(row) == path
    assert path.stat().st_size == row.bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256
    tensors = safetensors.torch.load_file(path)
    assert tensors.pop(CORRECTION, torch.zeros(0)).dtype == torch.float32
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}
    assert row.training
    assert row.metrics


@pytest.mark.parametrize("scheme", sorted({id.partition("/")[2] for id in TRAINED}))
def test_larger_networks_agree_with_hih_t(scheme: str, astronaut: NDArray[np.uint8]) -> None:
    def found(id: str) -> Landmarks:
        return FaceAligner.from_pretrained(id, device="cpu").align(astronaut, (177, 80, 275, 200), refine=0)

    smallest = found(f"HIH_T/{scheme}")
    for id in TRAINED:
        if id.endswith(f"/{scheme}") and not id.startswith(("HIH_N", "HIH_T")):
            larger = found(id)
            apart = np.linalg.norm(larger.points - smallest.points, axis=-1) / 120
            assert 0 < apart.mean() < 0.015, id
            assert larger.score > 0.8, id


@pytest.mark.parametrize("inside", [True, False], ids=["wheel", "checkout"])
def test_the_manifest_is_found(install: Install, inside: bool) -> None:
    install.manifest(inside, license="changed")
    assert manifest_path() == (install.package if inside else install.root) / "weights_manifest.json"
    assert read_manifest()["HIH_T/300w"].license == "changed"


@pytest.mark.parametrize("inside", [True, False], ids=["wheel", "checkout"])
def test_the_manifest_of_an_installed_package_is_not_changed(install: Install, inside: bool, tmp_path: Path) -> None:
    install.manifest(inside)
    before = manifest_path().read_bytes()
    config = replace(read_manifest()["HIH_T/300w"].config, refine=5)
    for write in (check_writable, lambda name: save_config(name, config)):  # before long work, and after it
        with pytest.raises(ValueError, match=r"model is .HIH_T., expected a folder with config\.json or one of"):
            write("HIH_T")
    if not inside:  # the manifest of a checkout may be changed
        check_writable("HIH_T/300w")
        assert save_config("HIH_T/300w", config) == manifest_path()
        assert read_manifest()["HIH_T/300w"].config.refine == 5
        return
    for change in (lambda: save_config("HIH_T/300w", config), lambda: record("HIH_T/300w", license="mine")):
        with pytest.raises(
            ValueError,
            match=r"model is 'HIH_T/300w', whose config is in .* not changed: write the model to a folder",
        ):
            change()
    assert manifest_path().read_bytes() == before
    # a user's own folder is written to, wherever the package is
    write_config(tmp_path, config)
    check_writable(str(tmp_path))
    assert save_config(str(tmp_path), replace(config, refine=2)) == tmp_path / "config.json"
    assert read_config(tmp_path / "config.json").refine == 2


# the folders that are searched for weights


def test_search_order(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install.manifest()
    user = tmp_path / "user"
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", str(user))
    for folder in (install.package / "weights", install.root / "weights", user):
        for other in (install.package / "weights", install.root / "weights", user):
            install.put(other)
        for earlier in (install.package / "weights", install.root / "weights", user):
            if earlier == folder:
                break
            (earlier / "HIH_T_300w.safetensors").unlink()
        for name in ("HIH_T", "HIH_T/300w"):
            assert find_checkpoint(name).weights == folder / "HIH_T_300w.safetensors"


def test_the_users_folder_may_be_missing(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install.manifest(inside=True)
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", "/no/such/folder")
    path = install.put(install.package / "weights")
    assert find_checkpoint("HIH_T").weights == path


def test_an_unpublished_row_names_the_file_and_the_folders(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install.manifest()
    monkeypatch.setenv("HIH_ALIGN_WEIGHTS", "/my/weights")
    with pytest.raises(
        WeightsUnavailableError, match=r"HIH_T/300w is not published: expected the file HIH_T_300w\.safetensors"
    ) as e:
        FaceAligner.from_pretrained("HIH_T")
    assert isinstance(e.value, OSError)
    for place in (str(install.package / "weights"), str(install.root / "weights"), "/my/weights", "HIH_ALIGN_WEIGHTS"):
        assert place in str(e.value)


def test_an_untrained_row_is_reported(install: Install) -> None:
    install.manifest(sha256=None, bytes=None)
    path = install.put(install.package / "weights")  # a file of this name must belong to another model
    with pytest.raises(WeightsUnavailableError, match=r"HIH_T/300w is not published \(not trained yet\)"):
        FaceAligner.from_pretrained("HIH_T/300w")
    assert path.exists()


@pytest.mark.parametrize("damage", [WEIGHTS[:-1], WEIGHTS + b"!", b"", bytes(len(WEIGHTS))])
def test_sha256_is_verified(install: Install, damage: bytes) -> None:
    install.manifest()
    path = install.put(install.root / "weights", damage)
    with pytest.raises(CheckpointError, match=f"{path} is damaged or not the published file") as error:
        FaceAligner.from_pretrained("HIH_T")
    assert isinstance(error.value, ValueError)
    assert hashlib.sha256(damage).hexdigest() in str(error.value)
    assert hashlib.sha256(WEIGHTS).hexdigest() in str(error.value)
    assert "install hih-align again" in str(error.value)  # without a repository, nothing would be downloaded
    assert path.read_bytes() == damage
    install.manifest(repo_id="user/name")
    with pytest.raises(CheckpointError, match="delete it, and the next call downloads it again"):
        FaceAligner.from_pretrained("HIH_T")


def test_names_of_rows_and_schemes(install: Install) -> None:
    install.manifest()
    install.put(install.package / "weights")
    for name, scheme in (("HIH_T", None), ("HIH_T", "300w"), ("HIH_T/300w", None), ("HIH_T/300w", SCHEMES["300w"])):
        assert find_checkpoint(name, scheme).config.name == "HIH_T/300w"
    for name, scheme, message in (
        ("HIH_T/300w", "wflw", "scheme is 'wflw', but HIH_T/300w was trained for '300w'"),
        ("HIH_T", MINE, r"scheme is 'mine', expected one of \['300w', 'cofw', 'wflw'\] for HIH_T"),
        ("HIH_Q", None, "model is 'HIH_Q', expected one of"),
        ("HIH_Q/300w", None, "model is 'HIH_Q/300w', expected one of"),
        ("HIH_T/300W", None, "model is 'HIH_T/300W', expected one of"),
        ("HIH_t/300w", None, "model is 'HIH_t/300w', expected one of"),
    ):
        with pytest.raises(ValueError, match=message):
            find_checkpoint(name, scheme)


def test_a_folder_takes_precedence_over_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_checkpoint("user/repo", HIHNet(3, 1, width=0.25), Config(MINE, 1, width=0.25, name="here"))
    assert find_checkpoint("user/repo").config.name == "here"
    assert find_checkpoint(Path("user/repo")).weights == Path("user/repo/model.safetensors")
    with pytest.raises(FileNotFoundError, match="'user' is a folder here, and has no 'other'"):
        find_checkpoint("user/other", cache_dir=tmp_path / "cache", local_files_only=True)
    with pytest.raises(WeightsUnavailableError, match="'a/other' is neither a folder here nor in the Hub's cache"):
        find_checkpoint("a/other", cache_dir=tmp_path / "cache", local_files_only=True)
    # but a folder does not replace a manifest row of the same name
    save_checkpoint("HIH_T/300w", HIHNet(3, 1, width=0.25), Config(MINE, 1, width=0.25, name="here"))
    assert find_checkpoint("HIH_T").config.name == "HIH_T/300w"
    assert find_checkpoint("HIH_T/300w").config.name == "HIH_T/300w"
    assert find_checkpoint("./HIH_T/300w").config.name == "here"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_a_file(tmp_path: Path, missing: str) -> None:
    save_checkpoint(tmp_path, HIHNet(3, 1, width=0.25), Config(MINE, 1, width=0.25))
    (tmp_path / missing).unlink()
    with pytest.raises(FileNotFoundError, match=f"model: {tmp_path} has no {missing}"):
        FaceAligner.from_pretrained(tmp_path)


# the config

FULL = Config(
    scheme=MINE,
    stacks=2,
    decimal_size=16,
    name="mine/2",
    crop_ratio=1.4,
    rounding="floor",
    decoder=Decoder("argmax", radius=3, power=1.5, temperature=0.5, bin_offset=0.5, shift=(0.25, -0.125)),
    refine=2,
    calibration={"argmax": Calibration(2.0, -1.0)},
)


@pytest.mark.parametrize(
    "config",
    [
        FULL,
        Config(MINE, 1, 4, 0.5, 256, 128),
        Config(SCHEMES["wflw"], 1, output="cofw"),
        Config(SCHEMES["300w"], 4),
        Config(MINE, 1, decoder=Decoder()),
    ],
)
def test_a_config_is_read_back_from_json(config: Config) -> None:
    data = json.loads(json.dumps(config.to_dict()))
    assert config_from_dict(data, "here") == config


def test_a_config_without_width_has_the_papers_width(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, HIHNet(3, 1), Config(MINE, 1))
    data = json.loads((tmp_path / "config.json").read_text())
    for key in ("width", "head_channels", "input_size"):
        del data[key]
    (tmp_path / "config.json").write_text(json.dumps(data))
    found = find_checkpoint(tmp_path)
    assert found.config.size == Size(1) == (1, 8, 1.0, 384, 256)
    assert load_network(found).size == Size(1)


def test_a_narrow_network_is_saved_and_loaded(tmp_path: Path) -> None:
    network = HIHNet(3, *SIZES["HIH_N"]).eval()
    save_checkpoint(tmp_path, network, Config(MINE, **SIZES["HIH_N"]._asdict()))
    loaded = load_network(find_checkpoint(tmp_path))
    assert loaded.size == SIZES["HIH_N"]
    found = loaded.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in network.state_dict().items())


def test_built_in_schemes_are_named_and_others_written_out() -> None:
    assert Config(SCHEMES["wflw"], 1).to_dict()["scheme"] == "wflw"
    impostor = replace(SCHEMES["wflw"], mirror=None)
    assert config_from_dict(json.loads(json.dumps(Config(impostor, 1).to_dict())), "here").scheme == impostor


def without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.pop(key)


def with_(**change: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.update(change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("model"), "'model' is missing"),
        (without("scheme"), "'scheme' is missing"),
        (without("stacks"), "'stacks' is missing"),
        (without("decimal_size"), "'decimal_size' is missing"),
        (without("crop_ratio"), "'crop_ratio' is missing"),
        (without("decoder"), "'decoder' is missing"),
        (with_(model="bert"), "model is 'bert', expected 'hih'"),
        (with_(scheme="68"), "'68' is missing or unknown"),
        (with_(scheme={"id": "mine"}), "scheme has the keys"),
        (with_(scheme=7), "not a hih-align config"),
        (with_(stacks="many"), "not a hih-align config.*many"),
        (with_(width="wide"), "not a hih-align config.*wide"),
        (with_(stacks=None), "not a hih-align config"),
        (with_(stacks=0), "stacks is 0"),
        (with_(decimal_size=5), "decimal_size is 5"),
        (with_(crop_ratio=0), "crop_ratio is 0"),
        (with_(crop_ratio=-1.25), "crop_ratio is -1.25"),
        (with_(crop_ratio=float("nan")), "crop_ratio is nan"),
        (with_(rounding="up"), "rounding is 'up'"),
        (with_(refine=-1), "refine is -1"),
        (with_(refine=10**6), "refine is 1000000"),
        (with_(decoder={"method": "mean"}), "decode is 'mean'"),
        (with_(decoder={"radios": 3}), "radios"),
        (with_(decoder={"power": -1}), "power"),
        (with_(decoder="argmax"), "not a hih-align config"),
        (with_(calibration={"argmax": {"slop": 1}}), "not a hih-align config"),
        (with_(calibration=[1]), "not a hih-align config"),
        (with_(output="68"), "68"),
        (with_(output="cofw"), "no conversion from scheme 'mine'"),
    ],
)
def test_wrong_configs(tmp_path: Path, damage: Callable[[dict[str, Any]], object], message: str) -> None:
    data = FULL.to_dict()
    damage(data)
    (tmp_path / "config.json").write_text(json.dumps(data))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=message) as error:
        FaceAligner.from_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[1, 2]", b"null", b"7", b"\xff\xfe\x00", b'"hih"', b"<html>"])
def test_files_that_are_not_a_config(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"config\.json is not"):
        FaceAligner.from_pretrained(tmp_path)


def test_a_newer_config_may_have_more_keys(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, HIHNet(3, 1, width=0.25), Config(MINE, 1, width=0.25))
    data = json.loads((tmp_path / "config.json").read_text()) | {"trained_with": "a later version"}
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert find_checkpoint(tmp_path).config == Config(MINE, 1, width=0.25)


# weights


def packed(header: dict[str, Any], body: bytes) -> bytes:
    """The bytes of a safetensors file: the header's length (8 bytes, little-endian), the header (JSON), the tensors."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def edited(data: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    header, body = unpacked(data)
    edit(header)
    return packed(header, body)


PREDICT = "trunk.stacks.0.predict.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"", "damaged or not a safetensors file"),
        (lambda b: b[:7], "damaged or not a safetensors file"),
        (lambda b: b[:1000], "damaged or not a safetensors file"),
        (lambda b: b[: len(b) // 2], "damaged or not a safetensors file"),
        (lambda b: b[:-1], "damaged or not a safetensors file"),
        (lambda b: b + b"\0", "damaged or not a safetensors file"),
        (lambda b: struct.pack("<Q", 1 << 60) + b[8:], "damaged or not a safetensors file"),
        (lambda b: b[:8] + b"\xff" + b[9:], "damaged or not a safetensors file"),
        (lambda b: b"PK\x03\x04" + b, "damaged or not a safetensors file"),
        (lambda b: edited(b, lambda h: h[PREDICT].update(dtype="F99")), "damaged or not a safetensors file"),
        (lambda b: edited(b, lambda h: h[PREDICT].update(shape=[68, 999, 1, 1])), "damaged or not a safetensors file"),
        (lambda b: edited(b, lambda h: h[PREDICT].update(data_offsets=[0, 1 << 40])), "damaged or not a safetensors"),
        (lambda b: edited(b, lambda h: h.update(other=h.pop(PREDICT))), f"lacks the tensor {PREDICT}"),
        (lambda b: edited(b, lambda h: h[PREDICT].update(shape=[256, 68, 1, 1])), rf"{PREDICT} has shape \(256, 68"),
    ],
)
def test_truncated_and_tampered_weights(
    tmp_path: Path, stored: bytes, row: ManifestRow, damage: Callable[[bytes], bytes], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(row.config.to_dict()))
    path = tmp_path / "model.safetensors"
    path.write_bytes(damage(stored))
    with pytest.raises(CheckpointError, match=f"{path}:? .*{message}|{path}:? {message}"):
        FaceAligner.from_pretrained(tmp_path)


def test_repacked_weights_still_load(tmp_path: Path, stored: bytes, row: ManifestRow) -> None:
    (tmp_path / "m.safetensors").write_bytes(edited(stored, lambda header: None))
    load_network(Checkpoint(row.config, tmp_path / "m.safetensors"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(SCHEMES["wflw"], 1), r"has shape \(68, .*\), expected \(98, "),
        (Config(SCHEMES["300w"], 2), r"lacks the tensor trunk\.stacks\.1\."),
        (Config(SCHEMES["300w"], 1, decimal_size=4), r"lacks the tensor decimal_head\.down\.2\."),
        (Config(SCHEMES["300w"], 1, decimal_size=16), r"holds the tensor decimal_head\.down\.1\..* does not have"),
    ],
)
def test_weights_that_do_not_fit_the_config(config: Config, message: str, row: ManifestRow) -> None:
    path = local_weights(row)
    assert path is not None
    with pytest.raises(CheckpointError, match=message):
        load_network(Checkpoint(config, path))


def test_float16_is_read_as_float32(row: ManifestRow, stored: bytes) -> None:
    network = load_network(find_checkpoint("HIH_T"))
    assert not network.training
    in_file = safetensors.torch.load(stored)
    for name, value in network.state_dict().items():
        assert value.dtype is (torch.float32 if in_file[name].is_floating_point() else torch.int64)
        assert torch.equal(value, in_file[name].to(value.dtype)), name


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.float16, torch.bfloat16])
def test_saved_weights_are_loaded_again(tmp_path: Path, dtype: torch.dtype | None) -> None:
    torch.manual_seed(1)
    network = HIHNet(3, 1, width=0.25)
    save_checkpoint(tmp_path / "a" / "b", network, Config(MINE, 1, width=0.25), dtype)
    found = find_checkpoint(tmp_path / "a" / "b")
    loaded = load_network(found).state_dict()
    for name, value in network.state_dict().items():
        expected = value.to(dtype).to(value.dtype) if dtype and value.is_floating_point() else value
        assert torch.equal(loaded[name], expected), name
    stored = safetensors.torch.load_file(found.weights)
    assert stored[PREDICT].dtype is (dtype or torch.float32)
    assert sorted(os.listdir(tmp_path / "a" / "b")) == ["config.json", "model.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on file sizes")
def test_a_failed_save_changes_no_file(tmp_path: Path) -> None:
    import resource

    network, config = HIHNet(3, 1, width=0.25), Config(MINE, 1, width=0.25)
    save_checkpoint(tmp_path, network, config)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # the file ends early, as on a full disk
    try:
        with pytest.raises(OSError, match="too large"):
            save_checkpoint(tmp_path, HIHNet(3, 1, width=0.25), replace(config, name="new"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_saving_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        save_checkpoint(tmp_path / "file", HIHNet(3, 1, width=0.25), Config(MINE, 1, width=0.25))
