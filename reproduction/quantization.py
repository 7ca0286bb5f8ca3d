"""The quantization error of heatmaps, without a network (Sec. IV-B, Fig. 4, Tab. IX "Ideal").

Annotated landmarks are encoded, decoded and compared with themselves. No image is read:

    python -m reproduction.quantization --data ../shared/data/wflw_dev --scheme wflw
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray

from hih_align.crops import CROP_SIZE, square_crop, tight_box
from hih_align.data.annotations import read_dataset
from hih_align.data.records import Dataset, stack_labels
from hih_align.evaluation.metrics import nme
from hih_align.evaluation.normalizers import normalizer_text
from hih_align.files import replacing
from hih_align.method.decoder import ARGMAX, STRIDE
from hih_align.method.heatmaps import decode, encode

from .paper import FIGURE_4, IDEAL


@dataclass(frozen=True)
class Representation:
    """The result for one representation.

    ``decimal_size``: 0 means integer heatmaps only, rounded to the nearest pixel. ``nme``: mean in percent. ``paper``:
    the paper's figure, or None. ``share``: the error in percent of published errors, by name.
    """

    decimal_size: int
    nme: float
    paper: float | None
    share: Mapping[str, float]


@dataclass(frozen=True)
class Quantization:
    """The quantization errors of a data set.

    Attributes:
        name, scheme: name and scheme id of the data set.
        faces: number of measured faces. Faces that lack a landmark of the normalizer are not measured.
        crop_ratio: side of the crop divided by the longer side of the tight box of the points.
        normalizer: the distance that divides errors: one of the scheme, or "box", the longer side of the tight box.
        masked: number of landmarks that were left out because they lie outside the crop.
        rows: integer heatmaps only, then one row per decimal size.
    """

    name: str
    scheme: str
    faces: int
    crop_ratio: float
    normalizer: str
    masked: int
    rows: tuple[Representation, ...]

    def to_dict(self) -> dict[str, Any]:
        """The result as a dictionary for JSON."""
        return asdict(self)

    def markdown(self) -> str:
        """The result as a table like Tab. IX, with the shares of Fig. 4."""
        names = list(self.rows[0].share)
        head = ["decimal heatmap", "NME", "paper", *(f"share of {n} ({FIGURE_4[self.scheme][n]:.2f})" for n in names)]
        lines = [" | ".join(head), " | ".join("---" for _ in head)]
        for row in self.rows:
            label = f"{row.decimal_size}x{row.decimal_size}" if row.decimal_size else "none"
            paper = "" if row.paper is None else f"{row.paper:.3f}"
            lines.append(" | ".join([label, f"{row.nme:.3f}", paper, *(f"{row.share[n]:.1f} %" for n in names)]))
        unit = normalizer_text(self.normalizer)
        title = f"{self.name}: {self.faces} faces, crop ratio {self.crop_ratio:g}, NME in percent of the {unit}"
        return "\n".join([title, "", *(f"| {line} |" for line in lines)])


def quantization_error(
    dataset: Dataset,
    crop_ratio: float = 1.15,
    decimal_sizes: Sequence[int] = (4, 8, 16),
    normalizer: str | None = None,
) -> Quantization:
    """Measure the quantization error of integer heatmaps alone and of nested heatmaps.

    Args:
        dataset: the annotations. No image is read.
        crop_ratio: side of the crop divided by the longer side of the tight box of the points. The paper does not give
            its value; about 1.15 reproduces its figures on WFLW.
        decimal_sizes: sides of the decimal heatmaps, out of 4, 8, 16.
        normalizer: a normalizer of the scheme, or "box" for the longer side of the tight box. None:
            `Scheme.default_normalizer`.

    Heatmap pixels are crop pixels divided by `decoder.STRIDE`. Integer heatmaps alone give the nearest pixel. Nested
    heatmaps go through `heatmaps.encode` and `heatmaps.decode` (integer floored, decimal rounded).

    Raises:
        ValueError: the ratio is not positive, the scheme lacks the normalizer, or no face can be measured.
    """
    if not crop_ratio > 0:
        raise ValueError(f"crop_ratio is {crop_ratio}, expected a positive number")
    known = [r for r in dataset.records if "landmarks" in r.boxes]
    if not known:
        raise ValueError(f"dataset: {dataset.source} holds no faces with points")
    known, points, weights = stack_labels(known)
    labelled = weights > 0
    points = np.where(labelled[..., None], points, np.nan)
    normalizer = dataset.scheme.default_normalizer if normalizer is None else normalizer
    boxes = np.stack([tight_box(p[known_]) for p, known_ in zip(points, labelled, strict=True)])
    if normalizer == "box":
        distance = (boxes[:, 2:] - boxes[:, :2]).max(-1)
    else:
        distance = dataset.scheme.distance(points, normalizer)
    measurable = np.isfinite(distance)
    if not measurable.any():
        raise ValueError(f"dataset: {dataset.source} holds no face with all landmarks of {normalizer!r} labelled")
    points, labelled, distance = points[measurable], labelled[measurable], distance[measurable]
    crops = [square_crop(box, crop_ratio) for box in boxes[measurable]]
    exact = np.stack([crop.to_crop(p) for crop, p in zip(crops, points, strict=True)]) / STRIDE
    inside = labelled & ((exact >= 0) & (exact < CROP_SIZE // STRIDE)).all(-1)

    def error(found: NDArray[np.float64]) -> float:
        image = np.stack([crop.to_image(f * STRIDE) for crop, f in zip(crops, found, strict=True)])
        return float(np.nanmean(nme(image, points, distance, inside)))

    errors = {0: error(np.floor(exact + 0.5))}
    for size in decimal_sizes:
        errors[size] = error(_there_and_back(exact, size))
    published = FIGURE_4.get(dataset.scheme.id, {}) if normalizer == "inter-ocular" else {}
    paper = IDEAL.get(dataset.scheme.id, {}) if normalizer == "inter-ocular" else {}
    rows = tuple(
        Representation(size, value, paper.get(size), {name: 100 * value / whole for name, whole in published.items()})
        for size, value in errors.items()
    )
    masked = int((labelled & ~inside).sum())
    return Quantization(dataset.name, dataset.scheme.id, len(points), crop_ratio, normalizer, masked, rows)


def _there_and_back(exact: NDArray[np.float64], decimal_size: int) -> NDArray[np.float64]:
    # a shift by whole pixels only shifts the integer heatmap, so 3 x 3 of its 64 x 64 pixels give the same, faster
    whole = np.floor(exact) - 1
    encoded = encode(torch.from_numpy(exact - whole), (3, 3), decimal_size)
    return whole + decode(encoded.integer, encoded.decimal, ARGMAX).double().numpy()


def plot(results: Sequence[Quantization], path: str | os.PathLike[str]) -> None:
    """Draw Fig. 4: for each data set the published error, and the part of it that integer heatmaps explain.

    It needs matplotlib. Data sets without published figures are drawn without them.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.6 + 1.5 * len(results), 4), layout="constrained")
    axes = figure.subplots()
    for n, result in enumerate(results):
        ours = result.rows[0].nme
        whole = FIGURE_4.get(result.scheme, {}).get("SOTA", ours)
        axes.bar(n, ours, color="tab:blue", label=None if n else "quantization")
        axes.bar(n, max(whole - ours, 0), bottom=ours, color="tab:orange", label=None if n else "rest of ADNet / SLPT")
        axes.annotate(f"{ours:.3f}", (n, ours / 2), ha="center", va="center", color="white")
    axes.set_xticks(range(len(results)), [f"{result.name}\n{result.faces} faces" for result in results])
    units = sorted({normalizer_text(result.normalizer) for result in results})
    axes.set_ylabel(f"NME in percent of the {' or '.join(units)}")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=temporary.suffix.lstrip(".") or "png")


def main(
    data: Annotated[Path, typer.Option(help="Annotation file or folder.")],
    scheme: Annotated[str, typer.Option(help="Scheme of the data: an id such as 'wflw', or a scheme file.")],
    crop_ratio: Annotated[
        float, typer.Option(help="Side of the crop divided by the longer side of the tight box of the points.")
    ] = 1.15,
    normalizer: Annotated[
        str | None, typer.Option(help="The distance that divides errors. By default as in evaluate.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="coco, pts, wflw, cofw or csv. By default it follows from the file name.")
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw Fig. 4 to this file (needs matplotlib).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure the quantization error of heatmaps on annotated faces (Sec. IV-B, Fig. 4, Tab. IX "Ideal")."""
    result = quantization_error(read_dataset(data, scheme, format=format), crop_ratio, normalizer=normalizer)
    typer.echo(json.dumps(result.to_dict(), indent=2) if as_json else result.markdown())
    if figure is not None:
        plot([result], figure)


if __name__ == "__main__":
    typer.run(main)
