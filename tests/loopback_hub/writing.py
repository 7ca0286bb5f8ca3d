"""Endpoints that write: create a repository, preupload, LFS batch and verify, commit, tag; and the storage host."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from .access import the_branch, the_commit, the_repo, writer
from .content import LFS_SUFFIXES, REGULAR_LIMIT, File, is_lfs
from .messages import Call, Refusal, Reply, json_reply
from .reading import content


def create_repo(call: Call) -> Reply:
    writer(call)
    asked = call.json()
    if asked.get("type", "model") != "model":
        raise Refusal(400, "the loopback hub has models only")
    repo_id = f"{asked.get('organization') or call.hub.user}/{asked['name']}"
    url = f"{call.hub.url}/{repo_id}"
    if repo_id in call.hub.repos:
        return json_reply({"error": "You already created this model repo", "url": url}, 409)
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
    call.hub.new_repo(repo_id, private).commit("main", {".gitattributes": File(attributes, False)}, "initial commit")
    return json_reply({"url": url, "name": repo_id, "id": repo_id})


def preupload(call: Call, repo_id: str, revision: str) -> Reply:
    commit = the_branch(the_repo(call, repo_id, write=True), revision)

    def mode(path: str, size: int) -> dict[str, Any]:
        known = commit.files.get(path)
        how = {"path": path, "uploadMode": "lfs" if is_lfs(path, size) else "regular", "shouldIgnore": False}
        return how | ({"oid": known.etag} if known else {})

    return json_reply({"files": [mode(file["path"], file["size"]) for file in call.json()["files"]]})


def lfs_batch(call: Call, repo_id: str) -> Reply:
    the_repo(call, repo_id, write=True)
    asked = call.json()
    if asked["operation"] != "upload" or "basic" not in asked.get("transfers", ["basic"]):
        raise Refusal(422, "the loopback hub has basic uploads only")
    verify = {"href": f"{call.hub.url}/{repo_id}.git/info/lfs/objects/verify"}

    def answer(oid: str, size: int) -> dict[str, Any]:
        if oid in call.hub.objects:  # without actions, the client has nothing to upload
            return {"oid": oid, "size": size}
        upload = {"href": call.hub.object_url(oid), "header": {}}
        return {"oid": oid, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    return json_reply(
        {"transfer": "basic", "objects": [answer(item["oid"], item["size"]) for item in asked["objects"]]}
    )


def lfs_verify(call: Call, repo_id: str) -> Reply:
    the_repo(call, repo_id, write=True)
    asked = call.json()
    stored = call.hub.objects.get(asked["oid"])
    if stored is None or len(stored) != asked["size"]:
        raise Refusal(404, "Object not found")
    return json_reply({})


def commit(call: Call, repo_id: str, revision: str) -> Reply:
    repo = the_repo(call, repo_id, write=True)
    if "create_pr" in call.query:
        raise Refusal(501, "the loopback hub has no pull requests")
    parent = the_branch(repo, revision)
    files, title, description = dict(parent.files), "", ""
    for line in call.body.splitlines():
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "header":
            title, description = value["summary"], value["description"]
            if not parent.oid.startswith(value.get("parentCommit", "")):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        elif key == "file":
            data = base64.b64decode(value["content"])
            if len(data) > REGULAR_LIMIT:
                raise Refusal(400, f"{value['path']} is too large for a regular file")
            files[value["path"]] = File(data, False)
        elif key == "lfsFile":
            stored = call.hub.objects.get(value["oid"])
            if stored is None:
                raise Refusal(400, f"LFS object {value['oid']} of {value['path']} was not uploaded")
            files[value["path"]] = File(stored, True)
        else:
            raise Refusal(400, f"unknown operation {key}")
    commit = repo.commit(revision, files, title, description)
    url = f"{call.hub.url}/{repo_id}/commit/{commit.oid}"
    return json_reply({"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})


def create_tag(call: Call, repo_id: str, revision: str) -> Reply:
    repo = the_repo(call, repo_id, write=True)
    commit, tag = the_commit(repo, revision), call.json()["tag"]
    if tag in repo.tags:
        raise Refusal(409, f"Tag {tag} already exists")
    repo.tags[tag] = commit.oid
    return json_reply({})


def validate_yaml(call: Call) -> Reply:
    bare = not call.json()["content"].startswith("---")
    warning = {"message": "empty or missing yaml metadata in repo card"}
    return json_reply({"errors": [], "warnings": [warning] if bare else []})


def stored_object(call: Call, sha256: str, path: str = "") -> Reply:
    """The storage host: a signed URL permits to read or write one object, without a token."""
    if call.query.get("Signature") != [call.hub.signature]:
        raise Refusal(403, "AccessDenied")
    if call.method == "PUT":
        if hashlib.sha256(call.body).hexdigest() != sha256:
            raise Refusal(400, "XAmzContentSHA256Mismatch")
        call.hub.objects[sha256] = call.body
        return Reply(200, {"ETag": f'"{sha256}"'})
    if sha256 not in call.hub.objects:
        raise Refusal(404, "NoSuchKey")
    return content(call, File(call.hub.objects[sha256], True), path)
