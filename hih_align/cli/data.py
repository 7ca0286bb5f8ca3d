"""``hih-align data check``, ``label``, ``harmonize`` and ``pack``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .options import AnnotatedFaces, Backend, DataFormat, DataScheme, Device, Dtype, Model, commands

app = commands("Check, label, harmonize or pack annotated faces.")


@app.command()
def check(
    data: AnnotatedFaces,
    scheme: DataScheme,
    format: DataFormat = None,
    sheet: Annotated[Path | None, typer.Option(help="Image file to write: faces with their landmarks drawn.")] = None,
    faces: Annotated[int, typer.Option(help="Number of faces on the sheet.")] = 48,
    against: Annotated[
        list[Path] | None, typer.Option(help="Training data that must not have a face of this data. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Read annotated faces and report counts, missing landmarks, boxes, outliers and duplicates.

    The exit code is 1 if records or images are bad, if a mistake concerns many faces, or if other data has the same
    faces.
    """
    from .. import files
    from ..data.annotations import read_dataset
    from ..data.check import check as check_dataset
    from ..data.check import contact_sheet, shared_faces, shared_names

    dataset = read_dataset(data, scheme, format=format, skip_bad=True, check_sides=False)
    summary = check_dataset(dataset)
    others = [read_dataset(path, scheme, skip_bad=True, check_sides=False) for path in against or ()]
    shared: tuple[tuple[str, str], ...] = ()
    not_compared = None
    try:
        shared = shared_faces(others, dataset)
    except ValueError as error:  # a photograph cannot be read; the report on the rest is not lost
        not_compared = str(error)
    taken = sheet is not None and files.is_stream(sheet)  # standard output may be the picture
    if as_json:
        typer.echo(
            json.dumps(summary.to_dict() | {"shared": shared, "not_compared": not_compared}, indent=2), err=taken
        )
    else:
        typer.echo(summary.text(), err=taken)
        if not_compared is not None:
            typer.echo(f"not compared with other data: {not_compared}", err=taken)
        elif against:
            lines = [
                f"shared with other data: {len(shared)}",
                *(f"  {line}" for line in shared_names(shared[:10], others, dataset)),
            ]
            typer.echo("\n".join(lines), err=taken)
    if sheet is not None:
        contact_sheet(dataset, sheet, faces=faces, suspects=summary.suspects)
        typer.echo(f"wrote {sheet}", err=True)
    if summary.problems or summary.unreadable or summary.skipped or shared or not_compared is not None:
        raise typer.Exit(1)


@app.command()
def label(
    model: Model,
    data: Annotated[
        Path, typer.Option(help="Faces with machine-made labels (a spread per landmark), or with boxes only.")
    ],
    val: Annotated[
        Path, typer.Option(help="Hand-labelled faces. They give the ratio of the network's error to its spread.")
    ],
    out: Annotated[Path, typer.Option(help="COCO file to write.")],
    val_where: Annotated[
        str | None, typer.Option(help="Use only the validation faces of a split file or condition, as in evaluate.")
    ] = None,
    boxes: Annotated[int, typer.Option(min=1, help="Boxes per face. Each is used unchanged and mirrored.")] = 2,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
) -> None:
    """Label faces with a trained model, as training data for the next model.

    Machine-made labels are averaged with the model's labels, weighted by certainty. Landmarks that a person labelled
    are kept.
    """
    from .. import files
    from ..aligner import FaceAligner
    from ..data.annotations import read_dataset
    from ..data.readers import coco, detect
    from ..data.relabel import error_ratio, look, relabel
    from ..evaluation.subsets import chosen_by

    files.check_output("out", out, *(detect(path)[1] for path in (data, val)))
    aligner = FaceAligner.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    known = read_dataset(val, aligner.scheme)
    known = known if val_where is None else known.where(chosen_by([val_where], known))
    ratio = error_ratio(list(look(aligner, known.records, boxes)), known.records)
    faces = relabel(aligner, read_dataset(data, aligner.scheme), ratio, boxes)
    coco.write(faces, aligner.scheme, out)
    made = sum(face.labels is not None and face.labels.spread is not None for face in faces)
    typer.echo(f"wrote {out}: {made} of {len(faces)} faces labelled; error divided by spread {ratio:.2f}")


@app.command()
def harmonize(
    model: Annotated[
        str,
        typer.Option(help="The model whose points are the reference: a size, a manifest id, a folder or a repository."),
    ],
    onto: Annotated[Path, typer.Option(help="Faces that are labelled in the wanted convention.")],
    data: Annotated[Path, typer.Option(help="Faces whose labels are moved.")],
    out: Annotated[Path, typer.Option(help="COCO file to write.")],
    like: Annotated[
        Path | None,
        typer.Option(help="Other faces of the same convention as --data, on which it is measured instead."),
    ] = None,
    sample: Annotated[int, typer.Option(min=50, help="Number of faces that a convention is measured on.")] = 600,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
) -> None:
    """Move the labels of one source to the label convention of another source, to train on both together.

    Both sources are compared with the points of one model, separately for each pose.
    """
    from .. import files
    from ..aligner import FaceAligner
    from ..data.annotations import Record, read_dataset
    from ..data.conventions import harmonized
    from ..data.readers import coco, detect

    files.check_output("out", out, *(detect(path)[1] for path in (data, onto, like) if path is not None))
    aligner = FaceAligner.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    faces = read_dataset(data, aligner.scheme).records

    def some(records: tuple[Record, ...]) -> tuple[Record, ...]:
        labelled = [record for record in records if record.labels is not None]
        return tuple(labelled[i] for i in np.linspace(0, len(labelled) - 1, min(sample, len(labelled))).astype(int))

    reference = some(read_dataset(onto, aligner.scheme).records)
    own = some(faces if like is None else read_dataset(like, aligner.scheme).records)
    moved, by = harmonized(aligner, reference, own, faces)
    coco.write(moved, aligner.scheme, out)
    far = 100 * np.linalg.norm(by[0], axis=-1)
    known = np.flatnonzero(np.isfinite(far))
    typer.echo(f"wrote {out}: {len(known)} of {len(far)} landmarks of {len(moved)} faces moved")
    typer.echo("largest moves in a frontal face, in % of the radius of the mean face:")
    for k in known[far[known].argsort()[::-1][:8]]:
        x, y = 100 * by[0, k]
        typer.echo(f"  {aligner.scheme.names[k]}  {x:+.1f} right  {y:+.1f} down")


@app.command()
def pack(
    data: AnnotatedFaces,
    scheme: DataScheme,
    out: Annotated[Path, typer.Option(help="Folder to write: annotations.json and images/.")],
    side: Annotated[
        int, typer.Option(min=32, help="Side of a picture in pixels. Smaller faces are not enlarged.")
    ] = 256,
    margin: Annotated[
        float, typer.Option(min=1.0, help="Side of a picture divided by the longer side of the face's box.")
    ] = 1.8,
    quality: Annotated[int, typer.Option(min=50, max=100, help="JPEG quality.")] = 90,
) -> None:
    """Cut each face out into a small JPEG and keep all labels, to train on another machine."""
    from ..data.annotations import read_dataset
    from ..data.pack import pack as cut

    dataset = read_dataset(data, scheme)
    size = cut(dataset, out, side=side, margin=margin, quality=quality)
    typer.echo(f"wrote {out}: {len(dataset)} faces, {size / 2**20:.1f} MiB")
