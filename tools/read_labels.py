"""For maintainers: write labels of one scheme as labels of another, by the readout of an adapted model.

hih-align adapt --init HIH_B/wflw --data 300w_train --scheme 300w --out runs/b_68
python tools/read_labels.py wflw_like.json --by runs/b_68 --out wflw_like_68.json

The readout computes each landmark from all landmarks of the other scheme. Where some are not labelled, they are first
filled in from the others, as the shapes of the completely labelled faces suggest. A computed landmark is
labelled, and has a spread, as the landmark with the largest weight. The file names photographs relative to its folder.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hih_align.crops import similarity
from hih_align.data.annotations import read_dataset
from hih_align.data.readers import coco
from hih_align.data.records import Labels, stack_labels
from hih_align.hub.checkpoints import find_checkpoint
from hih_align.method.frame import Complex, as_complex

#: A face with fewer labelled landmarks is left out.
ENOUGH = 0.4

#: Added to the variance of each coordinate, in the units of the mean shape, so that rare shapes do not decide.
VARIANCE = 1e-4


def onto(face: Complex, mean: Complex, known: NDArray[np.bool_]) -> tuple[complex, complex]:
    """Factor and shift that map the known points of a face onto the mean shape."""
    (real, _, x), (imaginary, _, y) = similarity(*(np.stack((z.real, z.imag), -1)[known] for z in (face, mean)))
    return complex(real, imaginary), complex(x, y)


def filled(faces: Complex, known: NDArray[np.bool_]) -> Complex:
    """Faces (N, H) whose unknown points are the most probable ones of a normal distribution of shapes."""
    whole = faces[known.all(1)]
    every = np.ones(faces.shape[1], bool)
    mean = whole[0] - whole[0].mean()
    mean = mean / abs(mean).std()
    moved = whole
    for _ in range(5):
        moved = np.array([factor * face + shift for face in whole for factor, shift in [onto(face, mean, every)]])
        mean = moved.mean(0) - moved.mean()
        mean = mean / np.sqrt((abs(mean) ** 2).mean())
    rest = np.concatenate(((moved - mean).real, (moved - mean).imag), 1)
    covariance = rest.T @ rest / len(rest) + VARIANCE * np.eye(rest.shape[1])
    result = faces.copy()
    for face, there in zip(result, known, strict=True):
        if there.all() or there.sum() < 2:
            continue
        factor, shift = onto(face, mean, there)
        off = factor * face + shift - mean
        seen, hidden = np.tile(there, 2), np.tile(~there, 2)
        values = np.concatenate((off.real, off.imag))[seen]
        guess = covariance[np.ix_(hidden, seen)] @ np.linalg.solve(covariance[np.ix_(seen, seen)], values)
        count = int((~there).sum())
        face[~there] = (mean[~there] + guess[:count] + 1j * guess[count:] - shift) / factor
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, help="COCO file with the landmarks of the model's heads")
    parser.add_argument("--by", required=True, help="a model of `hih-align adapt`")
    parser.add_argument("--out", type=Path, required=True, help="COCO file to write")
    options = parser.parse_args()
    config = find_checkpoint(options.by).config
    if config.readout is None:
        raise ValueError(f"by is {options.by!r}, which has no readout: expected a model of `hih-align adapt`")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*mirror")  # nothing is mirrored here
        dataset = read_dataset(options.labels, coco.scheme_of(options.labels))
    labelled, points, weights = stack_labels(dataset.records)
    known = weights > 0
    if known.shape[1] != config.heads:
        raise ValueError(f"labels is {options.labels} with {known.shape[1]} landmarks, expected {config.heads}")
    faces = filled(as_complex(points), known)
    found = config.readout.points(np.stack((faces.real, faces.imag), -1))
    sources = config.readout.sources
    records = []
    for record, new, there in zip(labelled, found, known, strict=True):
        if there.mean() >= ENOUGH:
            assert record.labels is not None
            spread = None if record.labels.spread is None else record.labels.spread[sources]
            labels = Labels(new, record.labels.weights[sources], spread)
            records.append(replace(record, labels=labels))
    coco.write(records, config.scheme, options.out)
    print(f"wrote {options.out}, {len(records)} faces of {len(labelled)}")


if __name__ == "__main__":
    main()
