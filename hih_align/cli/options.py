"""Options that several commands have, and how a command is declared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Option(help="Size, manifest id, folder or Hub repository.")]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:1; CUDA where there is one.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto.")]
Backend = Annotated[str, typer.Option(help="torch, openvino, onnxruntime or auto.")]
Decode = Annotated[str | None, typer.Option(help="expectation or argmax; by default the model's.")]
Refine = Annotated[int | None, typer.Option(help="Refining passes; by default the model's.")]
Mirror = Annotated[bool, typer.Option("--mirror", help="Average with the mirrored face.")]
DataFormat = Annotated[
    str | None, typer.Option("--format", help="coco, pts, wflw, cofw or csv; by the name if not given.")
]
DataScheme = Annotated[str, typer.Option(help="The data's landmarks: an id such as 'wflw', or a scheme file.")]
AnnotatedFaces = Annotated[Path, typer.Argument(help="Annotation file or folder.")]


def commands(help: str | None = None) -> typer.Typer:
    """What a module of a command, or of several below one name, registers them with."""
    return typer.Typer(help=help, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
