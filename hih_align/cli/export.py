"""`hih-align export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..aligner import FaceAligner
from ..export import Format
from ..export import export as write_export
from .options import Decode, commands

app = commands()


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Size, manifest id, folder or Hub repository.")],
    out: Annotated[Path, typer.Option(help="Folder to be made.")],
    format: Annotated[Format, typer.Option(help="The runtime: ONNX, OpenVINO, or a torch.export program.")],
    precision: Annotated[
        str, typer.Option(help="fp32, bf16 (openvino, torch), fp16, or int8 (onnx, openvino).")
    ] = "fp32",
    scheme: Annotated[str | None, typer.Option(help="300w, wflw or cofw.")] = None,
    decode: Decode = None,
    data: Annotated[
        Path | None, typer.Option(help="int8: annotations of training faces, on which its ranges are found.")
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(help="int8: annotations of other faces; it is refused when it loses too much on them."),
    ] = None,
) -> None:
    """Write a model for another runtime, decoder included: crops in, points and scores out.

    The folder is a checkpoint, too: with its backend, FaceAligner.from_pretrained runs what was exported.
    """
    aligner = FaceAligner.from_pretrained(model, scheme, "cpu", decode=decode)  # type: ignore[arg-type]
    if precision != "int8" and (data or val):
        raise ValueError(f"data and val are for int8, precision is {precision!r}")
    calibration = validation = None
    if data is not None or val is not None:
        from ..data.annotations import read_dataset

        calibration, validation = (None if path is None else read_dataset(path, aligner.scheme) for path in (data, val))
    made = write_export(aligner, out, format, precision, calibration=calibration, validation=validation)
    if made.before is not None and made.normalizer is not None and validation is not None:
        from ..evaluation.normalizers import normalizer_text

        typer.echo(
            f"NME on {validation.name} in percent of the {normalizer_text(made.normalizer)}: {made.before:.3f} before, "
            f"{made.after:.3f} in int8 ({len(validation)} faces)"
        )
    typer.echo(f"wrote {made.file}")
