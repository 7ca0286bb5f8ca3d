"""Models on the Hub: the real huggingface_hub client talks to the server in loopback_hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import preloaded
import pytest
import torch
from huggingface_hub import ModelCard, constants
from loopback_hub import LoopbackHub, Refusal, Request
from numpy.typing import NDArray
from test_checkpoints import Install

from hih_align import (
    SCHEMES,
    CheckpointError,
    Config,
    Decoder,
    FaceAligner,
    HIHNet,
    Scheme,
    WeightsUnavailableError,
)
from hih_align.detection import yunet
from hih_align.hub.checkpoints import find_checkpoint
from hih_align.hub.manifest import ManifestRow, local_weights, read_manifest
from hih_align.scores import Calibration

REPO = "user/name"
BOX = (177, 80, 275, 200)
#: Longer than one chunk of the client. It stands for the weights in tests that only download them.
BLOB = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(BLOB).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        server.connect(monkeypatch, tmp_path / "home")
        yield server


@pytest.fixture(scope="module")
def row() -> ManifestRow:
    return read_manifest()["HIH_T/300w"]


@pytest.fixture(scope="module")
def model() -> dict[str, bytes]:
    """The files of a repository that holds HIH_N/300w, the smallest network."""
    row = read_manifest()["HIH_N/300w"]
    path = local_weights(row)
    assert path is not None
    return {"config.json": config_bytes(row.config), "model.safetensors": path.read_bytes()}


def config_bytes(config: Config) -> bytes:
    return json.dumps(config.to_dict()).encode()


def stand_in(row: ManifestRow, **files: bytes) -> dict[str, bytes]:
    return {"config.json": config_bytes(row.config), "model.safetensors": BLOB} | files


def narrow(landmarks: int) -> HIHNet:
    """A network that is sent in a moment."""
    return HIHNet(landmarks, 1, width=0.25)


def transfers(hub: LoopbackHub, name: str = "model.safetensors") -> list[Request]:
    """Answered requests for the bytes of the file `name`."""
    return [r for r in hub.requests if r.method == "GET" and r.status in (200, 206) and r.path.endswith(name)]


# any repository, by its id


def test_first_download_and_second_load_with_the_server_gone(
    hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    hub.add_repo(REPO, model)
    first = FaceAligner.from_pretrained(REPO, device="cpu")
    assert len(transfers(hub)) == len(transfers(hub, "config.json")) == 1
    (cached,) = (tmp_path / "home" / "hub").rglob("model.safetensors")
    assert cached.read_bytes() == model["model.safetensors"]
    hub.stop()
    asked = len(hub.requests)
    second = FaceAligner.from_pretrained(REPO, device="cpu")
    assert len(hub.requests) == asked
    assert second.config == first.config
    shipped = FaceAligner.from_pretrained("HIH_N", device="cpu").align(astronaut, BOX, refine=0)
    np.testing.assert_array_equal(second.align(astronaut, BOX, refine=0).points, shipped.points)


def test_a_cached_model_is_not_sent_again(hub: LoopbackHub, row: ManifestRow) -> None:
    hub.add_repo(REPO, stand_in(row))
    paths = {find_checkpoint(REPO).weights for _ in range(3)}
    assert len(paths) == 1
    assert paths.pop().read_bytes() == BLOB
    assert len(transfers(hub)) == 1
    # with local_files_only the server is not asked
    hub.requests.clear()
    assert find_checkpoint(REPO, local_files_only=True).config == row.config
    assert hub.requests == []


def test_revisions(hub: LoopbackHub, row: ManifestRow) -> None:
    old = hub.add_repo(REPO, stand_in(row), tags=["v1"])
    new = {"config.json": config_bytes(Config(row.config.scheme, 1, name="newer")), "model.safetensors": b"newer"}
    hub.add_commit(REPO, new)
    hub.add_commit(REPO, {"config.json": config_bytes(Config(row.config.scheme, 1, name="tried"))}, revision="try/this")
    for revision, name in ((None, "newer"), ("main", "newer"), ("v1", row.config.name), (old, row.config.name)):
        found = find_checkpoint(REPO, revision=revision)
        assert found.config.name == name
        assert found.weights.read_bytes() == (b"newer" if name == "newer" else BLOB)
    with pytest.raises(ValueError, match=r"'user/name' at revision 'try/this' on the Hub has no model\.safetensors"):
        find_checkpoint(REPO, revision="try/this")


def test_cache_dir(hub: LoopbackHub, row: ManifestRow, tmp_path: Path) -> None:
    hub.add_repo(REPO, stand_in(row))
    found = find_checkpoint(REPO, cache_dir=tmp_path / "mine")
    assert found.weights.is_relative_to(tmp_path / "mine")
    assert not (tmp_path / "home" / "hub").exists()
    with pytest.raises(WeightsUnavailableError):
        find_checkpoint(REPO, local_files_only=True)
    assert find_checkpoint(REPO, cache_dir=str(tmp_path / "mine"), local_files_only=True).weights == found.weights


def test_a_relative_cache_is_found_after_the_working_directory_has_changed(
    hub: LoopbackHub, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: NDArray[np.uint8]
) -> None:
    """The detector's file is searched at the first use, which may be much later."""
    monkeypatch.delenv("HIH_ALIGN_WEIGHTS", raising=False)
    hub.add_repo(yunet.REPOSITORY, {yunet.FILE: (shared / "weights" / yunet.FILE).read_bytes()})
    monkeypatch.chdir(tmp_path)
    aligner = FaceAligner.from_pretrained("HIH_N", device="cpu", cache_dir="mine")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert len(aligner.align(astronaut)) == 1
    assert len(list((tmp_path / "mine").rglob(yunet.FILE))) == 1


