"""``hih-align data check``, ``label``, ``harmonize`` and ``pack``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from .options import AnnotatedFaces, Backend, DataFormat, DataScheme, Device, Dtype, Model, commands

app = commands("Look at annotated faces, label, harmonize or pack them.")


@app.command()
def check(
    data: AnnotatedFaces,
    scheme: DataScheme,
    format: DataFormat = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet with the points drawn.")] = None,
    faces: Annotated[int, typer.Option(help="Faces on the contact sheet.")] = 48,
    against: Annotated[
        list[Path] | None, typer.Option(help="Training data that must not share a face with this; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Read annotated faces and report counts, missing points, boxes, outliers and duplicates.

    Exits with 1 where records or images are bad, or faces are shared with other data.
    """
    from ..data.annotations import read_dataset
    from ..data.check import check as check_dataset
    from ..data.check import contact_sheet, shared_faces

    dataset = read_dataset(data, scheme, format=format, skip_bad=True)
    summary = check_dataset(dataset)
    shared = shared_faces([read_dataset(path, scheme, skip_bad=True) for path in against or ()], dataset)
    if as_json:
        typer.echo(json.dumps(summary.to_dict() | {"shared": shared}, indent=2))
    else:
        typer.echo(summary.text())
        if against:
            typer.echo("\n".join([f"shared with other data: {len(shared)}", *(f"  {a} = {b}" for a, b in shared[:10])]))
    if sheet is not None:
        contact_sheet(dataset, sheet, faces=faces, suspects=summary.suspects)
    if summary.unreadable or summary.skipped or shared:
        raise typer.Exit(1)


@app.command()
def label(
    model: Model,
    data: Annotated[Path, typer.Option(help="Faces with machines' labels (a spread per point) or boxes alone.")],
    val: Annotated[Path, typer.Option(help="Hand-labelled faces, which tell what the network's spread is worth.")],
    out: Annotated[Path, typer.Option(help="The COCO file to write.")],
    val_where: Annotated[
        str | None, typer.Option(help="Only validation faces of a split file or condition, as of evaluate.")
    ] = None,
    boxes: Annotated[int, typer.Option(min=1, help="Boxes per face; each is used as it is and mirrored.")] = 2,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
) -> None:
    """Label faces with a network of your own, to train the next one on.

    Machines' labels are averaged with the network's, each by its certainty; points labelled by hand stay.
    """
    from ..aligner import FaceAligner
    from ..data.annotations import read_dataset
    from ..data.readers import coco
    from ..data.relabel import error_ratio, look, relabel
    from ..evaluation.subsets import chosen_by

    aligner = FaceAligner.from_pretrained(model, device=device, dtype=dtype, backend=backend)
    known = read_dataset(val, aligner.scheme)
    known = known if val_where is None else known.where(chosen_by([val_where], known))
    ratio = error_ratio(list(look(aligner, known.records, boxes)), known.records)
    faces = relabel(aligner, read_dataset(data, aligner.scheme), ratio, boxes)
    coco.write(faces, aligner.scheme, out)
    made = sum(face.labels is not None and face.labels.spread is not None for face in faces)
    typer.echo(f"wrote {out}: {made} of {len(faces)} faces labelled; error over spread {ratio:.2f}")


@app.command()
def harmonize(
    model: Annotated[str, typer.Option(help="Size, manifest id, folder or Hub repository: the yardstick.")],
    onto: Annotated[Path, typer.Option(help="Faces labelled in the wanted convention.")],
    data: Annotated[Path, typer.Option(help="Faces whose labels shall move.")],
    out: Annotated[Path, typer.Option(help="The COCO file to write.")],
    like: Annotated[
        Path | None, typer.Option(help="Measure the data's convention on these faces instead, labelled alike.")
    ] = None,
    sample: Annotated[int, typer.Option(min=50, help="Faces to measure a convention on; evenly taken.")] = 600,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
) -> None:
    """Move labels to where another source has the same landmarks, to train on both together.

    How far the sources' labels lie from the points of one network, in the typical face of a pose, tells how far they
    lie apart.
    """
    from ..aligner import FaceAligner
    from ..data.annotations import Record, read_dataset
    from ..data.conventions import harmonized
    from ..data.readers import coco

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
    typer.echo("furthest, in a face seen from the front, % of the mean face's radius:")
    for k in known[far[known].argsort()[::-1][:8]]:
        x, y = 100 * by[0, k]
        typer.echo(f"  {aligner.scheme.names[k]}  {x:+.1f} right  {y:+.1f} down")


@app.command()
def pack(
    data: AnnotatedFaces,
    scheme: DataScheme,
    out: Annotated[Path, typer.Option(help="Folder to be made: annotations.json and images/.")],
    side: Annotated[
        int, typer.Option(min=32, help="Pixels of a face's picture; smaller faces are not enlarged.")
    ] = 256,
    margin: Annotated[float, typer.Option(min=1.0, help="That picture's side over the longer side of the box.")] = 1.8,
    quality: Annotated[int, typer.Option(min=50, max=100, help="Of the JPEGs.")] = 90,
) -> None:
    """Cut the faces out, each into a small JPEG of its own: to take them to another machine, with all their labels."""
    from ..data.annotations import read_dataset
    from ..data.pack import pack as cut

    dataset = read_dataset(data, scheme)
    size = cut(dataset, out, side=side, margin=margin, quality=quality)
    typer.echo(f"wrote {out}: {len(dataset)} faces, {size / 2**20:.1f} MiB")
