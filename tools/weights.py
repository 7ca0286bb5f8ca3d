"""For maintainers: turn a trained network into a manifest row, a model card and a repository on the Hub.

python tools/weights.py mean runs/s/best HIH_S/wflw --share 0.3 --out runs/mean
python tools/weights.py ship runs/s --as HIH_S/wflw --training "..."
python tools/weights.py card HIH_S/wflw --report report/report.md
python tools/weights.py publish HIH_S/wflw --repo user/hih-s-wflw --tag v0.1.0
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from huggingface_hub import EvalResult

from hih_align import Config, files
from hih_align.cli.app import Lines
from hih_align.hub import checkpoints, config, download, manifest
from hih_align.hub.checkpoints import WEIGHTS_FILE
from hih_align.hub.manifest import ManifestRow
from hih_align.hub.publish import CARD_FILE, model_card, upload_folder

if TYPE_CHECKING:  # a card needs no PyTorch
    from hih_align import HIHNet

#: The terms of the weights; the file lies beside the manifest of a checkout.
TERMS_FILE = "LICENSE-WEIGHTS"

app = typer.Typer(
    cls=Lines, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)

Reports = Annotated[
    list[Path] | None, typer.Option("--report", help="A report.md of `hih-align evaluate --out`. Repeatable.")
]


def ship(model: str, network: HIHNet, config: Config, training: str) -> Path:
    """Make a network the checkpoint of a manifest row in a checkout: float16 weights, hash, config and training.

    The metrics of the row, and its place on the Hub, are removed, because they belong to the former network.

    Args:
        model: the id of the row, such as "HIH_S/wflw".
        network, config: the result of the training.
        training: training data, command, duration and machine, in words.

    Returns:
        The file of weights. It lies in the package if the row's file lies there, else in ``weights/``.

    Raises:
        ValueError: the manifest has no such row, or the network has another size than the row.
    """
    import torch

    row = manifest.read_manifest().get(model)
    if row is None:
        raise ValueError(f"model is {model!r}, expected one of {list(manifest.read_manifest())}")
    found, expected = (network.landmarks, network.size), (len(row.config.scheme), row.config.size)
    if found != expected:
        raise ValueError(f"network has the landmarks and size {found}, expected {expected} for {model}")
    path = manifest.packaged_weights() / row.file
    if not path.is_file():
        path = manifest.manifest_path().parent / "weights" / row.file
        path.parent.mkdir(exist_ok=True)
    checkpoints.save_weights(network, path, torch.float16, config.correction)
    manifest.record(
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


def mean(model: str, other: str, share: float, out: Path) -> None:
    """Write a checkpoint whose weights are a mean of two checkpoints, of which one was trained from the other.

    The errors of the two networks differ, so the mean can be more accurate than both (Wortsman et al., arXiv
    2109.01903). `hih-align calibrate` then fits it anew.

    Args:
        model: a name or folder, see `find_checkpoint`. Its config is kept, but for the correction, which belongs to its
            own weights.
        other: a checkpoint of the same size and scheme.
        share: weight of ``other``, in [0, 1].
        out: folder of the new checkpoint.

    Raises:
        ValueError: ``share`` is out of range, or the checkpoints differ in size or scheme.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share:g}, expected a number in [0, 1]")
    first, second = (checkpoints.find_checkpoint(name) for name in (model, other))
    network = checkpoints.load_network(first)
    kinds = [(found.config.scheme.id, found.config.heads, *found.config.size) for found in (first, second)]
    if kinds[0] != kinds[1]:
        raise ValueError(f"other is {other!r} of the kind {kinds[1]}, expected {kinds[0]}, the kind of {model!r}")
    added = checkpoints.load_network(second).state_dict()
    state = {
        name: value.lerp(added[name], share) if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    checkpoints.save_checkpoint(out, network, first.config)  # the correction is in the file of weights


def row_card(row: ManifestRow, reports: Sequence[str] = (), repo_id: str | None = None) -> str:
    """The model card of a row, the ``README.md`` on the Hub: metadata, use, figures, training and terms.

    Args:
        row: the checkpoint, with all of its figures.
        reports: Markdown of evaluation reports (``report.md`` of ``hih-align evaluate --out``). They are not changed.
        repo_id: the repository that the example names; by default the row's own, else the id of the row.
    """
    figures = ["| measured on | what | value | date | hardware |", "| --- | --- | --- | --- | --- |"]
    figures += [
        f"| `{m['dataset']}` | {m['metric']} | {m['value']:g} | {m['date']} | {m['hardware']} |" for m in row.metrics
    ]
    commands = list(dict.fromkeys(str(metric["command"]) for metric in row.metrics))
    return model_card(
        row.config,
        repo_id or row.repo_id or row.id,
        title=row.id,
        license="other",
        license_name=row.license,
        license_link=TERMS_FILE,
        eval_results=[_result(metric) for metric in row.metrics],
        sections=[
            "## Figures",
            "NME, and FR10 (faces with an error above 10 %), are in percent.",
            "\n".join(figures) if row.metrics else "None yet.",
            "```bash\n" + "\n".join(commands) + "\n```" if commands else "",
            *(_deeper(text) for text in reports),
            "## Training",
            row.training or "Not trained yet.",
            "## Terms and limits",
            f"{row.terms} See {TERMS_FILE}.",
            "Predictions can be wrong. They are worse for people, poses and conditions that are rare in the training "
            "data. Landmarks say where the parts of a face are. They do not identify a person.",
        ],
    )


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
    """A report whose headings are one level lower, as sections of the card."""
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in text.strip().splitlines())


