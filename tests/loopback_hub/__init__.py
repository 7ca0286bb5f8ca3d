"""A small Hugging Face Hub on loopback: real HTTP, for tests with the real huggingface_hub client.

    with LoopbackHub() as hub:
        commit = hub.add_repo("user/name", {"config.json": b"{}", "model.safetensors": weights}, tags=["v1"])
        hub.connect(monkeypatch, tmp_path)           # this process, or: env=hub.client_env(tmp_path) for another one
        hub.truncate_next(70_000, "model.safetensors")
        huggingface_hub.hf_hub_download("user/name", "model.safetensors")

It answers what huggingface_hub 2.4 asks of model repos for hih_align (read from the client's source): resolve, model
info, refs, repos create, preupload, LFS batch and verify, commit, tag and validate-yaml. Two ports: the Hub's, and that
of a storage host, which plays the Hub's CDN and S3. As on the Hub, LFS files are answered with a redirect there, and
the client must not send it the token. Not here: Xet, pull requests, multipart uploads, deletions, branches, listings of
folders, .gitignore, datasets and spaces.
"""

from .hub import LoopbackHub
from .messages import Request

__all__ = ["LoopbackHub", "Request"]
