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
    model: Annotated[str, typer.Option(help="Manifest id of a checkout, or a folder.")],
    data: Annotated[Path, typer.Option(help="Validation faces, in the model's scheme.")],
    where: Annotated[str | None, typer.Option(help="Only faces of a split file or condition, as of evaluate.")] = None,
    device: Device = None,
    write: Annotated[bool, typer.Option("--write", help="Store what was chosen in the model's config.")] = False,
) -> None:
    """Choose a network's decoder, refining passes and score calibration on validation faces."""
    if write:
        check_writable(model)  # before the work
    aligner = FaceAligner.from_pretrained(model, device=device)
    dataset = read_dataset(data, aligner.scheme)
    chosen = choose(aligner, dataset, keep=None if where is None else chosen_by([where], dataset))
    typer.echo(markdown(chosen))
    if write:
        typer.echo(f"wrote {save_config(model, chosen.config)}")
