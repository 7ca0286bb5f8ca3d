"""`LoopbackHub`: its contents, its faults, and the client that is pointed at it."""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .content import Commit, File, Repo, is_lfs
from .messages import Request
from .server import HUB_ROUTES, STORAGE_ROUTES, Server

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Fault:
    filename: str | None
    keep: int | None  # bytes sent before the connection drops; None: corrupt instead


class _Hasty:
    """The time module, but for its sleep."""

    def sleep(self, seconds: float) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class LoopbackHub:
    """A Hub on 127.0.0.1, alive inside a ``with`` block.

    Attributes:
        url: the endpoint, for HF_ENDPOINT.
        user, token: the one account, which may read and write everything; any other token is refused with 401.
        requests: every request answered so far, in order; ``requests.clear()`` to begin anew.
    """

    def __init__(self, user: str = "user") -> None:
        self.user = user
        self.token = f"hf_{secrets.token_hex(16)}"
        self.requests: list[Request] = []
        self.signature = secrets.token_hex(16)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self._faults: list[Fault] = []
        self.lock = threading.RLock()
        self.server = Server(self, HUB_ROUTES)
        self.storage_server = Server(self, STORAGE_ROUTES)
        self.url = self.server.url

    def __enter__(self) -> LoopbackHub:
        self.server.thread.start()
        self.storage_server.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None and self._faults:
            raise AssertionError(f"asked for, but no transfer came to meet them: {self._faults}")

    def stop(self) -> None:
        """Take the server off the net; what it holds can still be read with `read`. Stopping twice is harmless."""
        self.server.stop()
        self.storage_server.stop()

    # Contents

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        private: bool = False,
        revision: str = "main",
        tags: Iterable[str] = (),
    ) -> str:
        """A new repo with just these files on branch `revision`; `main` is empty where that is another one.

        Files that the Hub would keep in git LFS (`LFS_SUFFIXES`, or more than `REGULAR_LIMIT` bytes) are LFS files.

        Returns:
            The commit's id, 40 hex digits, at which the tags point.

        Raises:
            ValueError: for a repo that exists, or an id other than ``owner/name``.
        """
        with self.lock:
            repo = self.new_repo(repo_id, private)
            if revision != "main":
                repo.branches[revision] = repo.commit("main", {}, "initial commit").oid
            return self.add_commit(repo_id, files, revision=revision, tags=tags)

    def add_commit(
        self, repo_id: str, files: Mapping[str, bytes], *, revision: str = "main", tags: Iterable[str] = ()
    ) -> str:
        """Add or replace files on a branch, without HTTP; returns the commit's id."""
        if isinstance(tags, str):
            raise TypeError(f"tags: expected several names, got the string {tags!r}")
        with self.lock:
            repo = self.repos[repo_id]
            held = repo.branches.get(revision)
            new = {path: File(data, is_lfs(path, len(data))) for path, data in files.items()}
            self.objects |= {file.sha256: file.data for file in new.values() if file.lfs}
            commit = repo.commit(revision, {**(repo.commits[held].files if held else {}), **new}, "add files")
            repo.tags |= dict.fromkeys(tags, commit.oid)
            return commit.oid

    def read(self, repo_id: str, filename: str, revision: str = "main") -> bytes:
        """A file's bytes as stored (whatever faults did to transfers). Raises KeyError where there is none."""
        return self._commit(repo_id, revision).files[filename].data

    def list_files(self, repo_id: str, revision: str = "main") -> list[str]:
        """The paths at a revision, sorted."""
        return sorted(self._commit(repo_id, revision).files)

    def commit_id(self, repo_id: str, revision: str = "main") -> str:
        """The commit at which a branch or tag points. Raises KeyError where there is none."""
        return self._commit(repo_id, revision).oid

    # Faults: they queue up, and each transfer of a file's bytes (GET, not HEAD) takes the oldest that fits its name

    def truncate_next(self, n_bytes: int, filename: str | None = None) -> None:
        """Drop the connection after the first `n_bytes` of the next body, whose headers promise all of it."""
        self._faults.append(Fault(filename, n_bytes))

    def corrupt_next(self, filename: str | None = None) -> None:
        """Flip the bits of the middle byte of the next body; its size and ETag stay those of the true file."""
        self._faults.append(Fault(filename, None))

    # The client

    def connect(self, monkeypatch: pytest.MonkeyPatch, home: Path, chunk_size: int = 64 * 1024) -> None:
        """Point this process's huggingface_hub at this server, with cache and tokens under `home` and nobody logged in.

        The client reads HF_ENDPOINT and its kin once, at import, so its constants are patched and not the environment.
        It forgets a part of a dropped transfer shorter than its chunk, 10 MiB; `chunk_size` (bytes) makes it resume
        small files too. Its waits between retries, 23 s in all where the server is gone, are skipped.
        """
        from huggingface_hub import close_session, constants, hf_api

        settings = {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HUGGINGFACE_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,  # else its user agent asks for a list of coding agents
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
            "DOWNLOAD_CHUNK_SIZE": chunk_size,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)  # behind huggingface_hub.create_repo and the like
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for module in ("utils._http", "file_download"):
            monkeypatch.setattr(f"huggingface_hub.{module}.time", _Hasty())
        close_session()  # it may have read a proxy from the environment

    def client_env(self, home: Path) -> dict[str, str]:
        """The environment of another process whose huggingface_hub is to use this server, else as `connect`."""
        foreign = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        env |= {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return env | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    # For the endpoints

    def new_repo(self, repo_id: str, private: bool) -> Repo:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
            raise ValueError(f"repo_id: expected owner/name, got {repo_id!r}")
        if repo_id in self.repos:
            raise ValueError(f"repo_id: {repo_id} exists")
        self.repos[repo_id] = Repo(repo_id, private)
        return self.repos[repo_id]

    def _commit(self, repo_id: str, revision: str) -> Commit:
        with self.lock:
            commit = self.repos[repo_id].find(revision)
        if commit is None:
            raise KeyError(f"{repo_id} has no revision {revision}")
        return commit

    def object_url(self, sha256: str, path: str = "") -> str:
        return f"{self.storage_server.url}/{sha256}{'/' if path else ''}{quote(path)}?Signature={self.signature}"

    def damage(self, filename: str, body: bytes) -> tuple[bytes, int]:
        """The body to promise and how many of its bytes to send."""
        with self.lock:
            for fault in self._faults:
                if fault.filename in (None, filename):
                    self._faults.remove(fault)
                    break
            else:
                return body, len(body)
        if fault.keep is not None:
            return body, fault.keep
        middle = len(body) // 2
        return body[:middle] + bytes(255 - byte for byte in body[middle : middle + 1]) + body[middle + 1 :], len(body)
