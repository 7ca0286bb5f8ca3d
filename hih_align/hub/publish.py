"""Publishing a checkpoint on the Hugging Face Hub: its model card and the upload."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import EvalResult, ModelCardData

from .config import Config

#: The file of the model card in a Hub repository.
CARD_FILE = "README.md"

#: The last line of a card that `own_card` made. Readers do not see it. It shows whether a person changed the card.
_MARK = "<!-- hih-align renews this card unless its text is changed. SHA-256 of the text: {} -->\n"


def model_card(
    config: Config,
    name: str,
    *,
    title: str | None = None,
    sections: Sequence[str] = (),
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    eval_results: Sequence[EvalResult] = (),
) -> str:
    """The text of a model card (the ``README.md`` on the Hub): metadata, use, landmarks and ``sections``.

    Args:
        config: the config of the checkpoint.
        name: the name that the example loads: "user/repo", or a manifest id.
        title: title of the card; by default the config's name.
        sections: further Markdown, such as figures, training and terms.
        license, license_name, license_link: as in the Hub's metadata. If None, the card names no licence.
        eval_results: results for the Hub's metadata.
    """
    scheme = config.resulting
    title = title or config.name or name
    calibrated = config.decoder.method in config.calibration
    data = ModelCardData(
        license=license,
        license_name=license_name,
        license_link=license_link,
        library_name="hih-align",
        pipeline_tag="keypoint-detection",
        tags=["face-alignment", "facial-landmarks", "heatmap-in-heatmap", "pytorch", scheme.id],
        model_name=title,
        eval_results=list(eval_results) or None,
    )
    parts = [
        f"# {title}",
        f"{len(scheme)} facial landmarks ({scheme.id}) at subpixel accuracy: a network of {config.stacks} stacked "
        f"hourglass{'es' * (config.stacks > 1)} with nested heatmaps, after [HIH](https://arxiv.org/abs/2104.03100).",
        "```python\n"
        "from hih_align import FaceAligner\n\n"
        f'aligner = FaceAligner.from_pretrained("{name}")\n'
        'face = aligner.align("photo.jpg", [177, 80, 275, 200])  # x1, y1, x2, y2 of one face\n'
        f"face.points, face.scores  # pixels of the photo, {'probabilities' if calibrated else 'not calibrated'}\n"
        "```",
        "A bounding box may come from any detector. A tight box, from brows to chin and from jaw to jaw, is best. "
        + (
            "A score is the estimated probability that the error of the point is below 5 % of the box's longer side."
            if calibrated
            else "The scores are not calibrated: they are heatmap heights, which rank points but are no probabilities."
        ),
        *sections,
    ]
    body = "\n\n".join(part for part in parts if part)
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"


def own_card(config: Config, repo_id: str) -> str:
    """The model card of a user's own checkpoint: use, landmark names and limits. `is_own_card` knows it again."""
    names = ", ".join(f"{index} {name}" for index, name in enumerate(config.resulting.names))
    text = model_card(
        config,
        repo_id,
        sections=[
            "## Landmarks",
            f"{names}.",
            "## Limits",
            "Predictions can be wrong. They are worse for people, poses and conditions that are rare in the training "
            "data. Landmarks say where the parts of a face are. They do not identify a person.",
        ],
    )
    return f"{text}\n{_mark(text)}"


def is_own_card(card: str) -> bool:
    """Whether `own_card` made a card, and nobody changed it since."""
    text, _, mark = card.removesuffix("\n").rpartition("\n")
    return f"{mark}\n" == _mark(text)


def _mark(text: str) -> str:
    return _MARK.format(hashlib.sha256(text.encode()).hexdigest())


def upload_folder(
    folder: str | Path,
    repo_id: str,
    *,
    message: str,
    tags: Sequence[str] = (),
    revision: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    keep: bool = False,
) -> huggingface_hub.CommitInfo:
    """Upload the files of a folder to a Hub repository in one commit, and tag the commit.

    The repository is made if it does not exist.

    Args:
        folder: the folder whose files are uploaded.
        repo_id: "user/repo".
        message: message of the commit.
        tags: tags for the commit.
        revision: branch that exists; by default the main branch.
        private: whether a new repository is private.
        token: as in huggingface_hub.
        keep: do not replace a model card of the repository, unless `own_card` made it and nobody changed it.

    Raises:
        ValueError: ``repo_id`` is malformed, or ``revision`` is a branch of a repository that does not exist.
        OSError: the Hub refuses the upload or cannot be reached (huggingface_hub's own errors).
    """
    api = huggingface_hub.HfApi(token=token, library_name="hih-align")
    try:
        if revision not in (None, "main") and not api.repo_exists(repo_id):  # it would be made, and stay empty
            raise ValueError(f"revision is {revision!r}, a branch of a repository that does not exist yet: {repo_id!r}")
        api.create_repo(repo_id, private=private, exist_ok=True)
        kept = keep and api.file_exists(repo_id, CARD_FILE, revision=revision) and not _own(api, repo_id, revision)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            ignore_patterns=[CARD_FILE] if kept else None,
        )
        for tag in tags:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    except (OSError, ValueError):
        raise
    except Exception as error:  # huggingface_hub's HTTP library raises errors of many kinds
        raise OSError(f"repo_id: {repo_id!r} cannot be uploaded: {error}") from error
    return commit


def _own(api: huggingface_hub.HfApi, repo_id: str, revision: str | None) -> bool:
    """`is_own_card` for the card of a repository."""
    with tempfile.TemporaryDirectory() as folder:  # not the user's cache, which need not be writable
        path = api.hf_hub_download(repo_id, CARD_FILE, revision=revision, local_dir=folder)
        return is_own_card(Path(path).read_bytes().decode("utf-8", "replace"))