def test_a_wrong_scheme_is_refused_before_the_download(hub: LoopbackHub, row: ManifestRow) -> None:
    hub.add_repo(REPO, stand_in(row))
    with pytest.raises(ValueError, match="scheme is 'wflw', but user/name was trained for '300w'"):
        FaceAligner.from_pretrained(REPO, scheme="wflw")
    assert transfers(hub) == []
    for options in ({"dtype": "float7"}, {"device": "gpu"}, {"backend": "other"}, {"scheme": "other"}):
        hub.requests.clear()
        with pytest.raises(ValueError, match=next(iter(options))):
            FaceAligner.from_pretrained(REPO, **options)  # type: ignore[arg-type]
        assert hub.requests == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.safetensors": BLOB}, "damaged or not a safetensors file"),
        ({"config.json": b"{}"}, r"config\.json is not a hih-align config: 'model' is missing"),
        ({"config.json": b'{"model_type": "bert"}'}, r"config\.json is not a hih-align config"),
        ({"config.json": b"<html>"}, r"config\.json is not JSON"),
    ],
)
def test_repositories_that_hold_something_else(
    hub: LoopbackHub, row: ManifestRow, change: dict[str, bytes], message: str
) -> None:
    hub.add_repo(REPO, stand_in(row) | change)
    with pytest.raises(CheckpointError, match=message):
        FaceAligner.from_pretrained(REPO)


# a manifest row whose weights are published