def publish(
    row: ManifestRow,
    repo_id: str,
    *,
    reports: Sequence[str] = (),
    tags: Sequence[str] = (),
    private: bool | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload weights, config, card and terms of a checkpoint to a Hub repository, in one commit.

    The repository is made if it does not exist.

    Args:
        row: the checkpoint. Its file on this machine is uploaded without a change.
        repo_id: "user/repo".
        reports: see `row_card`.
        tags: tags for the commit, such as "v0.1.0".
        private: whether a new repository is private.
        token: as in huggingface_hub; None: the token of ``hf auth login``.

    Returns:
        The id of the commit, which becomes the ``revision`` of the manifest row.

    Raises:
        ValueError: ``repo_id`` is malformed.
        WeightsUnavailableError, CheckpointError: the file is not here, or is not the file of the manifest.
        OSError: the Hub refuses the upload or cannot be reached.
    """
    if row.sha256 is None or (path := manifest.local_weights(row)) is None:
        raise download.WeightsUnavailableError(f"model: the weights of {row.id} are not on this machine")
    download.verified(path, row.sha256)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(path, folder / WEIGHTS_FILE)
        config.write_config(folder, row.config)  # the file of weights holds the correction
        (folder / CARD_FILE).write_text(row_card(row, reports, repo_id), "utf-8")
        terms = manifest.manifest_path().parent / TERMS_FILE
        if terms.is_file():
            shutil.copyfile(terms, folder / TERMS_FILE)
        commit = upload_folder(
            folder, repo_id, tags=tags, private=private, token=token, message=f"{row.id} with hih-align"
        )
    return str(commit.oid)


@app.command("ship")
def ship_command(
    run: Annotated[str, typer.Argument(help="Folder of a run or of a checkpoint.")],
    model: Annotated[str, typer.Option("--as", help="The manifest id that it becomes, such as HIH_S/wflw.")],
    training: Annotated[str, typer.Option(help="Training data, command, duration and machine, in words.")],
) -> None:
    """Make a trained network a checkpoint of the checkout: float16 weights, hash and config in the manifest.

    Then measure its figures: python benchmarks/accuracy.py MODEL --write.
    """
    found = checkpoints.find_checkpoint(run)
    network, settings = checkpoints.load_network(found), checkpoints.load_config(found)
    typer.echo(f"wrote {ship(model, network, settings, training)}")


@app.command("mean")
def mean_command(
    model: Annotated[str, typer.Argument(help="A checkpoint: name or folder.")],
    other: Annotated[str, typer.Argument(help="Another one, which it was trained from: name or folder.")],
    share: Annotated[float, typer.Option(help="Weight of the other one, 0 to 1.")],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
) -> None:
    """Write a checkpoint with the mean weights of two. Calibrate it before its use."""
    mean(model, other, share, out)
    typer.echo(f"wrote {out}")


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="A manifest id, such as HIH_T/300w.")],
    report: Reports = None,
    out: Annotated[Path, typer.Option(help="File to write. - is standard output.")] = Path("-"),
) -> None:
    """Write the model card of a checkpoint, from the manifest and evaluation reports."""
    text = row_card(_manifest_row(model), [path.read_text("utf-8") for path in report or ()])
    with files.replacing(out) as temporary:
        temporary.write_text(text, "utf-8")


@app.command("publish")
def publish_command(
    model: Annotated[str, typer.Argument(help="A manifest id, such as HIH_T/300w.")],
    repo: Annotated[str, typer.Option(help="user/repo on the Hub. It is made if it does not exist.")],
    report: Reports = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag for the commit, such as v0.1.0. Repeatable.")] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Whether a new repository is private.")
    ] = None,
) -> None:
    """Upload a checkpoint to the Hub: weights, config, card, terms and tags. Then the manifest names the repository."""
    row = _manifest_row(model)
    reports = [path.read_text("utf-8") for path in report or ()]
    revision = publish(row, repo, reports=reports, tags=tag or (), private=private)
    path = manifest.record(row.id, repo_id=repo, revision=revision)
    typer.echo(f"{row.id} is at {repo}, revision {revision}; wrote {path}")


def _manifest_row(model: str) -> ManifestRow:
    rows = manifest.read_manifest()
    if model not in rows:
        raise ValueError(f"model is {model!r}, expected one of {list(rows)}")
    return rows[model]


if __name__ == "__main__":
    app()
