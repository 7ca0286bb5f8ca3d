"""`LoopbackHub`: its contents, its faults, and how the client is pointed to it."""

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
from .messages import Refusal, Request
from .server import HUB_ROUTES, STORAGE_ROUTES, Server

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Fault:
    filename: str | None
    keep: int | None  # bytes that are sent before the connection drops; None: all bytes are sent, one of them corrupted


class _Hasty:
    """The time module, with a sleep that returns at once."""

    def sleep(self, seconds: float) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class LoopbackHub:
    """A Hub on 127.0.0.1 that runs inside a ``with`` block.

    Attributes:
        url: the endpoint, for HF_ENDPOINT.
        user, token: the only account. It may read and write everything; any other token is refused with 401.
        requests: all answered requests, in order. ``requests.clear()`` empties the list.
        refusal: the answer to every request, such as ``Refusal(503, "out of order")``. None: the requests are served.
    """

    def __init__(self, user: str = "user") -> None:
        self.user = user
        self.token = f"hf_{secrets.token_hex(16)}"
        self.requests: list[Request] = []
        self.signature = secrets.token_hex(16)
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self._faults: list[Fault] = []
        self.refusal: Refusal | None = None
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
        """Stop the server. `read` still works on its contents. A second call does nothing."""
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
        """Create a repository with these files on branch `revision`. `main` is empty if `revision` is another branch.

        Files that the Hub would store in git LFS (`LFS_SUFFIXES`, or more than `REGULAR_LIMIT` bytes) are LFS files.

        Returns:
            The commit's id, 40 hex digits. The tags point to this commit.

        Raises:
            ValueError: the repository exists, or its id is not ``owner/name``.
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
        """A file's bytes as stored: faults change transfers, not this. Raises KeyError if there is no such file."""
        return self._commit(repo_id, revision).files[filename].data

    def list_files(self, repo_id: str, revision: str = "main") -> list[str]:
        """The paths at a revision, sorted."""
        return sorted(self._commit(repo_id, revision).files)

    def commit_id(self, repo_id: str, revision: str = "main") -> str:
        """The commit id of a branch or tag. Raises KeyError if there is none."""
        return self._commit(repo_id, revision).oid

    # Faults: they form a queue. Each transfer of a file's bytes (GET, not HEAD) takes the oldest fault that fits the
    # file's name

    def truncate_next(self, n_bytes: int, filename: str | None = None) -> None:
        """Drop the connection after the first `n_bytes` of the next body; its headers announce the whole body."""
        self._faults.append(Fault(filename, n_bytes))

    def corrupt_next(self, filename: str | None = None) -> None:
        """Invert the middle byte of the next body; the headers announce the size and ETag of the correct file."""
        self._faults.append(Fault(filename, None))

    # The client

    def connect(self, monkeypatch: pytest.MonkeyPatch, home: Path, chunk_size: int = 64 * 1024) -> None:
        """Make this process's huggingface_hub use this server, with cache and tokens under `home` and no stored token.

        The client reads HF_ENDPOINT and similar variables once, at import. So this method patches the client's
        constants, not the environment. After a dropped transfer the client keeps only whole chunks, of 10 MiB; with a
        smaller `chunk_size` (bytes) the client resumes small files, too. The client's waits between retries are
        skipped; they take 23 s in all if the server is stopped.
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
            # otherwise the client requests a list of coding agents for its user agent
            "HF_HUB_DISABLE_TELEMETRY": True,
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
            "DOWNLOAD_CHUNK_SIZE": chunk_size,
        }
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        # used by huggingface_hub.create_repo and similar functions
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        for module in ("utils._http", "file_download"):
            monkeypatch.setattr(f"huggingface_hub.{module}.time", _Hasty())
        close_session()  # the old session may have read a proxy from the environment

    def client_env(self, home: Path) -> dict[str, str]:
        """The environment for another process, so that its huggingface_hub uses this server. Compare `connect`."""
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
        """The body to announce, and the number of its bytes to send."""
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
