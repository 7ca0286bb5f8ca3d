"""Files of the Hub, from its cache or downloaded, and held to their SHA-256."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import files
from .config import CheckpointError


class WeightsUnavailableError(OSError):
    """Weights that are known, or may be, cannot be had: no network and not in the cache, not authorised, or not
    published yet."""


def download_verified(repo_id: str, filename: str, sha256: str, hub: dict[str, Any], what: str = "model") -> Path:
    """`download` a file of a known SHA-256.

    Raises:
        CheckpointError: a file of another one.
        ValueError, WeightsUnavailableError: as `download`.
    """
    path = download(repo_id, filename, hub, what)
    if files.sha256(path) != sha256 and not hub["local_files_only"]:
        # the Hub's client keeps what came without checking it: fetch once more before giving up
        path = download(repo_id, filename, {**hub, "force_download": True}, what)
    return verified(path, sha256)


def verified(path: Path, sha256: str) -> Path:
    """``path``, if the file has that SHA-256.

    Raises:
        CheckpointError: if not.
    """
    if (found := files.sha256(path)) != sha256:
        raise CheckpointError(
            f"{path} is damaged or not the published file: its SHA-256 is {found}, expected {sha256}; "
            "delete it to fetch it again"
        )
    return path


def download(repo_id: str, filename: str, hub: dict[str, Any], what: str = "model") -> Path:
    """A file of a Hub repository, from the cache or downloaded (huggingface_hub shows its progress and resumes).

    Args:
        repo_id, filename: "user/repo", and a file in it.
        hub: further arguments of `huggingface_hub.hf_hub_download`.
        what: the argument that errors name.

    Raises:
        ValueError: no such repository, revision or file.
        WeightsUnavailableError: it cannot be had.
    """
    import huggingface_hub  # slow to import, and not needed where the weights are here
    from huggingface_hub import errors as hub_errors

    at = f" at revision {hub['revision']!r}" if hub["revision"] else ""
    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, filename, library_name="hih-align", **hub))
    except hub_errors.LocalEntryNotFoundError as error:
        raise WeightsUnavailableError(
            f"{what}: {repo_id!r}{at} is neither a folder here nor in the Hub's cache, and the Hub cannot be reached "
            f"(or local_files_only or HF_HUB_OFFLINE forbids it) to fetch {filename}"
        ) from error
    except hub_errors.GatedRepoError as error:
        raise WeightsUnavailableError(f"{what}: {repo_id!r} is gated: accept its terms, then pass token") from error
    except hub_errors.RevisionNotFoundError as error:
        raise ValueError(f"revision is {hub['revision']!r}, which {repo_id!r} does not have on the Hub") from error
    except hub_errors.EntryNotFoundError as error:
        raise ValueError(f"{what}: {repo_id!r}{at} on the Hub has no {filename}; not a hih-align repository") from error
    except hub_errors.RepositoryNotFoundError as error:
        if error.response.status_code in (401, 403):
            raise WeightsUnavailableError(
                f"{what}: {repo_id!r} is not on the Hub, or private: pass token or run `hf auth login`"
            ) from error
        raise ValueError(f"{what} is {repo_id!r}: no such folder here, and no such repository on the Hub") from error
    except hub_errors.HFValidationError as error:
        raise ValueError(f"{what} is {repo_id!r}: {error}") from error
    except hub_errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = ": the token is not valid" if status == 401 else ""
        raise WeightsUnavailableError(f"{what}: the Hub answers {status} for {repo_id!r}{at}{hint}") from error
    except (ValueError, TypeError):
        raise
    except Exception as error:  # a broken transfer, a full disk; huggingface_hub's HTTP library has errors of its own
        raise WeightsUnavailableError(f"{what}: {filename} of {repo_id!r}{at} cannot be fetched: {error}") from error
