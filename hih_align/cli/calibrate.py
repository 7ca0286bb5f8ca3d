"""`hih-align calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..aligner import FaceAligner
from ..data.annotations import read_dataset
from ..evaluation.calibrate import calibrate as choose
from ..evaluation.calibrate import markdown
from ..evaluation.subsets import chosen_by
from ..hub.checkpoints import save_config
from ..hub.manifest import check_writable
from .options import Device, commands

app = commands()


@app.command()
def calibrate(
    model: Annotated[str, typer.Option(help="The model: a folder, or in a checkout a manifest id.")],
    data: Annotated[Path, typer.Option(help="Validation faces in the model's scheme.")],
    where: Annotated[
        str | None, typer.Option(help="Use only the faces of a split file or condition, as in evaluate.")
    ] = None,
    device: Device = None,
    write: Annotated[bool, typer.Option("--write", help="Store the choice in the model's config.")] = False,
) -> None:
    """Choose decoder, refining passes and score calibration of a model on validation faces."""
    if write:
        check_writable(model)  # raise before the long work
    aligner = FaceAligner.from_pretrained(model, device=device)
    dataset = read_dataset(data, aligner.scheme)
    chosen = choose(aligner, dataset, keep=None if where is None else chosen_by([where], dataset))
    typer.echo(markdown(chosen))
    if write:
        typer.echo(f"wrote {save_config(model, chosen.config)}")
