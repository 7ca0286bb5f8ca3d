"""Measure the gain of nested heatmaps at the heatmap size of a trained network: it is decoded in several ways.

    python -m reproduction.readouts HIH_N/300w HIH_T/300w --val ../shared/data/300w_val/annotations.json \
        --data ../shared/data/300w_test_lfpw/annotations.json --out reports/readouts.md

Each way of reading sees the same heatmaps of the same faces (annotated boxes, one pass). Each gets its own constant
offset, which removes its mean error on the validation faces: so no way profits from the offset of another one.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from hih_align import FaceAligner
from hih_align.data.annotations import read_dataset
from hih_align.data.boxes import face_boxes
from hih_align.data.records import Dataset, stack_labels
from hih_align.evaluation.metrics import nme
from hih_align.evaluation.normalizers import normalizer_text
from hih_align.files import replacing
from hih_align.method.decoder import ARGMAX, Decoder
from hih_align.method.heatmaps import STRIDE, centroid, decode, peak
from hih_align.progress import progress_bar

from .rivals import dark, second_maximal

#: A way of reading: integer (K, h, w) and decimal (K, n, n) heatmaps to (K, 2) landmarks in heatmap pixels.
Reading = Callable[[Tensor, Tensor], Tensor]


def readings(decoder: Decoder) -> dict[str, Reading]:
    """The ways of reading, by name; ``decoder`` is the expectation decoder of the network."""
    plain = replace(decoder, shift=(0.0, 0.0))
    return {
        "integer: maximum": lambda integer, decimal: peak(integer),
        "integer: second-maximal shift": lambda integer, decimal: second_maximal(integer),
        "integer: DARK": lambda integer, decimal: dark(integer),
        "integer: centroid": lambda integer, decimal: centroid(integer, plain.radius, plain.power),
        "nested: maxima (Eq. 4)": lambda integer, decimal: decode(integer, decimal, ARGMAX),
        "nested: expectation": lambda integer, decimal: decode(integer, decimal, plain),
    }


@dataclass(frozen=True)
class Errors:
    """Errors of one network on one data set.

    Attributes:
        heatmap: side of its integer heatmaps, pixels.
        pixel: side of a heatmap pixel, percent of the normalizer, median of the faces.
        nme: mean NME in percent, by the name of the way of reading.
    """

    heatmap: int
    pixel: float
    nme: Mapping[str, float]


def read_heatmaps(
    aligner: FaceAligner, dataset: Dataset, ways: Mapping[str, Reading]
) -> dict[str, NDArray[np.float64]]:
    """(N, K, 2) landmarks in heatmap pixels by each way, and the labels as "truth". NaN without a label."""
    records, points, weights = stack_labels([record for record in dataset.records if record.labels is not None])
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in (*ways, "truth")}
    boxes = face_boxes(records, "annotated")
    truth = np.where((weights > 0)[..., None], points, np.nan)
    for record, box, true in zip(progress_bar(records, unit="face", leave=False), boxes, truth, strict=True):
        maps = aligner.heatmaps(record.image, box)
        integer, decimal = torch.as_tensor(maps.integer), torch.as_tensor(maps.decimal)
        for name, way in ways.items():
            found[name].append(way(integer, decimal).double().numpy())
        found["truth"].append(maps.transform.to_crop(true) / STRIDE)
    return {name: np.stack(values) for name, values in found.items()}


def reading_errors(aligner: FaceAligner, val: Dataset, data: Dataset) -> Errors:
    """Measure every way of decoding on ``data``. Each way gets a constant offset, which is measured on ``val``.

    Raises:
        ValueError: a data set of another scheme than the aligner's.
    """
    for dataset in (val, data):
        if dataset.scheme.id != aligner.scheme.id:
            raise ValueError(
                f"dataset {dataset.name!r} has scheme {dataset.scheme.id!r}, expected {aligner.scheme.id!r}"
            )
    ways = readings(aligner.config.decoder)
    chosen, measured = read_heatmaps(aligner, val, ways), read_heatmaps(aligner, data, ways)
    distance = data.scheme.distance(measured["truth"], data.scheme.default_normalizer)
    labelled = np.isfinite(measured["truth"]).all(-1)
    truth = np.nan_to_num(measured["truth"])
    errors = {}
    for name in ways:
        offset = np.nanmean(chosen["truth"] - chosen[name], axis=(0, 1))
        errors[name] = float(np.nanmean(nme(measured[name] + offset, truth, distance, labelled)))
    return Errors(aligner.config.input_size // STRIDE, float(100 / np.nanmedian(distance)), errors)


def markdown(results: Mapping[str, Errors], data: Dataset, command: str) -> str:
    """A table with a row for each way of reading and a column for each network."""
    names = list(results)
    unit = normalizer_text(data.scheme.default_normalizer)
    lines = [
        "# One network, read in several ways",
        "",
        f"`{command}`, {date.today()}. {data.name}: annotated boxes, one pass, NME in percent of the {unit}. Each way "
        "has its own constant offset, fitted on the validation faces.",
        "",
        "| | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
        "| integer heatmap | " + " | ".join(f"{r.heatmap} x {r.heatmap}" for r in results.values()) + " |",
        f"| side of a heatmap pixel, percent of the {unit} | "
        + " | ".join(f"{r.pixel:.2f}" for r in results.values())
        + " |",
    ]
    for way in next(iter(results.values())).nme:
        lines.append(f"| {way} | " + " | ".join(f"{r.nme[way]:.2f}" for r in results.values()) + " |")
    return "\n".join([*lines, ""])


def main(
    models: Annotated[list[str], typer.Argument(help="Sizes, manifest ids or folders, all of one scheme.")],
    val: Annotated[Path, typer.Option(help="Faces on which the constant offsets are fitted.")],
    data: Annotated[Path, typer.Option(help="Faces that are measured.")],
    out: Annotated[Path | None, typer.Option(help="Write the table here; it is printed in any case.")] = None,
) -> None:
    """The gain of the decimal heatmap over the integer heatmap, at the heatmap size of each network."""
    results = {}
    for model in models:
        aligner = FaceAligner.from_pretrained(model)
        scheme = aligner.scheme
        results[model] = reading_errors(aligner, read_dataset(val, scheme), read_dataset(data, scheme))
    command = shlex.join(["python", "-m", "reproduction.readouts", *sys.argv[1:]])
    table = markdown(results, read_dataset(data, scheme), command)
    typer.echo(table)
    if out is not None:
        with replacing(out) as temporary:
            temporary.write_text(table, "utf-8")


if __name__ == "__main__":
    typer.run(main)
