"""`hih-align convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import commands

app = commands()


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A released checkpoint, such as WFLW.pth.")],
    scheme: Annotated[str, typer.Option(help="Scheme of its landmarks: 300w, wflw, cofw, or a scheme file.")],
    out: Annotated[Path, typer.Option(help="Folder to write: config.json and model.safetensors.")],
    crop_ratio: Annotated[
        float, typer.Option(help="Side of the crop in its training, divided by the longer side of the box.")
    ] = 1.25,
    rounding: Annotated[str, typer.Option(help="How its decimal labels were made: round or floor.")] = "round",
    half: Annotated[bool, typer.Option("--half", help="Store the weights in float16, at half the size.")] = False,
) -> None:
    """Convert a checkpoint of the paper's authors to the format of hih-align."""
    import torch

    from ..hub.checkpoints import save_checkpoint
    from ..hub.config import Config, check_out
    from ..method.decoder import Decoder
    from ..method.released import load_released
    from ..method.sizes import SIZES
    from ..schemes import get_scheme

    check_out(out)
    found = load_released(checkpoint)
    points = get_scheme(scheme)
    if len(points) != found.network.landmarks:
        raise ValueError(
            f"scheme {points.id!r} has {len(points)} landmarks, expected {found.network.landmarks} for {checkpoint}"
        )
    sizes = {size: name for name, size in SIZES.items()}
    config = Config(
        scheme=points,
        stacks=found.network.stacks,
        decimal_size=found.network.decimal_size,
        name=f"{sizes.get(found.network.size._replace(decimal_size=8), checkpoint.stem)}/{points.id}",
        crop_ratio=crop_ratio,
        rounding=rounding,  # type: ignore[arg-type]
        decoder=Decoder(bin_offset=0.5 if rounding == "floor" else 0.0),
    )
    save_checkpoint(out, found.network, config, torch.float16 if half else torch.float32)
    count = sum(p.numel() for p in found.network.parameters())
    best = "" if found.best_nme is None else f", best NME by its authors {found.best_nme:g}"
    typer.echo(
        f"{out}: {config.name}, {found.network.stacks} stacks, {found.network.landmarks} points, decimal size "
        f"{found.network.decimal_size}, {count / 1e6:.2f} M parameters{best}; "
        f"dropped {len(found.dead)} weights that the network never uses"
    )
