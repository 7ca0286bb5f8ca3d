"""Options that several commands share, and `commands`, which declares a command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

#: The exit code of an interrupted command, as shells have it.
INTERRUPTED = 130

Model = Annotated[str, typer.Option(help="The model: a size, a manifest id, a folder or a Hub repository.")]
Device = Annotated[str | None, typer.Option(help="Device, such as cpu or cuda:1. By default a GPU if there is one.")]
Dtype = Annotated[str | None, typer.Option(help="Precision: float32, bfloat16, float16 or auto.")]
Backend = Annotated[str, typer.Option(help="Runtime: torch, openvino, onnxruntime or auto.")]
Decode = Annotated[str | None, typer.Option(help="Decoder: expectation or argmax. By default the model's.")]
Refine = Annotated[int | None, typer.Option(help="Number of refining passes. By default the model's.")]
Mirror = Annotated[bool, typer.Option("--mirror", help="Average with the result of the mirrored face.")]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Largest number of faces that go through the network together.", show_default="32, on a GPU 512"),
]
Contours = Annotated[bool, typer.Option(help="Draw the lines between points.")]
DrawBox = Annotated[bool, typer.Option(help="Draw the bounding boxes.")]
DrawLabels = Annotated[bool, typer.Option("--labels", help="Write each landmark's index beside it.")]
DrawScores = Annotated[bool, typer.Option("--scores", help="Write each face's score above its box.")]
PointSize = Annotated[
    float | None,
    typer.Option(help="Diameter of drawn points in pixels. By default it depends on the size of the face."),
]
Thickness = Annotated[
    float | None, typer.Option(help="Width of drawn lines in pixels. By default it depends on the size of the face.")
]
Colour = Annotated[
    str | None, typer.Option(help="Colour of points, such as lime or #rrggbb. By default green to red, by score.")
]
LineColour = Annotated[str, typer.Option(help="Colour of lines, boxes and text.")]
DataFormat = Annotated[
    str | None,
    typer.Option("--format", help="Format: coco, pts, wflw, cofw or csv. By default it follows from the file name."),
]
DataScheme = Annotated[str, typer.Option(help="Scheme of the data: an id such as 'wflw', or a scheme file.")]
AnnotatedFaces = Annotated[Path, typer.Argument(help="Annotation file or folder.")]


def commands(help: str | None = None) -> typer.Typer:
    """The typer object of a command's module. ``help`` is for a module with several commands below one name."""
    return typer.Typer(help=help, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def parse_source(text: str) -> tuple[str, float]:
    """Split ``PATH`` or ``PATH:WEIGHT``. A colon without a number behind it is a part of the path."""
    path, separator, weight = text.rpartition(":")
    if separator and not Path(text).exists():
        try:
            return path, float(weight)
        except ValueError:
            pass
    return text, 1.0
