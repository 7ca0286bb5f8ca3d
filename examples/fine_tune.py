"""Your own landmarks, from labelled faces to a measured model: look at the data, adapt, fine-tune, measure, draw.

    pip install ".[examples,train]"
    python examples/fine_tune.py                        # synthetic faces, takes minutes
    python examples/fine_tune.py --train mine.json --val mine_val.json --test mine_test.json --scheme mine-scheme.json

Without your files, the example creates labelled faces in the format of CVAT ("COCO Keypoints 1.0" with images). The
faces are copies of two photographs from packages: Eileen Collins (NASA, scikit-image) and Grace Hopper (US Navy,
matplotlib), both in the public domain. Each copy has another rotation, size, slant and brightness. Its five landmarks
are moved with it. The figures only show that the steps work: a network that learns from two people does not know other
people.

The results are in the folder ``--out``: ``made/`` (the faces), ``adapted/`` and ``tuned/`` (two models), ``run/``
(curve and pictures), ``faces.png`` (the worst faces of the fine-tuned model).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import cv2
import matplotlib.cbook
import numpy as np
import typer
from skimage.data import astronaut

from hih_align import FaceAligner
from hih_align.crops import square_crop, warp
from hih_align.data.annotations import Record, read_dataset
from hih_align.evaluation.evaluate import evaluate
from hih_align.evaluation.normalizers import normalizer_text
from hih_align.images import read_image, write_image
from hih_align.runtime.memory import keep_freed_memory
from hih_align.schemes import get_scheme
from hih_align.training import adapt, fine_tune

FIVE = Path(__file__).with_name("five.json")

#: Labels made by hand: left eye, right eye, nose tip, left and right mouth corner, and the box x1, y1, x2, y2.
COLLINS = ((204, 102), (247, 104), (226, 128), (203, 140), (245, 141)), (177, 80, 275, 200)
HOPPER = ((224, 193), (305, 189), (267, 238), (233, 281), (303, 277)), (168, 157, 354, 332)

#: Side of a synthetic picture and of the face in it, in pixels.
SIDE, FACE = 320, 170


def make_faces(folder: Path, count: int, seed: int) -> Path:
    """Write ``count`` warped copies of the two photographs to a folder, as CVAT exports them. Returns the folder."""
    rng = np.random.default_rng(seed)
    hopper = read_image(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    photographs = ((astronaut(), *COLLINS), (hopper, *HOPPER))
    images_folder, file = folder / "images" / "default", folder / "annotations" / "person_keypoints_default.json"
    for made in (images_folder, file.parent):
        made.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        image, points, box = photographs[number % 2]
        corners = np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]], float)
        turn, size, slant = np.radians(rng.uniform(-25, 25)), rng.uniform(0.85, 1.15), rng.uniform(-0.12, 0.12)
        turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        linear = turned @ np.array([[1, slant], [0, rng.uniform(0.9, 1.1)]]) * size * FACE / (box[2] - box[0])
        middle = linear @ corners.mean(0)
        matrix = np.column_stack((linear, SIDE / 2 + rng.uniform(-20, 20, 2) - middle))
        copy = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)
        lit = np.clip(copy * rng.uniform(0.7, 1.25) + rng.normal(0, 3, copy.shape), 0, 255).astype(np.uint8)
        write_image(images_folder / f"{number}.jpg", lit)
        landmarks = np.array(points) @ matrix[:, :2].T + matrix[:, 2]
        around = corners @ matrix[:, :2].T + matrix[:, 2]
        (x, y), (right, bottom) = around.min(0).tolist(), around.max(0).tolist()
        keypoints = [round(value, 2) for point in landmarks.tolist() for value in (*point, 2)]
        images.append({"id": number, "file_name": f"{number}.jpg", "width": SIDE, "height": SIDE})
        annotation = {"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints}
        annotations.append(annotation | {"bbox": [round(v, 2) for v in (x, y, right - x, bottom - y)]})
    category = {"id": 1, "name": "face", "keypoints": list(get_scheme(FIVE).names)}
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [category]}))
    return folder


def draw(aligner: FaceAligner, record: Record, side: int = 224) -> np.ndarray:
    """A crop of the face with its landmarks."""
    scale = side / square_crop(record.box, 1.4).side
    drawn = aligner.align(record.image, record.box).draw(record.image, scale=scale, size=side / 32)
    return warp(drawn, square_crop(record.box * scale, 1.4, side).matrix, side)


def main(
    train: Annotated[Path | None, typer.Option(help="Training faces. Default: synthetic faces.")] = None,
    val: Annotated[Path | None, typer.Option(help="Validation faces, to choose the best epoch.")] = None,
    test: Annotated[Path | None, typer.Option(help="Test faces, to measure the models.")] = None,
    scheme: Annotated[Path, typer.Option(help="Scheme file of the landmarks.")] = FIVE,
    init: Annotated[str, typer.Option(help="The start network.")] = "HIH_T/300w",
    out: Annotated[Path, typer.Option(help="Folder for the results. It must not contain a run.")] = Path("fine_tuned"),
    epochs: Annotated[int | None, typer.Option(help="Number of epochs. Default: that of the recipe.")] = None,
) -> None:
    """Adapt and fine-tune a network to your own landmarks, and measure both models."""
    keep_freed_memory()  # makes training faster; the program `hih-align` does the same
    if train is None:
        train, val, test = (
            make_faces(out / "made" / name, count, seed)
            for seed, (name, count) in enumerate((("train", 24), ("val", 8), ("test", 16)))
        )
    known = get_scheme(scheme)
    faces = read_dataset(train, known)
    typer.echo(f"{len(faces)} faces with {len(known)} landmarks")

    made = adapt(init, faces, out=out / "adapted")
    typer.echo(made.text())

    begun = time.perf_counter()
    more = {} if epochs is None else {"epochs": epochs}
    tuned = fine_tune(init, faces, None if val is None else read_dataset(val, known), out=out / "run", **more)
    typer.echo(f"fine-tuned in {(time.perf_counter() - begun) / 60:.1f} minutes")
    tuned.save_pretrained(out / "tuned")

    if test is not None:
        unseen = read_dataset(test, known)
        for name, aligner in (("adapted", made.aligner), ("fine-tuned", tuned)):
            report = evaluate(aligner, unseen)
            unit = normalizer_text(report.settings.normalizer)
            typer.echo(f"{name}: NME {report.overall.nme:.2f} % of the {unit}, {len(unseen)} faces")
        write_image(out / "faces.png", np.hstack([draw(tuned, unseen.records[i]) for i in report.worst(4)]))
    loaded = FaceAligner.from_pretrained(out / "tuned")  # as in your own program
    first = faces.records[0]
    typer.echo(f"{out / 'tuned'}: {loaded}; first face: {loaded.align(first.image, first.box)}")


if __name__ == "__main__":
    typer.run(main)
