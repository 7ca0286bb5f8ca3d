"""`hih-align evaluate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..aligner import FaceAligner
from ..data.annotations import read_dataset
from ..evaluation.evaluate import AnyBox
from ..evaluation.evaluate import evaluate as run
from ..evaluation.report import markdown, write_report
from ..evaluation.subsets import chosen_by
from ..method.sizes import SIZES
from .options import Backend, BatchSize, DataFormat, Decode, Device, Dtype, Mirror, Model, Refine, commands

app = commands()


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Annotated faces: COCO JSON, a folder, a WFLW list, COFW .mat or CSV.")],
    model: Model = "HIH_T",
    scheme: Annotated[
        str | None,
        typer.Option(help="Scheme of the data: 300w, wflw, cofw, or a scheme file. By default the model's."),
    ] = None,
    data_format: DataFormat = None,
    box: Annotated[
        AnyBox,
        typer.Option(
            help="The boxes that the model gets. annotated: those of the file; landmarks: tight around the labelled "
            "points; rect: those of the detector in the file; square: squares that include the forehead; jitter: those "
            "of the file, shifted by up to 10 % and scaled by 0.8 to 1.3; detector: none, the faces are found."
        ),
    ] = "annotated",
    subsets: Annotated[
        list[str] | None,
        typer.Option(help="Attributes to report by, such as pose. 'attributes' means all that are 0 or 1."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Use only the faces of a split file (one image name per line), or those with an attribute "
            "('pose==1'). Repeatable; all conditions must hold."
        ),
    ] = None,
    refine: Refine = None,
    mirror: Mirror = False,
    decode: Decode = None,
    normalizer: Annotated[
        str | None,
        typer.Option(
            help="The distance that divides the errors: inter-ocular, inter-pupil, another of the scheme, or box (the "
            "longer side of the annotated box). By default inter-ocular, else the scheme's first, else box."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write: report.json, report.md, ced.png, calibration.png and worst.png."),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, help="Number of faces on worst.png.")] = 16,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
    batch_size: BatchSize = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad records and report them.")] = False,
) -> None:
    """Measure a model on annotated faces: NME, failure rate, AUC and scores. The report is printed as Markdown.

    The data may have another scheme than the model if the model's points can be converted to it (98 to 68 or 29
    points).
    """
    if out is not None and out.exists() and not out.is_dir():
        raise NotADirectoryError(f"out: {out} is a file, expected the name of a folder")
    # a size without a scheme means the data's scheme
    own = scheme if model in SIZES else None
    aligner = FaceAligner.from_pretrained(model, own, device, dtype, backend, decode)  # type: ignore[arg-type]
    dataset = read_dataset(data, scheme or aligner.scheme, format=data_format, skip_bad=skip_bad)
    for message in dataset.skipped:
        typer.echo(f"skipped: {message}", err=True)
    keep = chosen_by(where, dataset) if where else None
    report = run(
        aligner,
        dataset,
        box=box,
        refine=refine,
        mirror=mirror,
        subsets=[name.strip() for names in subsets or () for name in names.split(",")],
        batch_size=batch_size,
        normalizer=normalizer,
        keep=keep,
    )
    typer.echo(markdown(report))
    if out is not None:
        command = shlex.join(["hih-align", *sys.argv[1:]])
        for path in write_report(report, out, worst=worst, command=command):
            typer.echo(f"wrote {path}", err=True)
