"""A checkpoint's way to the Hub: its model card and the upload."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub import EvalResult, ModelCardData

from .config import Config

#: The model card's file in a Hub repository.
CARD_FILE = "README.md"


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
    """The text of a checkpoint's ``README.md`` on the Hub: metadata, use, landmarks, and what else there is to say.

    Args:
        config: of the checkpoint.
        name: what the example loads: "user/repo", or a manifest id.
        title: of the card; the config's name by default.
        sections: Markdown that follows, such as figures, training and terms.
        license, license_name, license_link: as in the Hub's metadata; without them the card names none.
        eval_results: for the Hub's metadata.
    """
    scheme = config.scheme
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
        f"{len(scheme)} facial landmarks ({scheme.id}) at subpixel accuracy: a stacked hourglass of {config.stacks} "
        f"stack{'s' * (config.stacks > 1)} with nested heatmaps, after [HIH](https://arxiv.org/abs/2104.03100).",
        "```python\n"
        "from hih_align import FaceAligner\n\n"
        f'aligner = FaceAligner.from_pretrained("{name}")\n'
        'face = aligner.align("photo.jpg", [177, 80, 275, 200])  # x1, y1, x2, y2 of one face\n'
        f"face.points, face.scores  # pixels of the photo, {'probabilities' if calibrated else 'not calibrated'}\n"
        "```",
        "Boxes are those of any detector, at best tight from brow to chin and jaw to jaw. "
        + (
            "A score is the estimated probability that the point's error is below 5 % of the box's longer side."
            if calibrated
            else "The scores are not calibrated: heights of heatmaps, which rank points but are no probabilities."
        ),
        *sections,
    ]
    body = "\n\n".join(part for part in parts if part)
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"


def own_card(config: Config, repo_id: str) -> str:
    """The card of a user's own checkpoint: use, its landmarks by name, and limits."""
    names = ", ".join(f"{index} {name}" for index, name in enumerate(config.scheme.names))
    return model_card(
        config,
        repo_id,
        sections=[
            "## Landmarks",
            f"{names}.",
            "## Limits",
            "Predictions can be wrong, and worse for people, poses and conditions that the training faces show rarely. "
            "Landmarks say where parts of a face are, not whose it is.",
        ],
    )


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
    """A folder's files to a Hub repository, made if need be, in one commit, which gets the tags.

    Args:
        folder: whose files go up.
        repo_id: "user/repo".
        message: of the commit.
        tags: names for the commit.
        revision: branch; the main one by default.
        private: for a new repository.
        token: as in huggingface_hub.
        keep: a card that the repository has stays as it is.

    Raises:
        ValueError: a malformed repo_id.
        OSError: if the Hub refuses or cannot be reached (huggingface_hub's own errors).
    """
    api = huggingface_hub.HfApi(token=token, library_name="hih-align")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        there = keep and api.file_exists(repo_id, CARD_FILE, revision=revision)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            ignore_patterns=[CARD_FILE] if there else None,
        )
        for tag in tags:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    except (OSError, ValueError):
        raise
    except Exception as error:  # huggingface_hub's HTTP library has errors of its own
        raise OSError(f"repo_id: {repo_id!r} cannot be uploaded: {error}") from error
    return commit
