"""A small Hugging Face Hub on the loopback interface: real HTTP, for tests with the real huggingface_hub client.

    with LoopbackHub() as hub:
        commit = hub.add_repo("user/name", {"config.json": b"{}", "model.safetensors": weights}, tags=["v1"])
        hub.connect(monkeypatch, tmp_path)           # this process, or: env=hub.client_env(tmp_path) for another one
        hub.truncate_next(70_000, "model.safetensors")
        huggingface_hub.hf_hub_download("user/name", "model.safetensors")

The server has the endpoints that huggingface_hub 2.4 calls for model repositories of hih_align, according to its source
code: resolve, model info, refs, repos create, preupload, LFS batch and verify, commit, tag and validate-yaml. The
server has two ports: the Hub's port, and the port of a storage host, which stands for the Hub's CDN and S3. As on the
Hub, a request for an LFS file is redirected to the storage host, and the client must not send the token there.

The server does not have: Xet, pull requests, multipart uploads, deletions, creation of branches, listings of folders,
.gitignore, datasets and spaces.
"""

from .hub import LoopbackHub
from .messages import Refusal, Request

__all__ = ["LoopbackHub", "Refusal", "Request"]
