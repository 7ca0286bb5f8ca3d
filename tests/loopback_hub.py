"""A small Hugging Face Hub on loopback: real HTTP, for tests with the real huggingface_hub client.

    with LoopbackHub() as hub:
        commit = hub.add_repo("user/name", {"config.json": b"{}", "model.safetensors": weights}, tags=["v1"])
        hub.connect(monkeypatch, tmp_path)           # this process, or: env=hub.client_env(tmp_path) for another one
        hub.truncate_next(70_000, "model.safetensors")
        huggingface_hub.hf_hub_download("user/name", "model.safetensors")

It answers what huggingface_hub 2.4 asks of model repos (read from the client's source): resolve, model info, tree,
paths-info, refs, commits, repos create and delete, preupload, LFS batch and verify, commit, tag, branch, validate-yaml
and whoami-v2. Two ports: the Hub's, and that of a storage host, which plays the Hub's CDN and S3. As on the Hub, LFS
files are answered with a redirect there, and the client must not send it the token. Not here: Xet, pull requests,
multipart uploads, .gitignore, datasets and spaces.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

if TYPE_CHECKING:
    import pytest

#: Among the suffixes that the .gitattributes of a new repo on the Hub sends through git LFS: those of weights.
LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".npy", ".npz", ".zip", ".gz")

#: The Hub takes no regular file of more bytes than this.
REGULAR_LIMIT = 10 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One answered request.

    Attributes:
        method, path, query: as sent, percent-encoded; `path` without the query.
        headers: by lower-case name.
        status: what was answered.
        storage: whether the storage host was asked, not the Hub.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    status: int
    storage: bool


@dataclass(frozen=True)
class _File:
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
        """Git's object id of what the commit holds: the file, or its LFS pointer."""
        held = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob


@dataclass(frozen=True)
class _Commit:
    oid: str
    parent: str | None
    files: Mapping[str, _File]
    title: str
    description: str
    date: str


