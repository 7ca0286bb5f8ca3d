"""`hih-align evaluate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..aligner import FaceAligner
from ..data.annotations import read_dataset
from ..data.boxes import Box
from ..evaluation.evaluate import evaluate as run
from ..evaluation.report import markdown, write_report
from ..evaluation.subsets import chosen_by
from ..method.network import SIZES
from .options import Backend, DataFormat, Decode, Device, Dtype, Mirror, Model, Refine, commands

app = commands()


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="Annotations: COCO JSON, a folder, a WFLW list, COFW .mat or CSV.")],
    model: Model = "HIH_T",
    scheme: Annotated[
        str | None,
        typer.Option(help="The data's landmarks: 300w, wflw, cofw, or a JSON/YAML file; by default the model's."),
    ] = None,
    data_format: DataFormat = None,
    box: Annotated[
        Box,
        typer.Option(
            help="Boxes given to the model: the file's; around the labelled points; a detector's in the file; squares "
            "that take in the forehead; the file's, shifted by up to 10 % and scaled by 0.8 to 1.3."
        ),
    ] = "annotated",
    subsets: Annotated[
        list[str] | None,
        typer.Option(help="Report by an attribute, such as attributes.pose; 'attributes' for all that are 0 or 1."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only the faces of a split file (an image's name a line), or such as 'pose==1'; all must hold."
        ),
    ] = None,
    refine: Refine = None,
    mirror: Mirror = False,
    decode: Decode = None,
    normalizer: Annotated[
        str | None,
        typer.Option(
            help="inter-ocular, inter-pupil, or what the scheme names; box: the longer side of the annotated box. By "
            "default inter-ocular, else the scheme's first, else box."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json, report.md, ced.png, calibration.png and worst.png.")
    ] = None,
    worst: Annotated[int, typer.Option(min=1, help="Faces on worst.png.")] = 16,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
    batch_size: Annotated[
        int | None,
        typer.Option(help="Most faces that go through the network together.", show_default="32, on a GPU 512"),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out, and say so.")] = False,
) -> None:
    """Measure a model on annotated faces: NME, failure rate, AUC, scores.

    Prints Markdown. Data in another scheme than the model's are measured where the model's points convert to it
    (98 -> 68, 98 -> 29).
    """
    # a bare size has no scheme of its own: it means the data's
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
