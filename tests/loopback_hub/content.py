"""What the Hub holds: repositories, commits and files; and which files git LFS stores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property

#: The suffixes of weights, from those that the .gitattributes of a new repository on the Hub assigns to git LFS.
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npy", ".npz", ".zip", ".gz")


#: The Hub refuses a regular file with more bytes.
REGULAR_LIMIT = 10 * 1024 * 1024


@dataclass(frozen=True)
class File:
    data: bytes
    lfs: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @cached_property
    def blob(self) -> str:
        """Git's object id of the stored content: the file, or its LFS pointer."""
        held = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    files: Mapping[str, File]
    title: str
    description: str
    date: str


@dataclass
class Repo:
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, or a commit id of at least 7 digits."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        return None if oid is None else self.commits[oid]

    def commit(self, branch: str, files: Mapping[str, File], title: str, description: str = "") -> Commit:
        parent = self.branches.get(branch)
        listing = sorted((path, file.blob) for path, file in files.items())
        identity = json.dumps([self.id, len(self.commits), parent, title, listing])
        oid = hashlib.sha1(identity.encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, dict(files), title, description, _now())
        self.branches[branch] = oid
        return self.commits[oid]


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def is_lfs(path: str, size: int) -> bool:
    # an empty file is a regular file: the client insists on it
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > REGULAR_LIMIT)