@dataclass
class _Repo:
    id: str
    private: bool
    commits: dict[str, _Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> _Commit | None:
        """The commit of a branch, a tag, or a commit id of at least 7 digits."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        return None if oid is None else self.commits[oid]

    def commit(self, branch: str, files: Mapping[str, _File], title: str, description: str = "") -> _Commit:
        parent = self.branches.get(branch)
        listing = sorted((path, file.blob) for path, file in files.items())
        identity = json.dumps([self.id, len(self.commits), parent, title, listing])
        oid = hashlib.sha1(identity.encode()).hexdigest()
        self.commits[oid] = _Commit(oid, parent, dict(files), title, description, _now())
        self.branches[branch] = oid
        return self.commits[oid]


@dataclass(frozen=True)
class _Fault:
    filename: str | None
    keep: int | None  # bytes sent before the connection drops; None: corrupt instead


@dataclass(frozen=True)
class _Call:
    hub: LoopbackHub
    method: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class _Reply:
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    filename: str | None = None  # set where the body is a file's: what faults apply to


class _Refusal(Exception):
    def __init__(self, status: int, message: str, code: str | None = None, **extra: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | extra
        self.reply = _json({"error": message}, status, headers)


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> _Reply:
    head = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return _Reply(status, head, json.dumps(value).encode())


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _is_lfs(path: str, size: int) -> bool:
    # an empty file is a regular one: the client insists on it
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > REGULAR_LIMIT)


# What every endpoint asks first


def _signed_in(call: _Call) -> bool:
    header = call.headers.get("authorization")
    if header is None:
        return False
    if header != f"Bearer {call.hub.token}":
        raise _Refusal(401, "Invalid credentials in Authorization header")
    return True


def _writer(call: _Call) -> None:
    if not _signed_in(call):
        raise _Refusal(401, "Invalid username or password.")


def _repo(call: _Call, repo_id: str, write: bool = False) -> _Repo:
    signed_in = _signed_in(call)
    repo = call.hub._repos.get(repo_id)
    if repo is None:
        raise _Refusal(404, "Repository not found", "RepoNotFound")
    if not signed_in and (repo.private or write):
        # the client reads any 401 of a repo as "not found", but over https only; over http the code has to say it
        raise _Refusal(401, "Invalid username or password.", "RepoNotFound")
    return repo


def _revision(repo: _Repo, revision: str) -> _Commit:
    commit = repo.find(revision)
    if commit is None:
        raise _Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def _branch(repo: _Repo, branch: str) -> _Commit:
    if branch not in repo.branches:
        raise _Refusal(404, f"Invalid branch: {branch}", "RevisionNotFound")
    return repo.commits[repo.branches[branch]]


def _missing(commit: _Commit, path: str) -> _Refusal:
    # with the commit, so that the client can cache that the file is absent
    return _Refusal(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.oid})


# Reading


def _resolve(call: _Call, repo_id: str, revision: str, path: str) -> _Reply:
    commit = _revision(_repo(call, repo_id), revision)
    file = commit.files.get(path)
    if file is None:
        raise _missing(commit, path)
    headers = {"X-Repo-Commit": commit.oid}
    if not file.lfs:
        return _content(call, file, path, headers)
    location = call.hub._object_url(file.sha256, path)
    linked = {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data)), "Location": location}
    return _Reply(302, headers | linked, f"Found. Redirecting to {location}".encode())


def _content(call: _Call, file: _File, path: str, headers: Mapping[str, str] | None = None) -> _Reply:
    """A file's bytes, or the one range of them that was asked for."""
    size, data, status = len(file.data), file.data, 200
    head = {"Content-Type": "application/octet-stream", "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    head |= headers or {}
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", call.headers.get("range", ""))
    if asked and any(asked.groups()):
        first, last = asked.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            raise _Refusal(416, "Range not satisfiable", **{"Content-Range": f"bytes */{size}"})
        data, status = data[start:stop], 206
        head["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return _Reply(status, head, data, filename=path)


def _model_info(call: _Call, repo_id: str, revision: str = "main") -> _Reply:
    repo = _repo(call, repo_id)
    commit = _revision(repo, revision)
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
    return _json(info | {"siblings": siblings})


def _entry(path: str, file: _File) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": file.blob, "size": len(file.data), "path": path}
    if file.lfs:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": len(file.pointer)}
    return entry


def _directory(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}


def _directories(commit: _Commit) -> set[str]:
    parts = [path.split("/") for path in commit.files]
    return {"/".join(names[:depth]) for names in parts for depth in range(1, len(names))}


def _tree(call: _Call, repo_id: str, revision: str, path: str = "") -> _Reply:
    commit = _revision(_repo(call, repo_id), revision)
    directories = _directories(commit)
    if path and path not in directories:
        raise _missing(commit, path)
    entries = [_entry(name, file) for name, file in commit.files.items()] + [_directory(name) for name in directories]
    prefix = path + "/" if path else ""
    below = [entry for entry in entries if entry["path"].startswith(prefix)]
    if call.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
        below = [entry for entry in below if "/" not in entry["path"][len(prefix) :]]
    return _json(sorted(below, key=lambda entry: str(entry["path"])))


def _paths_info(call: _Call, repo_id: str, revision: str) -> _Reply:
    commit = _revision(_repo(call, repo_id), revision)
    asked = parse_qs(call.body.decode()).get("paths", [])
    directories = _directories(commit)
    entries = [_entry(path, commit.files[path]) for path in asked if path in commit.files]
    return _json(entries + [_directory(path) for path in asked if path in directories])


def _refs(call: _Call, repo_id: str) -> _Reply:
    repo = _repo(call, repo_id)
    kinds = {"branches": ("heads", repo.branches), "tags": ("tags", repo.tags)}
    refs = {
        key: [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": oid} for name, oid in named.items()]
        for key, (kind, named) in kinds.items()
    }
    return _json({**refs, "converts": [], "pullRequests": []})


def _commits(call: _Call, repo_id: str, revision: str) -> _Reply:
    repo = _repo(call, repo_id)

    def history(commit: _Commit | None) -> Iterator[_Commit]:
        while commit is not None:
            yield commit
            commit = repo.commits[commit.parent] if commit.parent else None

    return _json(
        [
            {"id": commit.oid, "title": commit.title, "message": commit.description, "date": commit.date}
            | {"authors": [{"user": call.hub.user}]}
            for commit in history(_revision(repo, revision))
        ]
    )


def _whoami(call: _Call) -> _Reply:
    _writer(call)
    name = call.hub.user
    token = {"type": "access_token", "accessToken": {"displayName": "loopback", "role": "write"}}
    return _json({"type": "user", "id": name, "name": name, "fullname": name, "orgs": [], "auth": token})


# Writing


def _create_repo(call: _Call) -> _Reply:
    _writer(call)
    asked = call.json()
    if asked.get("type", "model") != "model":
        raise _Refusal(400, "the loopback hub has models only")
    repo_id = f"{asked.get('organization') or call.hub.user}/{asked['name']}"
    url = f"{call.hub.url}/{repo_id}"
    if repo_id in call.hub._repos:
        return _json({"error": "You already created this model repo", "url": url}, 409)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
    call.hub._new_repo(repo_id, private).commit("main", {".gitattributes": _File(attributes, False)}, "initial commit")
    return _json({"url": url, "name": repo_id, "id": repo_id})


def _delete_repo(call: _Call) -> _Reply:
    asked = call.json()
    repo = _repo(call, f"{asked.get('organization') or call.hub.user}/{asked['name']}", write=True)
    del call.hub._repos[repo.id]
    return _json({})


def _preupload(call: _Call, repo_id: str, revision: str) -> _Reply:
    commit = _branch(_repo(call, repo_id, write=True), revision)

    def mode(path: str, size: int) -> dict[str, Any]:
        known = commit.files.get(path)
        how = {"path": path, "uploadMode": "lfs" if _is_lfs(path, size) else "regular", "shouldIgnore": False}
        return how | ({"oid": known.etag} if known else {})

    return _json({"files": [mode(file["path"], file["size"]) for file in call.json()["files"]]})


def _lfs_batch(call: _Call, repo_id: str) -> _Reply:
    _repo(call, repo_id, write=True)
    asked = call.json()
    if asked["operation"] != "upload" or "basic" not in asked.get("transfers", ["basic"]):
        raise _Refusal(422, "the loopback hub has basic uploads only")
    verify = {"href": f"{call.hub.url}/{repo_id}.git/info/lfs/objects/verify"}

    def answer(oid: str, size: int) -> dict[str, Any]:
        if oid in call.hub._objects:  # no actions: nothing to upload
            return {"oid": oid, "size": size}
        upload = {"href": call.hub._object_url(oid), "header": {}}
        return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    return _json({"transfer": "basic", "objects": [answer(item["oid"], item["size"]) for item in asked["objects"]]})


def _lfs_verify(call: _Call, repo_id: str) -> _Reply:
    _repo(call, repo_id, write=True)
    asked = call.json()
    stored = call.hub._objects.get(asked["oid"])
    if stored is None or len(stored) != asked["size"]:
        raise _Refusal(404, "Object not found")
    return _json({})


def _commit(call: _Call, repo_id: str, revision: str) -> _Reply:
    repo = _repo(call, repo_id, write=True)
    if "create_pr" in call.query:
        raise _Refusal(501, "the loopback hub has no pull requests")
    parent = _branch(repo, revision)
    files, title, description = dict(parent.files), "", ""
    for line in call.body.splitlines():
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "header":
            title, description = value["summary"], value["description"]
            if not parent.oid.startswith(value.get("parentCommit", "")):
                raise _Refusal(412, "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            data = base64.b64decode(value["content"])
            if len(data) > REGULAR_LIMIT:
                raise _Refusal(400, f"{value['path']} is too large for a regular file")
            files[value["path"]] = _File(data, False)
        elif key == "lfsFile":
            stored = call.hub._objects.get(value["oid"])
            if stored is None:
                raise _Refusal(400, f"LFS object {value['oid']} of {value['path']} was not uploaded")
            files[value["path"]] = _File(stored, True)
        elif key in ("deletedFile", "deletedFolder"):
            folder = value["path"].rstrip("/") + "/"
            gone = [path for path in files if path == value["path"] or path.startswith(folder)]
            if not gone:
                raise _Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
            files = {path: file for path, file in files.items() if path not in gone}
        else:
            raise _Refusal(400, f"unknown operation {key}")
    commit = repo.commit(revision, files, title, description)
    url = f"{call.hub.url}/{repo_id}/commit/{commit.oid}"
    return _json({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})


def _create_tag(call: _Call, repo_id: str, revision: str) -> _Reply:
    repo = _repo(call, repo_id, write=True)
    commit, tag = _revision(repo, revision), call.json()["tag"]
    if tag in repo.tags:
        raise _Refusal(409, f"Tag {tag} already exists")
    repo.tags[tag] = commit.oid
    return _json({})


def _delete_tag(call: _Call, repo_id: str, tag: str) -> _Reply:
    repo = _repo(call, repo_id, write=True)
    if repo.tags.pop(tag, None) is None:
        raise _Refusal(404, f"Invalid tag: {tag}", "RevisionNotFound")
    return _json({})


def _create_branch(call: _Call, repo_id: str, branch: str) -> _Reply:
    repo = _repo(call, repo_id, write=True)
    if branch in repo.branches:
        raise _Refusal(409, f"Branch {branch} already exists")
    repo.branches[branch] = _revision(repo, call.json().get("startingPoint", "main")).oid
    return _json({})


def _delete_branch(call: _Call, repo_id: str, branch: str) -> _Reply:
    repo = _repo(call, repo_id, write=True)
    _branch(repo, branch)
    if branch == "main":
        raise _Refusal(403, "Cannot delete the main branch")
    del repo.branches[branch]
    return _json({})


def _validate_yaml(call: _Call) -> _Reply:
    bare = not call.json()["content"].startswith("---")
    warning = {"message": "empty or missing yaml metadata in repo card"}
    return _json({"errors": [], "warnings": [warning] if bare else []})


# The storage host: whoever has the signed URL may read or write that one object; no token


def _object(call: _Call, sha256: str, path: str = "") -> _Reply:
    if call.query.get("Signature") != [call.hub._signature]:
        raise _Refusal(403, "AccessDenied")
    if call.method == "PUT":
        if hashlib.sha256(call.body).hexdigest() != sha256:
            raise _Refusal(400, "XAmzContentSHA256Mismatch")
        call.hub._objects[sha256] = call.body
        return _Reply(200, {"ETag": f'"{sha256}"'})
    if sha256 not in call.hub._objects:
        raise _Refusal(404, "NoSuchKey")
    return _content(call, _File(call.hub._objects[sha256], True), path)


@dataclass(frozen=True)
class _Route:
    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    answer: Callable[..., _Reply]


def _route(methods: str, template: str, answer: Callable[..., _Reply]) -> _Route:
    # values are percent-encoded in the path, so that a branch with a slash is one segment
    pattern = template.replace("{repo_id}", "(?P<repo_id>[^/]+/[^/]+)").replace("{path}", "(?P<path>.+)")
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
    return _Route(tuple(methods.split()), re.compile(pattern), answer)


_HUB_ROUTES = [
    _route("GET HEAD", "/{repo_id}/resolve/{revision}/{path}", _resolve),
    _route("POST", r"/{repo_id}\.git/info/lfs/objects/batch", _lfs_batch),
    _route("POST", r"/{repo_id}\.git/info/lfs/objects/verify", _lfs_verify),
    _route("GET", "/api/whoami-v2", _whoami),
    _route("POST", "/api/validate-yaml", _validate_yaml),
    _route("POST", "/api/repos/create", _create_repo),
    _route("DELETE", "/api/repos/delete", _delete_repo),
    _route("GET", "/api/models/{repo_id}", _model_info),
    _route("GET", "/api/models/{repo_id}/revision/{revision}", _model_info),
    _route("GET", "/api/models/{repo_id}/tree/{revision}", _tree),
    _route("GET", "/api/models/{repo_id}/tree/{revision}/{path}", _tree),
    _route("POST", "/api/models/{repo_id}/paths-info/{revision}", _paths_info),
    _route("GET", "/api/models/{repo_id}/refs", _refs),
    _route("GET", "/api/models/{repo_id}/commits/{revision}", _commits),
    _route("POST", "/api/models/{repo_id}/preupload/{revision}", _preupload),
    _route("POST", "/api/models/{repo_id}/commit/{revision}", _commit),
    _route("POST", "/api/models/{repo_id}/tag/{revision}", _create_tag),
    _route("DELETE", "/api/models/{repo_id}/tag/{tag}", _delete_tag),
    _route("POST", "/api/models/{repo_id}/branch/{branch}", _create_branch),
    _route("DELETE", "/api/models/{repo_id}/branch/{branch}", _delete_branch),
]

_STORAGE_ROUTES = [
    _route("PUT GET HEAD", "/{sha256}", _object),
    _route("GET HEAD", "/{sha256}/{path}", _object),
]


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # snapshot_download opens many connections at once

    def __init__(self, hub: LoopbackHub, routes: list[_Route]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub
        self.routes = routes
        # a short poll: shutdown waits for it
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    def server_bind(self) -> None:
        # HTTPServer's own looks the host's name up, which takes seconds where there is no DNS
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        if self.thread.is_alive():
            self.shutdown()
            self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        # one request per connection: a pooled one would go on being answered after the server has stopped
        self.close_connection = True
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        call = _Call(self.server.hub, self.command, parse_qs(url.query), headers, body)
        reply = self._answer(call, url.path)
        storage = self.server is self.server.hub._storage
        request = Request(self.command, url.path, url.query, headers, reply.status, storage)
        self.server.hub.requests.append(request)
        self._send(reply)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, call: _Call, path: str) -> _Reply:
        for route in self.server.routes:
            match = route.pattern.fullmatch(path)
            if match and call.method in route.methods:
                values = {name: unquote(value) for name, value in match.groupdict().items()}
                try:
                    with self.server.hub._lock:
                        return route.answer(call, **values)
                except _Refusal as refusal:
                    return refusal.reply
                except Exception as error:
                    # 501: an error of ours or of the test, which the client must show and not try again
                    return _Refusal(501, f"the loopback hub failed: {error!r}").reply
        return _Refusal(404, f"the loopback hub has no {call.method} {path}").reply

    def _send(self, reply: _Reply) -> None:
        body, keep = reply.body, len(reply.body)
        if reply.filename is not None and self.command == "GET":
            body, keep = self.server.hub._damage(reply.filename, body)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(memoryview(body)[:keep])

    def log_message(self, format: str, *args: object) -> None:
        pass


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
        self._signature = secrets.token_hex(16)
        self._repos: dict[str, _Repo] = {}
        self._objects: dict[str, bytes] = {}
        self._faults: list[_Fault] = []
        self._lock = threading.RLock()
        self._server = _Server(self, _HUB_ROUTES)
        self._storage = _Server(self, _STORAGE_ROUTES)
        self.url = self._server.url

    def __enter__(self) -> LoopbackHub:
        self._server.thread.start()
        self._storage.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None and self._faults:
            raise AssertionError(f"asked for, but no transfer came to meet them: {self._faults}")

    def stop(self) -> None:
        """Take the server off the net; what it holds can still be read with `read`. Stopping twice is harmless."""
        self._server.stop()
        self._storage.stop()

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
        with self._lock:
            repo = self._new_repo(repo_id, private)
            if revision != "main":
                repo.branches[revision] = repo.commit("main", {}, "initial commit").oid
            return self.add_commit(repo_id, files, revision=revision, tags=tags)

    def add_commit(
        self, repo_id: str, files: Mapping[str, bytes], *, revision: str = "main", tags: Iterable[str] = ()
    ) -> str:
        """Add or replace files on a branch, without HTTP; returns the commit's id."""
        if isinstance(tags, str):
            raise TypeError(f"tags: expected several names, got the string {tags!r}")
        with self._lock:
            repo = self._repos[repo_id]
            held = repo.branches.get(revision)
            new = {path: _File(data, _is_lfs(path, len(data))) for path, data in files.items()}
            self._objects |= {file.sha256: file.data for file in new.values() if file.lfs}
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
        self._faults.append(_Fault(filename, n_bytes))

    def corrupt_next(self, filename: str | None = None) -> None:
        """Flip the bits of the middle byte of the next body; its size and ETag stay those of the true file."""
        self._faults.append(_Fault(filename, None))

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

    def _new_repo(self, repo_id: str, private: bool) -> _Repo:
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
            raise ValueError(f"repo_id: expected owner/name, got {repo_id!r}")
        if repo_id in self._repos:
            raise ValueError(f"repo_id: {repo_id} exists")
        self._repos[repo_id] = _Repo(repo_id, private)
        return self._repos[repo_id]

    def _commit(self, repo_id: str, revision: str) -> _Commit:
        with self._lock:
            commit = self._repos[repo_id].find(revision)
        if commit is None:
            raise KeyError(f"{repo_id} has no revision {revision}")
        return commit

    def _object_url(self, sha256: str, path: str = "") -> str:
        return f"{self._storage.url}/{sha256}{'/' if path else ''}{quote(path)}?Signature={self._signature}"

    def _damage(self, filename: str, body: bytes) -> tuple[bytes, int]:
        """The body to promise and how many of its bytes to send."""
        with self._lock:
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
