"""Download of files from the Hugging Face Hub or its cache, with verification of their SHA-256."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files
from .config import CheckpointError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

#: What a user can do, by the status of the Hub's answer.
_HINTS = {
    401: "the token is not valid",
    403: "the token does not permit it, or the repository is closed to you",
    429: "too many requests: wait some minutes, or pass token",
}


class WeightsUnavailableError(OSError):
    """Weights cannot be obtained: they are not in the cache and the Hub cannot be reached, access is not authorised, or
    the weights are not published."""


def download_verified(repo_id: str, filename: str, sha256: str, hub: dict[str, Any], what: str = "model") -> Path:
    """Download a file like `download`, and verify its SHA-256.

    Raises:
        CheckpointError: the file has another SHA-256.
        ValueError, WeightsUnavailableError: as `download`.
    """
    path = download(repo_id, filename, hub, what)
    if files.sha256(path) != sha256 and not hub["local_files_only"]:
        # the Hub's client does not check a file that it keeps in the cache: download it once more before the error
        path = download(repo_id, filename, {**hub, "force_download": True}, what)
    return verified(path, sha256)


def verified(path: Path, sha256: str, remedy: str = "delete it, and the next call downloads it again") -> Path:
    """Return ``path`` if the file has the given SHA-256. ``remedy`` says what to do otherwise.

    Raises:
        CheckpointError: the file has another SHA-256.
    """
    if (found := files.sha256(path)) != sha256:
        raise CheckpointError(
            f"{path} is damaged or not the published file: its SHA-256 is {found}, expected {sha256}; {remedy}"
        )
    return path


def download(repo_id: str, filename: str, hub: dict[str, Any], what: str = "model") -> Path:
    """Get a file of a Hub repository, from the cache or by download.

    huggingface_hub shows the progress and resumes interrupted downloads.

    Args:
        repo_id, filename: "user/repo", and a file in it.
        hub: further arguments of `huggingface_hub.hf_hub_download`.
        what: the name of the argument in errors.

    Raises:
        ValueError: the repository, revision or file does not exist.
        WeightsUnavailableError: the file cannot be obtained.
    """
    import huggingface_hub  # slow to import, and not needed for weights on this machine
    from huggingface_hub import errors as hub_errors

    at = f" at revision {hub['revision']!r}" if hub["revision"] else ""
    try:
        return Path(huggingface_hub.hf_hub_download(repo_id, filename, library_name="hih-align", **hub))
    except hub_errors.LocalEntryNotFoundError as error:
        if isinstance(refusal := error.__cause__, hub_errors.HfHubHTTPError):
            raise _refused(refusal, repo_id, at, what) from error
        raise WeightsUnavailableError(
            f"{what}: {repo_id!r}{at} is neither a folder here nor in the Hub's cache, and {filename} cannot be "
            "downloaded: the Hub cannot be reached, or local_files_only or HF_HUB_OFFLINE forbids the download"
        ) from error
    except hub_errors.GatedRepoError as error:
        raise WeightsUnavailableError(
            f"{what}: {repo_id!r} is gated: accept its terms on the Hub, then pass token"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ValueError(f"revision is {hub['revision']!r}, which {repo_id!r} does not have on the Hub") from error
    except hub_errors.EntryNotFoundError as error:
        raise ValueError(
            f"{what}: {repo_id!r}{at} on the Hub has no {filename}: it is not a hih-align repository"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        if error.response.status_code in (401, 403):
            raise WeightsUnavailableError(
                f"{what}: {repo_id!r} is not on the Hub, or is private: pass token or run `hf auth login`"
            ) from error
        raise ValueError(f"{what} is {repo_id!r}: no such folder here, and no such repository on the Hub") from error
    except hub_errors.HFValidationError as error:
        raise ValueError(f"{what} is {repo_id!r}: {error}") from error
    except hub_errors.HfHubHTTPError as error:
        raise _refused(error, repo_id, at, what) from error
    except (ValueError, TypeError) as error:
        cause = error.__cause__
        if isinstance(cause, hub_errors.HfHubHTTPError):
            raise _refused(cause, repo_id, at, what) from error
        if cause is not None and hub.get("force_download"):  # huggingface_hub says only that it failed
            raise WeightsUnavailableError(
                f"{what}: {filename} of {repo_id!r}{at} cannot be downloaded again, and the one in the Hub's cache is "
                f"damaged: {cause}"
            ) from error
        raise
    except Exception as error:  # broken transfer, full disk: huggingface_hub's HTTP library raises errors of many kinds
        raise WeightsUnavailableError(f"{what}: {filename} of {repo_id!r}{at} cannot be downloaded: {error}") from error


def _refused(error: HfHubHTTPError, repo_id: str, at: str, what: str) -> WeightsUnavailableError:
    """The Hub was reached, and answered with an error."""
    status = error.response.status_code
    hint = _HINTS.get(status, "the Hub is out of order: try again later" if status >= 500 else "")
    return WeightsUnavailableError(f"{what}: the Hub answers {status} for {repo_id!r}{at}{': ' * bool(hint)}{hint}")
