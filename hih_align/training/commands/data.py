"""``hih-align data check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def check(
    data: Annotated[Path, typer.Argument(help="Annotation file or folder.")],
    scheme: Annotated[str, typer.Option(help="The data's landmarks: an id such as 'wflw', or a scheme file.")],
    format: Annotated[str | None, typer.Option(help="coco, pts, wflw, cofw or csv; by the name if not given.")] = None,
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
    from ..annotations import read_dataset
    from ..check import check as check_dataset
    from ..check import contact_sheet, shared_faces

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
