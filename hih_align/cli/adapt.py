"""``hih-align adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Backend, Device, commands

app = commands()


@app.command()
def adapt(
    data: Annotated[Path, typer.Option(help="Labelled faces: an annotation file or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder to write the model into.")],
    init: Annotated[
        str,
        typer.Option(
            help="The trained model: a manifest id, a folder or a Hub repository. A size (HIH_T) means the published "
            "model of this size that has the lowest error."
        ),
    ] = "HIH_T",
    scheme: Annotated[
        str | None, typer.Option(help="Scheme: 300w, wflw, cofw, or a scheme file. By default the COCO file names it.")
    ] = None,
    device: Device = None,
    backend: Backend = "torch",
) -> None:
    """Make a model of your own landmarks from labelled faces, in seconds and without training.

    Each of your landmarks is computed from landmarks of the trained model. A dozen faces are enough if your landmarks
    lie on landmarks of the model, fifty if they lie beside them. Cross-validation measures the error.
    """
    from ..training.adaptation import adapt as run

    made = run(init, data, scheme=scheme, out=out, device=device, backend=backend)
    typer.echo(made.text())
    typer.echo(f"wrote {out}")
