"""The loopback Hub itself, tested with the real huggingface_hub client."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, errors
from loopback_hub import LoopbackHub, Request

REPO = "user/name"
CONFIG = b"hello\n"
CONFIG_BLOB = "ce013625030ba8dba906f756967f9e9ca394464a"  # the output of `git hash-object` for CONFIG
WEIGHTS = bytes(range(256)) * 1200  # 300 KiB: longer than one chunk of the client
EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        server.connect(monkeypatch, tmp_path / "home")
        yield server


def fetch(filename: str, **options: str | bool | None) -> Path:
    return Path(huggingface_hub.hf_hub_download(REPO, filename, **options))  # type: ignore[arg-type]


def asked(hub: LoopbackHub) -> list[tuple[str, bool, int]]:
    return [(request.method, request.storage, request.status) for request in hub.requests]


def transfers(hub: LoopbackHub) -> list[Request]:
    return [request for request in hub.requests if request.method == "GET" and request.status in (200, 206)]


def test_download_and_its_requests(hub: LoopbackHub, tmp_path: Path) -> None:
    commit = hub.add_repo(REPO, FILES)
    assert fetch("config.json").read_bytes() == CONFIG
    assert asked(hub) == [("HEAD", False, 200), ("GET", False, 200)]
    hub.requests.clear()
    path = fetch("model.safetensors")
    assert path.read_bytes() == WEIGHTS
    assert asked(hub) == [("HEAD", False, 302), ("GET", True, 200)]
    assert path.is_relative_to(tmp_path / "home" / "hub")
    assert path.parent.name == commit
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()


def test_etags_by_head_requests(hub: LoopbackHub) -> None:
    commit = hub.add_repo(REPO, FILES)
    config, weights = (
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(REPO, filename)) for filename in FILES
    )
    assert (config.etag, config.size, config.commit_hash) == (CONFIG_BLOB, len(CONFIG), commit)
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert (weights.etag, weights.size, weights.commit_hash) == (sha256, len(WEIGHTS), commit)
    assert config.xet_file_data is None
    assert weights.xet_file_data is None
    assert {request.method for request in hub.requests} == {"HEAD"}
    hub.add_commit(REPO, {"model.safetensors": b""})  # the Hub does not store empty files in LFS
    empty = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(REPO, "model.safetensors"))
    assert (empty.etag, empty.size) == (EMPTY_BLOB, 0)


def test_second_load_from_the_cache(hub: LoopbackHub) -> None:
    commit = hub.add_repo(REPO, FILES, tags=["v1"])
    first = fetch("model.safetensors", revision="v1")
    hub.requests.clear()
    assert fetch("model.safetensors", revision=commit) == first
    assert hub.requests == []
    assert fetch("model.safetensors", revision="v1") == first
    assert asked(hub) == [("HEAD", False, 302)]
    hub.stop()
    assert fetch("model.safetensors", revision="v1") == first
    assert fetch("model.safetensors", revision="v1", local_files_only=True) == first
    assert first.read_bytes() == WEIGHTS
    assert len(hub.requests) == 1
    with pytest.raises(errors.LocalEntryNotFoundError):
        fetch("config.json", revision="v1", local_files_only=True)


def test_server_gone_and_nothing_cached(hub: LoopbackHub) -> None:
    hub.add_repo(REPO, FILES)
    hub.stop()
    with pytest.raises(errors.LocalEntryNotFoundError, match="check your connection"):
        fetch("config.json")
    assert hub.requests == []


def test_a_new_commit_is_seen(hub: LoopbackHub) -> None:
    old = hub.add_repo(REPO, FILES, tags=["v1"])
    fetch("config.json")
    new = hub.add_commit(REPO, {"config.json": b"newer"})
    assert fetch("config.json").read_bytes() == b"newer"
    assert fetch("config.json", revision="v1").read_bytes() == CONFIG
    assert fetch("config.json", revision=old).read_bytes() == CONFIG
    assert fetch("model.safetensors", revision=new).read_bytes() == WEIGHTS


@pytest.mark.parametrize("filename", ["model.safetensors", "vectors.txt"])
def test_truncated_transfer_is_resumed(hub: LoopbackHub, filename: str) -> None:
    hub.add_repo(REPO, {filename: WEIGHTS})
    hub.truncate_next(150_000)
    assert fetch(filename).read_bytes() == WEIGHTS
    first, second = transfers(hub)
    assert (first.status, second.status) == (200, 206)
    assert "range" not in first.headers
    assert second.headers["range"] == f"bytes={2 * 64 * 1024}-"  # two whole chunks fit into 150 000 bytes


def test_a_fault_waits_for_the_file_that_it_names(hub: LoopbackHub) -> None:
    hub.add_repo(REPO, FILES)
    hub.corrupt_next("model.safetensors")
    assert fetch("config.json").read_bytes() == CONFIG
    assert fetch("model.safetensors").read_bytes() != WEIGHTS


def test_corrupted_transfer(hub: LoopbackHub) -> None:
    hub.add_repo(REPO, FILES)
    hub.corrupt_next()
    path = fetch("model.safetensors")
    broken = path.read_bytes()
    assert len(broken) == len(WEIGHTS)
    assert sum(a != b for a, b in zip(broken, WEIGHTS, strict=True)) == 1
    # the client stores the corrupted bytes under the correct file's hash, so only the package's own check and a forced
    # download repair the cache
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()
    assert fetch("model.safetensors").read_bytes() == broken
    assert fetch("model.safetensors", force_download=True).read_bytes() == WEIGHTS
    assert hub.read(REPO, "model.safetensors") == WEIGHTS


def test_a_fault_that_no_transfer_used_is_reported() -> None:
    with pytest.raises(AssertionError, match="no transfer came"), LoopbackHub() as hub:
        hub.corrupt_next()


def test_not_found(hub: LoopbackHub) -> None:
    hub.add_repo(REPO, FILES)
    with pytest.raises(errors.RepositoryNotFoundError) as repository:
        huggingface_hub.hf_hub_download("user/other", "config.json")
    with pytest.raises(errors.RevisionNotFoundError) as revision:
        fetch("config.json", revision="v9")
    with pytest.raises(errors.RemoteEntryNotFoundError) as entry:
        fetch("config.yaml")
    assert [caught.value.response.status_code for caught in (repository, revision, entry)] == [404] * 3
    assert entry.value.response.headers["X-Repo-Commit"] == hub.commit_id(REPO)
    with pytest.raises(errors.RevisionNotFoundError):
        HfApi().model_info(REPO, revision="v9")
    with pytest.raises(errors.HfHubHTTPError, match="the loopback hub has no GET /api/models"):
        huggingface_hub.get_repo_discussions(REPO).__next__()


def test_private_repo(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, FILES, private=True)
    with pytest.raises(errors.RepositoryNotFoundError) as anonymous:
        fetch("model.safetensors")
    with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials") as wrong:
        fetch("model.safetensors", token="hf_wrong")
    assert not isinstance(wrong.value, errors.RepositoryNotFoundError)
    assert [caught.value.response.status_code for caught in (anonymous, wrong)] == [401, 401]
    hub.requests.clear()
    assert fetch("model.safetensors", token=hub.token).read_bytes() == WEIGHTS
    head, get = hub.requests
    assert head.headers["authorization"] == f"Bearer {hub.token}"
    assert "authorization" not in get.headers  # the client must not send the token to the storage host
    assert get.storage
    (tmp_path / "home" / "token").write_text(hub.token)
    assert fetch("config.json").read_bytes() == CONFIG  # the token is stored now


def test_publish_and_download_by_tag(hub: LoopbackHub, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "figures").mkdir(parents=True)
    big = bytes(11 * 1024 * 1024)  # too large for a regular file, whatever the file's name is
    written = {
        "README.md": b"---\nlicense: other\n---\n# Card\n",
        "config.json": CONFIG,
        "empty.safetensors": b"",
        "figures/ced.svg": big,
        "model.safetensors": WEIGHTS,
    }
    for name, data in written.items():
        (folder / name).write_bytes(data)
    api = HfApi(token=hub.token)
    assert api.create_repo(REPO, private=True).repo_id == REPO
    hub.requests.clear()
    commit = api.upload_folder(repo_id=REPO, folder_path=folder, commit_message="first")
    assert commit.oid == hub.commit_id(REPO)
    assert hub.list_files(REPO) == [".gitattributes", *written]
    assert all(hub.read(REPO, name) == data for name, data in written.items())
    puts = [request for request in hub.requests if request.method == "PUT"]
    assert {request.path[1:] for request in puts} == {hashlib.sha256(data).hexdigest() for data in (WEIGHTS, big)}
    assert all(request.storage and "authorization" not in request.headers for request in puts)

    api.create_tag(REPO, tag="v1", tag_message="the first")
    with pytest.raises(errors.HfHubHTTPError, match="already exists"):
        api.create_tag(REPO, tag="v1")
    api.create_tag(REPO, tag="v1", exist_ok=True)
    hub.requests.clear()
    # nothing has changed, so there is no new commit
    assert api.upload_folder(repo_id=REPO, folder_path=folder).oid == commit.oid
    (folder / "config.json").write_bytes(b"second")
    assert api.upload_folder(repo_id=REPO, folder_path=folder).oid != commit.oid
    assert "PUT" not in {request.method for request in hub.requests}  # the Hub already has the large files

    by_tag = {name: fetch(name, revision="v1", token=hub.token).read_bytes() for name in written}
    assert by_tag == written
    assert fetch("config.json", token=hub.token).read_bytes() == b"second"


def test_writing_needs_the_token(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, FILES)
    for token in (None, "hf_wrong"):
        with pytest.raises(errors.HfHubHTTPError) as refused:
            huggingface_hub.create_repo("user/new", token=token)
        assert refused.value.response.status_code == 401
        with pytest.raises(errors.HfHubHTTPError) as refused:
            huggingface_hub.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, token=token)
        assert refused.value.response.status_code == 401
    assert hub.list_files(REPO) == sorted(FILES)
    api = HfApi(token=hub.token)
    with pytest.raises(errors.HfHubHTTPError) as conflict:
        api.create_repo(REPO)
    assert conflict.value.response.status_code == 409
    assert api.create_repo(REPO, exist_ok=True).repo_id == REPO
    with pytest.raises(errors.RepositoryNotFoundError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="user/missing")
    with pytest.raises(errors.RevisionNotFoundError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, revision="no-such-branch")


def test_listings_of_the_api(hub: LoopbackHub) -> None:
    first = hub.add_repo(REPO, {**FILES, "sub/more/a.txt": b"a"}, tags=["v1"])
    second = hub.add_commit(REPO, {"b.txt": b"b"})
    api = HfApi(token=hub.token)
    info = api.model_info(REPO, files_metadata=True)
    assert (info.id, info.sha, info.private, info.author) == (REPO, second, False, "user")
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert sorted(siblings) == ["b.txt", "config.json", "model.safetensors", "sub/more/a.txt"]
    assert (siblings["config.json"].blob_id, siblings["config.json"].lfs) == (CONFIG_BLOB, None)
    lfs = siblings["model.safetensors"].lfs
    assert lfs is not None
    assert (lfs.sha256, lfs.size) == (hashlib.sha256(WEIGHTS).hexdigest(), len(WEIGHTS))
    assert api.model_info(REPO, revision="v1").sha == first
    assert api.model_info(REPO, revision=first[:8]).sha == first
    tagged = api.model_info(REPO, revision="v1").siblings or []
    assert [sibling.rfilename for sibling in tagged] == ["config.json", "model.safetensors", "sub/more/a.txt"]
    assert api.file_exists(REPO, "b.txt")
    assert not api.file_exists(REPO, "c.txt")
    assert not api.repo_exists("user/other")


def test_branches_and_tags(hub: LoopbackHub) -> None:
    first = hub.add_repo(REPO, FILES)
    other = hub.add_commit(REPO, {"y": b"y"}, revision="try/this")
    api = HfApi(token=hub.token)
    done = api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=REPO, revision="try/this")
    api.create_tag(REPO, tag="tried", revision="try/this")
    refs = api.list_repo_refs(REPO)
    assert {ref.name: ref.target_commit for ref in refs.branches} == {"main": first, "try/this": done.oid}
    assert {ref.name: ref.target_commit for ref in refs.tags} == {"tried": done.oid}
    with pytest.raises(errors.HfHubHTTPError, match="A commit has happened since"):
        api.upload_file(path_or_fileobj=b"z", path_in_repo="z", repo_id=REPO, revision="try/this", parent_commit=other)


def test_another_branch_than_main(hub: LoopbackHub) -> None:
    commit = hub.add_repo(REPO, FILES, revision="next")
    assert fetch("config.json", revision="next").parent.name == commit
    with pytest.raises(errors.RemoteEntryNotFoundError):
        fetch("config.json")


@pytest.mark.parametrize(
    ("asked_for", "status", "expected", "content_range"),
    [
        (None, 200, b"hello\n", None),
        ("bytes=2-", 206, b"llo\n", "bytes 2-5/6"),
        ("bytes=1-2", 206, b"el", "bytes 1-2/6"),
        ("bytes=4-99", 206, b"o\n", "bytes 4-5/6"),
        ("bytes=-2", 206, b"o\n", "bytes 4-5/6"),
        ("bytes=6-", 416, None, "bytes */6"),
    ],
)
def test_ranges(
    hub: LoopbackHub, asked_for: str | None, status: int, expected: bytes | None, content_range: str | None
) -> None:
    hub.add_repo(REPO, FILES)
    request = urllib.request.Request(huggingface_hub.hf_hub_url(REPO, "config.json"))
    if asked_for:
        request.add_header("Range", asked_for)
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert (answer.status, answer.headers["Content-Range"]) == (status, content_range)
        body = answer.read()
    assert expected is None or body == expected
    assert expected is None or answer.headers["Content-Length"] == str(len(expected))


def test_the_storage_host_checks(hub: LoopbackHub) -> None:
    hub.add_repo(REPO, FILES)
    url = huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(REPO, "model.safetensors")).location
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.split("?")[0])
    wrong = urllib.request.Request(url.replace("/model.safetensors", ""), data=b"other bytes", method="PUT")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(wrong)
    assert fetch("model.safetensors").read_bytes() == WEIGHTS


SCRIPT = """
import sys
from huggingface_hub import HfApi, hf_hub_download
repo, token = sys.argv[1:]
if token:
    api = HfApi(token=token)
    api.create_repo(repo)
    api.upload_file(path_or_fileobj=b"weights", path_in_repo="model.safetensors", repo_id=repo)
print(open(hf_hub_download(repo, "model.safetensors")).read())
"""


def test_through_hf_endpoint(tmp_path: Path) -> None:
    """Another process knows the server only from its environment.

    It publishes and loads, and loads after the server's end.
    """
    with LoopbackHub() as hub:
        env = hub.client_env(tmp_path)
        command = [sys.executable, "-c", SCRIPT, REPO]
        first = subprocess.run([*command, hub.token], env=env, capture_output=True, text=True, check=False)
        assert first.stdout == "weights\n", first.stderr
        assert hub.read(REPO, "model.safetensors") == b"weights"
        assert [request.method for request in hub.requests if request.storage] == ["PUT", "GET"]
        assert not [request for request in hub.requests if request.status >= 400]
        hub.stop()
        second = subprocess.run([*command, ""], env=env, capture_output=True, text=True, check=False)
        assert second.stdout == "weights\n", second.stderr
    assert (tmp_path / "hub" / "models--user--name").is_dir()