def test_an_existing_local_path_is_never_looked_up_on_the_hub(
    hub: LoopbackHub, row: ManifestRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("with", "without", "user"):
        Path(folder).mkdir()
        Path(folder, "model.safetensors").write_bytes(BLOB)
    Path("with", "config.json").write_bytes(config_bytes(row.config))
    Path("user", "name").symlink_to("gone")
    hub.add_repo(REPO, stand_in(row))  # the Hub does have a repository of this name
    for name, message in (
        ("with/model.safetensors", r"model is the file 'with/model.safetensors', expected its folder, 'with'$"),
        ("without/model.safetensors", r"model is the file '.*', expected a folder with config.json and model.safete"),
        (REPO, "model is the file 'user/name'"),
    ):
        with pytest.raises(ValueError, match=message):
            FaceAligner.from_pretrained(name)
    assert hub.requests == []


@pytest.fixture
def published(hub: LoopbackHub, row: ManifestRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    """The weights of HIH_T/300w are on the Hub only, and the published commit is not the last one."""
    commit = hub.add_repo(REPO, stand_in(row))
    hub.add_commit(REPO, {"model.safetensors": b"newer"})
    Install(tmp_path, monkeypatch).manifest(sha256=SHA256, bytes=len(BLOB), repo_id=REPO, revision=commit)
    return hub


def test_a_published_row(published: LoopbackHub, row: ManifestRow) -> None:
    for name in ("HIH_T", "HIH_T/300w"):
        found = find_checkpoint(name)
        assert found.weights.read_bytes() == BLOB
        assert found.config == row.config  # the manifest's config
    assert len(transfers(published)) == 1
    assert transfers(published, "config.json") == []
    published.stop()
    assert find_checkpoint("HIH_T").weights.read_bytes() == BLOB


def test_a_local_file_takes_precedence_over_the_hub(published: LoopbackHub, tmp_path: Path) -> None:
    path = Install.put(tmp_path / "site" / "weights", BLOB)
    assert find_checkpoint("HIH_T").weights == path
    assert published.requests == []


def test_a_corrupted_download_is_downloaded_again(published: LoopbackHub) -> None:
    published.corrupt_next("model.safetensors")
    assert find_checkpoint("HIH_T").weights.read_bytes() == BLOB
    assert len(transfers(published)) == 2
    assert find_checkpoint("HIH_T").weights.read_bytes() == BLOB
    assert len(transfers(published)) == 2


def test_a_corrupted_cached_file_is_replaced(published: LoopbackHub) -> None:
    path = find_checkpoint("HIH_T").weights
    path.resolve().write_bytes(BLOB[:-1] + b"!")
    with pytest.raises(CheckpointError, match=r"damaged or not the published file.* delete it"):
        find_checkpoint("HIH_T", local_files_only=True)
    assert find_checkpoint("HIH_T").weights.read_bytes() == BLOB
    assert len(transfers(published)) == 2


def test_a_file_that_stays_corrupted_is_refused(published: LoopbackHub) -> None:
    published.corrupt_next()
    published.corrupt_next()
    with pytest.raises(CheckpointError, match=f"damaged or not the published file.*expected {SHA256}"):
        FaceAligner.from_pretrained("HIH_T")
    assert len(transfers(published)) == 2


def test_a_revision_other_than_the_published_one_is_refused(published: LoopbackHub) -> None:
    with pytest.raises(CheckpointError, match=hashlib.sha256(b"newer").hexdigest()):
        find_checkpoint("HIH_T", revision="main")


# transfers that fail


def test_a_truncated_transfer_is_resumed(published: LoopbackHub) -> None:
    published.truncate_next(150_000, "model.safetensors")
    assert find_checkpoint("HIH_T").weights.read_bytes() == BLOB
    first, second = transfers(published)
    assert (first.status, second.status) == (200, 206)
    assert second.headers["range"] == f"bytes={2 * 64 * 1024}-"  # two whole chunks fit into 150 000 bytes


def test_a_transfer_that_keeps_breaking_off(hub: LoopbackHub, row: ManifestRow) -> None:
    hub.add_repo(REPO, stand_in(row))
    hub.truncate_next(150_000, "model.safetensors")
    for _ in range(12):
        hub.truncate_next(1000, "model.safetensors")  # less than a chunk: the client makes no progress and gives up
    with pytest.raises(WeightsUnavailableError, match=r"model\.safetensors of 'user/name' cannot be downloaded"):
        find_checkpoint(REPO)
    hub._faults.clear()
    assert find_checkpoint(REPO).weights.read_bytes() == BLOB


@pytest.mark.parametrize("name", [REPO, "HIH_T"])
def test_no_server_and_nothing_cached(published: LoopbackHub, name: str) -> None:
    published.stop()
    with pytest.raises(WeightsUnavailableError, match=r"'user/name'.* is neither a folder here nor in the Hub's cache"):
        FaceAligner.from_pretrained(name)
    with pytest.raises(OSError, match="local_files_only"):
        FaceAligner.from_pretrained(name, local_files_only=True)


@pytest.mark.parametrize(
    ("status", "hint"),
    [(403, "the token does not permit it"), (429, "too many requests"), (503, "out of order: try again later")],
)
def test_the_hub_refuses(published: LoopbackHub, status: int, hint: str) -> None:
    """The message names the Hub's answer. It does not say that the network or an option is at fault."""
    path = find_checkpoint("HIH_T").weights
    published.refusal = Refusal(status, "no")
    with pytest.raises(WeightsUnavailableError, match=rf"^model: the Hub answers {status} for 'user/name': .*{hint}"):
        find_checkpoint(REPO)
    assert find_checkpoint("HIH_T").weights == path  # of the cache, without asking
    path.resolve().write_bytes(BLOB[:-1] + b"!")  # so it is downloaded again
    with pytest.raises(
        WeightsUnavailableError, match=rf"the Hub answers {status} for 'user/name' at revision .*{hint}"
    ):
        find_checkpoint("HIH_T")
    published.refusal = None
    published.stop()
    with pytest.raises(WeightsUnavailableError, match=r"cannot be downloaded again, and the one .* is damaged: "):
        find_checkpoint("HIH_T")


def test_offline_mode(hub: LoopbackHub, row: ManifestRow, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_repo(REPO, stand_in(row))
    hub.add_repo("user/other", stand_in(row))
    find_checkpoint(REPO)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_checkpoint(REPO).weights.read_bytes() == BLOB
    with pytest.raises(WeightsUnavailableError, match="HF_HUB_OFFLINE"):
        find_checkpoint("user/other")
    assert hub.requests == []


def test_not_found(hub: LoopbackHub, row: ManifestRow) -> None:
    hub.add_repo(REPO, stand_in(row))
    hub.add_repo("user/readme", {"README.md": b"# hello\n"})
    hub.add_repo("user/half", {"config.json": config_bytes(row.config)})
    for name, options, message in (
        ("user/other", {}, "model is 'user/other': no such folder here, and no such repository on the Hub"),
        (REPO, {"revision": "v9"}, "revision is 'v9', which 'user/name' does not have on the Hub"),
        ("user/readme", {}, r"'user/readme' on the Hub has no config\.json: it is not a hih-align repository"),
        ("user/half", {}, r"'user/half' on the Hub has no model\.safetensors"),
        ("user/a--b", {}, "model is 'user/a--b'"),
    ):
        with pytest.raises(ValueError, match=message):
            FaceAligner.from_pretrained(name, **options)


def test_a_missing_path_below_a_local_folder_is_not_looked_up_on_the_hub(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder of a training run is missing or misspelt.

    A request to the Hub would retry for 25 seconds before it failed.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(FileNotFoundError, match=r"model: 'runs' is a folder here, and has no 'mine'"):
        FaceAligner.from_pretrained("runs/mine")
    windows = ("C:\\models\\mine", "D:/x", "runs\\mine")
    for name in ("./runs/mine", "../mine", "~/mine", "/mine", "runs/mine/best", *windows):
        with pytest.raises(FileNotFoundError, match=f"model: no such folder: {re.escape(name)}"):
            FaceAligner.from_pretrained(name)
    assert hub.requests == []
    with pytest.raises(ValueError, match="no such repository on the Hub"):
        FaceAligner.from_pretrained("other/mine")
    assert hub.requests != []


def test_a_private_repository(hub: LoopbackHub, row: ManifestRow, tmp_path: Path) -> None:
    hub.add_repo(REPO, stand_in(row), private=True)
    with pytest.raises(WeightsUnavailableError, match="'user/name' is not on the Hub, or is private: pass token"):
        FaceAligner.from_pretrained(REPO)
    with pytest.raises(WeightsUnavailableError, match="the Hub answers 401 for 'user/name': the token is not valid"):
        FaceAligner.from_pretrained(REPO, token="hf_wrong")
    with pytest.raises(OSError, match="token"):
        FaceAligner.from_pretrained(REPO, token=True)  # no token is stored
    assert find_checkpoint(REPO, token=hub.token).weights.read_bytes() == BLOB
    (tmp_path / "home" / "token").write_text(hub.token)
    hub.add_commit(REPO, {"model.safetensors": b"newer"})
    assert find_checkpoint(REPO).weights.read_bytes() == b"newer"  # now the token is stored
    with pytest.raises(WeightsUnavailableError, match="private"):
        find_checkpoint(REPO, token=False, cache_dir=tmp_path / "other")


def test_a_repository_of_an_exported_folder(
    hub: LoopbackHub,
    astronaut: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    converted_nano: Callable[..., str],
) -> None:
    """It has no weights. Its files are downloaded, and found in the cache when the server has gone."""
    nano = FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
    folder = Path(converted_nano("onnxruntime", weights=False))
    hub.add_repo(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    for _ in range(2):
        found = FaceAligner.from_pretrained(REPO, backend="onnxruntime", device="cpu")
        np.testing.assert_allclose(found.align(astronaut, BOX).points, nano.align(astronaut, BOX).points, atol=0.05)
        with pytest.raises(FileNotFoundError, match=r"it holds model\.onnx for backend 'onnxruntime'"):
            FaceAligner.from_pretrained(REPO, device="cpu")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    config = config_bytes(nano.config)
    hub.add_repo("user/other", {"config.json": config, "model.xml": b"<net/>", "model.bin": BLOB})
    checkpoint = find_checkpoint("user/other")
    assert checkpoint.exported == ["openvino"]
    assert checkpoint.weights.with_name("model.bin").read_bytes() == BLOB
    hub.add_repo("user/empty", {"config.json": config})
    with pytest.raises(ValueError, match=r"'user/empty' on the Hub has no model\.safetensors"):
        find_checkpoint("user/empty")


# publishing


def test_push_to_hub_and_load_back(hub: LoopbackHub, tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    scheme = Scheme(id="mine", names=("a", "b", "c"), mirror=((0, 1),))
    aligner = FaceAligner(
        narrow(3), Config(scheme, 1, width=0.25, name="mine/1", refine=0), device="cpu", decode=Decoder("argmax")
    )
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(hub.token)
    url = aligner.push_to_hub(REPO, commit_message="The first")
    assert url == f"{hub.url}/{REPO}/commit/{hub.commit_id(REPO)}"
    assert set(hub.list_files(REPO)) == {".gitattributes", "README.md", "config.json", "model.safetensors"}
    card = ModelCard(hub.read(REPO, "README.md").decode())
    assert (card.data.library_name, card.data.model_name) == ("hih-align", "mine/1")  # type: ignore[attr-defined]
    assert card.data.license is None  # type: ignore[attr-defined]  # the license is the user's decision
    assert f'from_pretrained("{REPO}")' in card.text
    assert "3 facial landmarks (mine)" in card.text
    assert "0 a, 1 b, 2 c." in card.text
    again = FaceAligner.from_pretrained(REPO, device="cpu")
    assert (again.scheme, again.decoder, again.config.name) == (scheme, Decoder("argmax"), "mine/1")
    np.testing.assert_array_equal(
        again.align(astronaut, BOX).points,
        aligner.align(astronaut, BOX).points,
    )
    # once more, to the repository that exists now: only the config has changed
    hub.requests.clear()
    FaceAligner(aligner.network, aligner.config, device="cpu").push_to_hub(REPO, token=hub.token)
    assert "PUT" not in {request.method for request in hub.requests}
    assert FaceAligner.from_pretrained(REPO, device="cpu").decoder == aligner.config.decoder


@pytest.fixture(scope="module")
def tiny_upload() -> FaceAligner:
    return FaceAligner(narrow(1), Config(Scheme(id="one", names=("a",)), 1, width=0.25), device="cpu")


def test_push_to_a_branch_of_no_repository(hub: LoopbackHub, tiny_upload: FaceAligner) -> None:
    with pytest.raises(ValueError, match="revision is 'trial', a branch of a repository that does not exist yet"):
        tiny_upload.push_to_hub(REPO, revision="trial", token=hub.token)
    assert REPO not in hub.repos  # before, an empty repository was left
    tiny_upload.push_to_hub(REPO, revision="main", token=hub.token)


def test_an_existing_model_card_is_kept(hub: LoopbackHub, row: ManifestRow, tiny_upload: FaceAligner) -> None:
    hub.add_repo(REPO, stand_in(row) | {"README.md": b"My own words."})
    tiny_upload.push_to_hub(REPO, token=hub.token)
    assert hub.read(REPO, "README.md") == b"My own words."
    assert hub.read(REPO, "model.safetensors") != BLOB


def test_the_model_card_describes_the_model_that_is_loaded(hub: LoopbackHub) -> None:
    """The scheme that results are converted to, and the decoder in use."""
    calibration = {"expectation": Calibration(1.0, 0.0)}
    config = Config(SCHEMES["wflw"], 1, width=0.25, output="cofw", calibration=calibration)
    wflw = narrow(98)
    for decode, score in (("expectation", "estimated probability"), ("argmax", "scores are not calibrated")):
        FaceAligner(wflw, config, device="cpu", decode=decode).push_to_hub(REPO, token=hub.token)  # type: ignore[arg-type]
        again = FaceAligner.from_pretrained(REPO, device="cpu")
        assert (again.scheme.id, again.calibrated) == ("cofw", decode == "expectation")
        text = ModelCard(hub.read(REPO, "README.md").decode()).text
        assert "29 facial landmarks (cofw)" in text
        assert f"28 {again.scheme.names[28]}." in text
        assert score in text


def test_a_generated_model_card_is_renewed_until_a_person_changes_it(hub: LoopbackHub, tmp_path: Path) -> None:
    scheme = Scheme(id="mine", names=("a", "b", "c"))
    aligner = FaceAligner(narrow(3), Config(scheme, 1, width=0.25), device="cpu")
    aligner.push_to_hub(REPO, token=hub.token)
    first = hub.read(REPO, "README.md")
    aligner.select([2, 0]).push_to_hub(REPO, token=hub.token)
    second = hub.read(REPO, "README.md").decode()
    assert "2 facial landmarks" in second
    assert "0 c, 1 a." in second
    aligner.push_to_hub(REPO, token=hub.token)
    assert hub.read(REPO, "README.md") == first
    mark = first.decode().splitlines()[-1]
    assert mark.startswith("<!--")
    assert mark.endswith("-->")  # readers do not see it
    # changed in its text, in its metadata (as the Hub's pages do it), or with the mark inside another text
    for changed in (
        first + b"More.\n",
        first.replace(b"---\n", b"---\nlicense: mit\n", 1),
        f"Mine.\n{mark}\n".encode(),
    ):
        hub.add_commit(REPO, {"README.md": changed})
        aligner.select([2, 0]).push_to_hub(REPO, token=hub.token)
        assert hub.read(REPO, "README.md") == changed
    assert not list((tmp_path / "home").rglob("README.md"))  # the user's cache gets no card


def test_push_without_permission(hub: LoopbackHub, row: ManifestRow, tiny_upload: FaceAligner) -> None:
    hub.add_repo(REPO, stand_in(row))
    for token in (None, "hf_wrong"):
        for repo in (REPO, "user/new"):
            with pytest.raises(OSError, match="401"):
                tiny_upload.push_to_hub(repo, token=token)
    assert hub.read(REPO, "model.safetensors") == BLOB
    with pytest.raises(ValueError, match="repo"):
        tiny_upload.push_to_hub("not a repo id", token=hub.token)
    with pytest.raises(OSError, match="404"):
        tiny_upload.push_to_hub(REPO, revision="no-such-branch", token=hub.token)
    hub.stop()
    with pytest.raises(OSError, match="repo_id: 'user/name' cannot be uploaded"):
        tiny_upload.push_to_hub(REPO, token=hub.token)


def test_push_a_private_repository(hub: LoopbackHub, tiny_upload: FaceAligner) -> None:
    tiny_upload.push_to_hub(REPO, private=True, token=hub.token)
    with pytest.raises(WeightsUnavailableError, match="private"):
        find_checkpoint(REPO)
    assert find_checkpoint(REPO, token=hub.token).config == tiny_upload.config


# the command in its own process, because the client reads its settings from the environment, once


def test_the_command_downloads(
    hub: LoopbackHub, model: dict[str, bytes], tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    hub.add_repo(REPO, model, private=True)
    PIL.Image.fromarray(astronaut).save(tmp_path / "a.png")
    env = hub.client_env(tmp_path / "process")
    words = ["align", str(tmp_path / "a.png"), "--bbox", *map(str, BOX), "--model", REPO, "--refine", "0"]

    def run(**more: str) -> preloaded.Done:
        return preloaded.program(*words, "--device", "cpu", env=env | more)

    refused = run()
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert "'user/name' is not on the Hub, or is private" in refused.stderr.splitlines()[-1]
    first = run(HF_TOKEN=hub.token)
    assert first.returncode == 0, first.stderr
    assert len(transfers(hub)) == 1
    hub.stop()
    second = run(HF_HUB_OFFLINE="1")
    assert (second.returncode, second.stdout) == (0, first.stdout), second.stderr
    expected = FaceAligner.from_pretrained("HIH_N", device="cpu").align(astronaut, BOX, refine=0)
    np.testing.assert_allclose(json.loads(first.stdout)["points"], expected.points, atol=1e-3)
