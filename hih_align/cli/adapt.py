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
    out: Annotated[Path, typer.Option(help="The folder to write the model into.")],
    init: Annotated[str, typer.Option(help="The network: HIH_T/300w, a folder, user/repo.")] = "HIH_T/300w",
    scheme: Annotated[
        str | None, typer.Option(help="Landmarks: 300w, wflw, cofw, or a .json or .yaml file; else the COCO file's.")
    ] = None,
    device: Device = None,
    backend: Backend = "torch",
) -> None:
    """Make a model of your own landmarks from labelled faces, without training, in seconds.

    Each of your landmarks is read from those of the network that follow it. A dozen faces will do where your landmarks
    lie on the network's own, fifty where they lie beside them. The error is measured by cross-validation.
    """
    from ..training.adaptation import adapt as run

    made = run(init, data, scheme=scheme, out=out, device=device, backend=backend)
    typer.echo(made.text())
    typer.echo(f"wrote {out}")
