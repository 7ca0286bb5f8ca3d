"""Teach HIH_T five points of your own from 50 labelled faces, on a CPU in minutes, and see what the start weights gave.

    python examples/fine_tune.py --faces ../shared/data/300w_train/annotations.json \
        --test ../shared/data/300w_test_lfpw/annotations.json              (needs the extra [train])

Your own points would come from a COCO file of yours: ``fine_tune("HIH_T/300w", "mine.json", scheme="five.json")``. Here
the five (five.json: eye centres, nose tip, mouth corners) are made from the 68 of two COCO files. Two networks are
trained on the same 50 faces, in the same order, for the same number of steps: one from HIH_T/300w, one from random
weights. The errors of both go to the screen, faces with the points of the first to fine_tune.png.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from hih_align import FaceAligner
from hih_align.crops import square_crop, warp
from hih_align.data.annotations import Dataset, Labels, read_dataset
from hih_align.evaluation.evaluate import evaluate
from hih_align.images import write_image
from hih_align.runtime.memory import keep_freed_memory
from hih_align.schemes import W300, get_scheme
from hih_align.training import Source, train
from hih_align.training.finetune import fine_tune
from hih_align.training.recipe import load_recipe

SCHEME = get_scheme(Path(__file__).with_name("five.json"))


def five_points(dataset: Dataset, count: int | None = None) -> Dataset:
    """Every face, or ``count`` of them evenly spread, with the five points in place of the 68."""
    chosen = np.arange(len(dataset)) if count is None else np.linspace(0, len(dataset) - 1, count).round().astype(int)
    records = []
    for record in (dataset.records[i] for i in chosen):
        points = np.stack([record.labels.points[list(group)].mean(0) for group in W300.five])
        records.append(replace(record, labels=Labels(points, np.ones(5))))
    return replace(dataset, scheme=SCHEME, records=tuple(records))


def sheet(aligner: FaceAligner, dataset: Dataset, columns: int = 4, side: int = 224) -> np.ndarray:
    """The first faces with their points."""
    cells = []
    for record in dataset.records[: 2 * columns]:
        scale = side / square_crop(record.box, 1.4).side
        drawn = aligner.align(record.image, record.box).draw(record.image, scale=scale)
        cells.append(warp(drawn, square_crop(record.box * scale, 1.4, side).matrix, side))
    return np.concatenate([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def main(
    faces: Annotated[Path, typer.Option(help="COCO file of 68 points to train on.")],
    test: Annotated[Path, typer.Option(help="COCO file of 68 points to measure on.")],
    count: Annotated[int, typer.Option(help="Faces to train on.")] = 50,
    epochs: Annotated[int, typer.Option(help="Passes over them.")] = 30,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("fine_tune.png"),
) -> None:
    """Fine-tune, train from scratch, measure both."""
    keep_freed_memory()  # as the program `hih-align` does: training is faster
    labelled = five_points(read_dataset(faces, "300w"), count)
    unseen = five_points(read_dataset(test, "300w"))

    begun = time.perf_counter()
    tuned = fine_tune("HIH_T/300w", labelled, scheme=SCHEME, epochs=epochs)
    minutes = (time.perf_counter() - begun) / 60
    with tempfile.TemporaryDirectory() as folder:
        train(load_recipe("finetune", "T", {"epochs": epochs}), [Source(labelled)], folder)
        scratch = FaceAligner.from_pretrained(str(Path(folder, "best")))

    for name, aligner in (("from HIH_T/300w", tuned), ("from random weights", scratch)):
        report = evaluate(aligner, unseen, normalizer="inter-pupil")
        typer.echo(f"{name}: NME {report.overall.nme:.2f} % of the distance of the eye centres, {len(unseen)} faces")
    typer.echo(f"{len(labelled)} faces, {epochs} epochs, {minutes:.1f} minutes to fine-tune")
    write_image(out, sheet(tuned, unseen))


if __name__ == "__main__":
    typer.run(main)
