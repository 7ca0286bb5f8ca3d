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
    model: Annotated[str, typer.Argument(help="The model: a size, a manifest id, a folder or a Hub repository.")],
    out: Annotated[Path, typer.Option(help="Folder to write. It must not exist yet, or must be empty.")],
    format: Annotated[Format, typer.Option(help="The runtime: ONNX, OpenVINO, or a torch.export program.")],
    precision: Annotated[
        str, typer.Option(help="Precision: auto, fp32, bf16 (openvino, torch), fp16, or int8 (onnx, openvino).")
    ] = "fp32",
    scheme: Annotated[str | None, typer.Option(help="Scheme: 300w, wflw or cofw.")] = None,
    decode: Decode = None,
    data: Annotated[
        Path | None, typer.Option(help="For int8: annotated training faces, which give the value ranges.")
    ] = None,
    val: Annotated[
        Path | None,
        typer.Option(help="For int8: other annotated faces. If int8 loses too much accuracy on them, it is refused."),
    ] = None,
) -> None:
    """Export a model for another runtime, with its decoder. The input is crops, the output points and scores.

    The folder is also a checkpoint: FaceAligner.from_pretrained(FOLDER, backend=...) runs the exported file.
    """
    aligner = FaceAligner.from_pretrained(model, scheme, "cpu", decode=decode)  # type: ignore[arg-type]
    if precision != "int8" and (data or val):
        raise ValueError(f"precision is {precision!r}, but data and val are only for int8")
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
    typer.echo(f"wrote {made.file} ({made.precision})")
