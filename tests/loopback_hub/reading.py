"""Endpoints that read: resolve, model info, refs, and the bytes of a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from .access import the_commit, the_repo
from .content import Commit, File
from .messages import Call, Refusal, Reply, json_reply


def resolve(call: Call, repo_id: str, revision: str, path: str) -> Reply:
    commit = the_commit(the_repo(call, repo_id), revision)
    file = commit.files.get(path)
    if file is None:
        raise _missing(commit, path)
    headers = {"X-Repo-Commit": commit.oid}
    if not file.lfs:
        return content(call, file, path, headers)
    location = call.hub.object_url(file.sha256, path)
    linked = {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data)), "Location": location}
    return Reply(302, headers | linked, f"Found. Redirecting to {location}".encode())


def content(call: Call, file: File, path: str, headers: Mapping[str, str] | None = None) -> Reply:
    """A file's bytes, or the range of them that the request asks for."""
    size, data, status = len(file.data), file.data, 200
    head = {"Content-Type": "application/octet-stream", "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    head |= headers or {}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if asked and any(asked.groups()):
        first, last = asked.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            raise Refusal(416, "Range not satisfiable", **{"Content-Range": f"bytes */{size}"})
        data, status = data[start:stop], 206
        head["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Reply(status, head, data, filename=path)


def _missing(commit: Commit, path: str) -> Refusal:
    # the answer names the commit, so that the client can cache that the file does not exist
    return Refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})


def model_info(call: Call, repo_id: str, revision: str = "main") -> Reply:
    repo = the_repo(call, repo_id)
    commit = the_commit(repo, revision)
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
    if "blobs" in call.query:
        for sibling in siblings:
            entry = _entry(sibling["rfilename"], commit.files[sibling["rfilename"]])
            sibling |= {"blobId": entry["oid"], "size": entry["size"]}
            if "lfs" in entry:
                sibling["lfs"] = {"sha256": entry["lfs"]["oid"], **entry["lfs"]}
    first = next(iter(repo.commits.values()))
    info: dict[str, Any] = {"_id": hashlib.sha1(repo.id.encode()).hexdigest()[:24], "id": repo.id, "modelId": repo.id}
    info |= {"author": repo.id.split("/")[0], "sha": commit.oid, "createdAt": first.date, "lastModified": commit.date}
    info |= {"private": repo.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
    return json_reply(info | {"siblings": siblings})


def _entry(path: str, file: File) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.blob, "size": len(file.data), "path": path}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
    return entry


def refs(call: Call, repo_id: str) -> Reply:
    repo = the_repo(call, repo_id)
    kinds = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
    refs = {
        key: [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in named.items()]
        for key, (kind, named) in kinds.items()
    }
    return json_reply({**refs, "converts": [], "pullRequests": []})
