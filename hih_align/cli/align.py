"""`hih-align align`: the landmarks of one photograph, or of a folder (`folder`)."""

from __future__ import annotations

import json
import os
from collections import deque
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from .. import progress
from ..aligner import FaceAligner
from ..boxes import read_boxes
from ..drawing import Style
from ..files import check_output, replacing
from ..images import format_of, write_image
from . import coco, folder
from .options import (
    Backend,
    BatchSize,
    Colour,
    Contours,
    Decode,
    Device,
    DrawBox,
    DrawLabels,
    DrawScores,
    Dtype,
    LineColour,
    Mirror,
    Model,
    PointSize,
    Refine,
    Thickness,
    commands,
)

app = commands()


class WithBoxes(TyperCommand):
    """A command with the repeatable option ``--bbox x1 y1 x2 y2``.

    typer has no repeatable option of four values. So its four words are joined to one before typer parses them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        words = deque(args)
        while words:
            word = words.popleft()
            if word == "--bbox":
                values: list[str] = []
                while words and len(values) < 4 and not words[0].startswith("--"):
                    values.append(words.popleft())
                word = f"--bbox={' '.join(values)}"
                _bbox(" ".join(values))  # before typer misses the words that it took
            joined.append(word)
        return super().parse_args(ctx, joined)


@app.command(cls=WithBoxes)
def align(
    photo: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    bbox: Annotated[
        list[str] | None,
        typer.Option(metavar="X1 Y1 X2 Y2", help="The box of a face in pixels. Repeat the option for more faces."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(help="A file with the boxes of an image or a folder: COCO JSON, or CSV file,x1,y1,x2,y2."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write the image with the landmarks drawn. For a folder, name a folder. - is stdout."),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option(
            "--json",
            help="Write points and scores. For a folder, and if the name ends in .jsonl, the format is JSON Lines "
            "with one line per face. Else it is a JSON list. - is stdout.",
        ),
    ] = None,
    output: Annotated[
        Literal["json", "coco"],
        typer.Option(
            "--format",
            help="Format of --json. coco: one file with the COCO keypoints of all images, to correct them in CVAT.",
        ),
    ] = "json",
    model: Model = "HIH_T",
    scheme: Annotated[str | None, typer.Option(help="300w, wflw or cofw.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    backend: Backend = "torch",
    decode: Decode = None,
    refine: Refine = None,
    mirror: Mirror = False,
    batch_size: BatchSize = None,
    contours: Contours = True,
    box: DrawBox = False,
    labels: DrawLabels = False,
    scores: DrawScores = False,
    point_size: PointSize = None,
    thickness: Thickness = None,
    colour: Colour = None,
    line_colour: LineColour = "white",
    scale: Annotated[float, typer.Option(help="Factor by which the drawn picture is enlarged.")] = 1.0,
) -> None:
    """Align the faces of an image or of a folder.

    Without --bbox and --boxes, the command detects the faces first. Without --out and --json, it writes JSON Lines to
    the standard output. For a folder it writes each line as soon as the face is aligned. If the file exists, the faces
    in it are not aligned again. Images of a folder that cannot be read are left out; then the exit status is 1.
    """
    if not photo.exists():
        raise FileNotFoundError(f"image: no such file: {photo}")
    style = Style(contours, box, labels, scores, True, point_size, thickness, colour, line_colour)
    if out is None and (style != Style(line_colour="white") or scale != 1):
        raise ValueError("out is missing: the drawing options need --out with the name of the picture")
    if out is not None and out == json_path:
        raise ValueError(f"out and json are both {out}, expected different outputs")
    if output == "coco":
        coco.check(json_path)
    drawing = vars(style) | {"scale": scale}
    given = None
    if photo.is_dir():
        if bbox:
            raise ValueError(f"bbox is given, but {photo} is a folder: expected --boxes with a file of boxes")
        if json_path is not None:
            check_output("json", json_path, boxes)
    else:
        for name, path in (("out", out), ("json", json_path)):
            if path is not None:
                check_output(name, path, photo, boxes)
        if out is not None:
            format_of(out)
        if boxes is not None and bbox:
            raise ValueError(
                "bbox and boxes are both given, expected --bbox x1 y1 x2 y2 for each face, or --boxes FILE"
            )
        given = _of_photo(boxes, photo) if boxes is not None else [_bbox(words) for words in bbox] if bbox else None
    # after the checks above, because it takes the longest
    aligner = FaceAligner.from_pretrained(model, scheme, device, dtype, backend, decode)  # type: ignore[arg-type]
    options = {"refine": refine, "mirror": mirror}
    if photo.is_dir():
        task = (aligner, photo, boxes, out, json_path, batch_size, options, drawing)
        if output == "coco":
            bad = coco.align(*task)
        else:
            _, bad = folder.align(*task)
        if bad:
            raise ValueError(f"{len(bad)} images of {photo} cannot be read and are left out, first {bad[0]}")
        return
    faces = aligner.align(photo, given, **options)  # type: ignore[arg-type]
    if given is None and not faces:
        progress.say(f"{photo}: no face was found")
    if out is not None:
        write_image(out, faces.draw(photo, **drawing))
    if output == "coco":
        assert json_path is not None
        coco.write(json_path, [(photo, faces.points, faces.scores)], aligner.scheme)
        return
    lines = [json.dumps({"file": photo.name, "index": i} | face.to_dict()) for i, face in enumerate(faces)]
    if json_path is not None:
        as_lines = folder.is_json_lines(json_path)
        with replacing(json_path) as temporary:
            text = "".join(f"{line}\n" for line in lines) if as_lines else "[\n" + ",\n".join(lines) + "\n]\n"
            temporary.write_text(text, "utf-8")
    elif out is None:
        for line in lines:
            typer.echo(line)


def _bbox(words: str) -> list[float]:
    try:
        x1, y1, x2, y2 = (float(word) for word in words.replace(",", " ").split())
    except ValueError:
        raise typer.BadParameter(f"{words!r}, expected four numbers x1 y1 x2 y2", param_hint="--bbox") from None
    return [x1, y1, x2, y2]


def _of_photo(boxes: Path, photo: Path) -> Any:
    """The boxes of the name with the most folders that ends the photograph's path: a.jpg, day/a.jpg, /all/day/a.jpg."""
    found = read_boxes(boxes)
    parts = Path(os.path.abspath(photo)).parts  # without following links: a link has boxes under its own name
    names = [name for name in found if (own := Path(name).parts) and parts[-len(own) :] == own]
    if not names:
        raise ValueError(f"boxes: {boxes} has no boxes for {photo}, only for {', '.join(list(found)[:3]) or 'no file'}")
    return found[max(names, key=lambda name: len(Path(name).parts))]
