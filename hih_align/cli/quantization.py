"""``hih-align quantization``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def quantization(
    data: Annotated[Path, typer.Option(help="Annotation file or folder.")],
    scheme: Annotated[str, typer.Option(help="The data's landmarks: an id such as 'wflw', or a scheme file.")],
    crop_ratio: Annotated[
        float, typer.Option(help="Crop side over the longer side of the tight box of the points.")
    ] = 1.15,
    normalizer: Annotated[str, typer.Option(help="What errors are divided by.")] = "inter-ocular",
    format: Annotated[str | None, typer.Option(help="coco, pts, wflw, cofw or csv; by the name if not given.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw Fig. 4 to this file (needs matplotlib).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """The error of heatmaps themselves on annotated faces: Sec. IV-B, Fig. 4 and Tab. IX "Ideal" of the paper."""
    from ..data.annotations import read_dataset
    from ..training.quantization import plot
    from ..training.quantization import quantization as measure

    result = measure(read_dataset(data, scheme, format=format), crop_ratio, normalizer=normalizer)
    typer.echo(json.dumps(result.to_dict(), indent=2) if as_json else result.markdown())
    if figure is not None:
        plot([result], figure)
