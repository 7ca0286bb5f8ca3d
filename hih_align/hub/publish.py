"""What becomes of a trained network: a row of the manifest, a model card, a repository on the Hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub import EvalResult, ModelCardData

from .. import files
from ..method.network import HIHNet
from ..schemes import get_scheme
from . import checkpoints
from .checkpoints import WEIGHTS_FILE, Config, Row

#: Terms of the weights, beside the manifest of a checkout.
TERMS_FILE = "LICENSE-WEIGHTS"


def ship(model: str, network: HIHNet, config: Config, training: str) -> Path:
    """Make a network the checkpoint of a checkout's manifest row: float16 weights, hash, config, how it was trained.

    The row's figures and its place on the Hub are dropped: they were another network's.

    Args:
        model: the row's id, such as "HIH_S/wflw".
        network, config: as training left them.
        training: on what it was trained, by which command, how long and on what machine.

    Returns:
        the file of weights: in the package where the row's file lies there, else in ``weights/`` beside the manifest.

    Raises:
        ValueError: no such row, or a network of another shape than the row's.
    """
    row = checkpoints.read_manifest().get(model)
    if row is None:
        raise ValueError(f"model is {model!r}, expected one of {list(checkpoints.read_manifest())}")
    found, expected = (network.stacks, network.landmarks), (row.config.stacks, len(row.config.scheme))
    if found != expected:
        raise ValueError(f"network has {found} stacks and landmarks, {model} has {expected}")
    path = checkpoints.packaged_weights() / row.file
    if not path.is_file():
        path = checkpoints.manifest_path().parent / "weights" / row.file
        path.parent.mkdir(exist_ok=True)
    checkpoints.save_weights(network, path, torch.float16)
    checkpoints.record(
        model,
        sha256=files.sha256(path),
        bytes=path.stat().st_size,
        repo_id=None,
        revision=None,
        training=training,
        metrics=[],
    )
    checkpoints.save_config(model, config)
    return path


def model_card(row: Row, reports: Sequence[str] = (), repo_id: str | None = None) -> str:
    """The text of a checkpoint's ``README.md`` on the Hub: metadata, use, figures, training, terms.

    Args:
        row: the checkpoint, with all its figures.
        reports: Markdown of evaluation reports (``report.md`` of ``hih-align evaluate --out``), shown as they are.
        repo_id: where it will lie, for the example; the row's own by default, else its id.
    """
    name = repo_id or row.repo_id or row.id
    data = ModelCardData(
        license="other",
        license_name=row.license,
        license_link=TERMS_FILE,
        library_name="hih-align",
        pipeline_tag="keypoint-detection",
        tags=["face-alignment", "facial-landmarks", "heatmap-in-heatmap", "pytorch", row.scheme],
        model_name=row.id,
        eval_results=[_result(metric) for metric in row.metrics] or None,
    )
    scheme, config = get_scheme(row.scheme), row.config
    figures = ["| measured on | what | value | date | hardware |", "| --- | --- | --- | --- | --- |"]
    figures += [
        f"| `{m['dataset']}` | {m['metric']} | {m['value']:g} | {m['date']} | {m['hardware']} |" for m in row.metrics
    ]
    commands = list(dict.fromkeys(str(metric["command"]) for metric in row.metrics))
    parts = [
        f"# {row.id}",
        f"{len(scheme)} facial landmarks ({scheme.id}) at subpixel accuracy: a stacked hourglass of {config.stacks} "
        f"stack{'s' * (config.stacks > 1)} with nested heatmaps, after [HIH](https://arxiv.org/abs/2104.03100).",
        "```python\n"
        "from hih_align import FaceAligner\n\n"
        f'aligner = FaceAligner.from_pretrained("{name}")\n'
        'face = aligner.align("photo.jpg", [177, 80, 275, 200])  # x1, y1, x2, y2 of one face\n'
        "face.points, face.scores  # pixels of the photo, probabilities\n"
        "```",
        "Boxes are those of any detector, at best tight from brow to chin and jaw to jaw. A score is the estimated "
        "probability that the point's error is below 5 % of the box's longer side.",
        "## Figures",
        "NME, and FR10 (faces with an error above 10 %), are in percent.",
        "\n".join(figures) if row.metrics else "None yet.",
        "```bash\n" + "\n".join(commands) + "\n```" if commands else "",
        *(_deeper(text) for text in reports),
        "## Training",
        row.training or "Not trained yet.",
        "## Terms and limits",
        f"{row.terms} See {TERMS_FILE}.",
        "Predictions can be wrong, and worse for people, poses and conditions that the training faces show rarely. "
        "Landmarks say where parts of a face are, not whose it is.",
    ]
    body = "\n\n".join(part for part in parts if part)
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"


def _result(metric: Any) -> EvalResult:
    return EvalResult(
        task_type="keypoint-detection",
        dataset_type=metric["dataset"],
        dataset_name=metric["dataset"],
        metric_type=str(metric["metric"]).split(",")[0].split()[0].lower(),
        metric_name=metric["metric"],
        metric_value=metric["value"],
    )


def _deeper(text: str) -> str:
    """A report's headings are sections of the card."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines())


def publish(
    row: Row,
    repo_id: str,
    *,
    reports: Sequence[str] = (),
    tags: Sequence[str] = (),
    private: bool | None = None,
    token: str | bool | None = None,
) -> str:
    """Push a checkpoint's weights, config, card and terms to a Hub repository, made if need be, in one commit.

    Args:
        row: whose file is at hand here; it goes up as it is, byte by byte.
        repo_id: "user/repo".
        reports: see `model_card`.
        tags: names for the commit, such as "v0.1.0".
        private: for a new repository.
        token: as in huggingface_hub; None takes the one of ``hf auth login``.

    Returns:
        the commit's id, the manifest row's ``revision``.

    Raises:
        ValueError: a malformed repo_id.
        WeightsUnavailableError, CheckpointError: the file is not here, or not what the manifest says.
        OSError: if the Hub refuses or cannot be reached.
    """
    if row.sha256 is None or (path := checkpoints.local_weights(row)) is None:
        raise checkpoints.WeightsUnavailableError(f"model: the weights of {row.id} are not on this machine")
    checkpoints.verified(path, row.sha256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(path, folder / WEIGHTS_FILE)
        checkpoints.write_config(folder, row.config)
        (folder / "README.md").write_text(model_card(row, reports, repo_id), "utf-8")
        terms = checkpoints.manifest_path().parent / TERMS_FILE
        if terms.is_file():
            shutil.copyfile(terms, folder / TERMS_FILE)
        commit = upload(folder, repo_id, tags=tags, private=private, token=token, message=f"{row.id} with hih-align")
    return str(commit.oid)


def upload(
    folder: str | Path,
    repo_id: str,
    *,
    message: str,
    tags: Sequence[str] = (),
    revision: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
) -> huggingface_hub.CommitInfo:
    """A folder's files to a Hub repository, made if need be, in one commit, which gets the tags.

    Raises:
        ValueError: a malformed repo_id.
        OSError: if the Hub refuses or cannot be reached (huggingface_hub's own errors).
    """
    api = huggingface_hub.HfApi(token=token, library_name="hih-align")
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision, commit_message=message)
        for tag in tags:
            api.create_tag(repo_id, tag=tag, revision=commit.oid)
    except (OSError, ValueError):
        raise
    except Exception as error:  # huggingface_hub's HTTP library has errors of its own
        raise OSError(f"repo_id: {repo_id!r} cannot be uploaded: {error}") from error
    return commit
