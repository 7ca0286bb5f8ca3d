"""Measure the NME of faces at any roll: the photographs are rotated, with tight boxes and default settings.

    python benchmarks/roll.py HIH_T/300w --data ../shared/data/300w_val/annotations.json           # validation data
    python benchmarks/roll.py HIH_T/300w HIH_S/300w --data ../shared/data/300w_test_lfpw/annotations.json \
        --out benchmarks/results                                                                   # adds its models

The box is the tight box of the rotated points. Ratios are relative to the same faces upright. Results of other models
in the folder `--out` are kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detection import Face, read_faces
from tables import measured, table, write

from hih_align import FaceAligner
from hih_align.evaluation.metrics import nme
from hih_align.progress import progress_bar

NAME = "roll"

#: Largest allowed ratios to the NME of upright faces: of the mean over all rolls, and of the NME at each roll.
MEAN, EACH = 1.08, 1.15


def by_angle(aligner: FaceAligner, faces: Sequence[Face], step: int, normalizer: str) -> dict[int, float]:
    """Mean NME in percent for each rotation, in degrees clockwise."""
    found = {}
    truth = np.stack([face.points for face in faces])
    norm = aligner.scheme.distance(truth, normalizer)
    for degrees in progress_bar(range(0, 360, step), desc=aligner.config.name, unit="angle"):
        errors = []
        for face, distance in zip(faces, norm, strict=True):
            turned = face.turned(degrees)
            points = aligner.align(turned.image, turned.box).points
            errors.append(float(nme(points[None], turned.points[None], np.array([distance]))[0]))
        found[degrees] = float(np.mean(errors))
    return found


def summary(row: dict[str, Any]) -> list[Any]:
    """The row of a model in the table."""
    upright, values = row["nme"]["0"], np.array([*row["nme"].values()])
    worst = max(row["nme"], key=row["nme"].get)
    ratio, most = float(values.mean() / upright), float(values.max() / upright)
    held = "yes" if ratio <= MEAN and most <= EACH else "no"
    cells = [row["faces"], f"{row['step']}", upright, float(values.mean()), f"{ratio:.3f}", f"{most:.3f}"]
    return [*cells, f"{worst}", held]


def markdown(results: dict[str, Any]) -> list[str]:
    columns = ["model", "faces", "step, degrees", "NME upright", "NME, mean", "over upright"]
    columns += ["at the worst angle", "which", f"mean at most {MEAN:g}, each at most {EACH:g}"]
    lines = table(columns, ([f"`{model}`", *summary(row)] for model, row in results.items()))
    lines += ["", *(f"- {model}, `{row['data']}`: {row['measured']}" for model, row in results.items())]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="manifest ids or folders")
    parser.add_argument("--data", type=Path, required=True, help="annotations, one face per picture")
    parser.add_argument("--where", help="only the faces of a split file, or of a condition such as 'pose==1'")
    parser.add_argument("--faces", type=int, default=36, help="number of faces, spread over the annotations")
    parser.add_argument("--step", type=int, default=15, help="degrees between two rolls")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--out", type=Path, help="folder for roll.json and roll.md")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    if arguments.out is not None and (arguments.out / f"{NAME}.json").is_file():
        results = json.loads((arguments.out / f"{NAME}.json").read_text("utf-8"))
    for model in arguments.models:
        aligner = FaceAligner.from_pretrained(model, backend=arguments.backend)
        faces = read_faces(arguments.data, aligner.scheme, where=arguments.where)
        chosen = [
            faces[i] for i in np.linspace(0, len(faces) - 1, min(arguments.faces, len(faces))).round().astype(int)
        ]
        found = by_angle(aligner, chosen, arguments.step, aligner.scheme.default_normalizer)
        results[model] = {
            "data": arguments.data.parent.name,
            "faces": len(chosen),
            "step": arguments.step,
            "nme": {str(degrees): error for degrees, error in found.items()},
            "measured": measured(),
        }
        write(markdown(results), results, arguments.out, NAME)


if __name__ == "__main__":
    main()
