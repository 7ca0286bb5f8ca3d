"""`readouts`: the decoding methods, on heatmaps whose landmarks are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from hih_align import FaceAligner
from hih_align.crops import square_crop
from hih_align.data.records import Dataset, Labels, Record
from hih_align.method.decoder import Decoder
from hih_align.method.heatmaps import STRIDE, encode
from hih_align.schemes import W300, Scheme
from reproduction.readouts import markdown, reading_errors

SCHEME = Scheme("made", ("a", "b", "c", "d", "e"), normalizers={"inter-ocular": ((0,), (1,))})


class Encoded:
    """A stand-in for an aligner: its heatmaps are the face's encoded labels, shifted by a constant."""

    def __init__(self, dataset: Dataset, moved: tuple[float, float]) -> None:
        self.scheme = dataset.scheme
        self.config = SimpleNamespace(decoder=Decoder("expectation", power=3.0, shift=(0.3, 0.3)), input_size=128)
        self._moved = np.array(moved)

    def heatmaps(self, image: Path, box: Any) -> Any:
        transform = square_crop(np.asarray(box), 1.25, 128)
        points = np.load(image)
        exact = torch.from_numpy(transform.to_crop(points) / STRIDE + self._moved)
        integer, decimal, *_ = encode(exact, (32, 32), 8)
        return SimpleNamespace(integer=integer, decimal=20 * decimal, transform=transform)


def faces(folder: Path, number: int, seed: int) -> Dataset:
    """Faces with 100 px between the eyes; each face's image file holds its points."""
    rng = np.random.default_rng(seed)
    records = []
    for n in range(number):
        points = np.array([[50, 80], [150, 80], [100, 120], [70, 160], [130, 160]]) + rng.uniform(-9, 9, (5, 2))
        points[1] = points[0] + (100, 0)
        np.save(folder / f"{seed}-{n}.npy", points)
        box = np.array([20.0, 30, 190, 210])
        records.append(Record(folder / f"{seed}-{n}.npy", Labels(points, np.ones(5)), {"landmarks": box}, key=str(n)))
    return Dataset("made", SCHEME, tuple(records), folder)


def test_nested_heatmaps_are_more_precise_and_a_constant_offset_is_removed(tmp_path: Path) -> None:
    val, data = faces(tmp_path, 20, 0), faces(tmp_path, 20, 1)
    still, moved = (
        reading_errors(cast(FaceAligner, Encoded(val, offset)), val, data) for offset in ((0.0, 0.0), (2.0, -1.0))
    )
    assert still.heatmap == 32
    pixel = 100 * (1.25 * 180 / 127) * 4 / 100 / 100  # side of a heatmap pixel, relative to the 100 px between the eyes
    assert still.pixel == pytest.approx(100 * pixel, rel=0.02)
    # the mean distance of a uniform point from its pixel's centre is 0.38 pixels: 0.38 heatmap pixels for the integer
    # map, 0.048 for cells of an eighth
    assert still.nme["integer: maximum"] == pytest.approx(0.38 * still.pixel, rel=0.12)
    assert still.nme["nested: maxima (Eq. 4)"] == pytest.approx(0.38 * still.pixel / 8, rel=0.2)
    # an encoded integer heatmap holds the pixel and nothing finer
    assert min(error for way, error in still.nme.items() if way.startswith("integer")) > 0.3 * still.pixel
    for way, error in still.nme.items():
        assert moved.nme[way] == pytest.approx(error, abs=0.01 * still.pixel), way


def test_table_and_other_scheme(tmp_path: Path) -> None:
    val = faces(tmp_path, 3, 0)
    result = reading_errors(cast(FaceAligner, Encoded(val, (0, 0))), val, val)
    table = markdown({"one": result, "two": result}, val, "the command")
    assert "| integer heatmap | 32 x 32 | 32 x 32 |" in table
    assert table.count("\n| ") == 10  # header, rule, two rows for the heatmap, six for the methods
    assert "`the command`" in table
    other = cast(FaceAligner, Encoded(Dataset("other", W300, val.records, tmp_path), (0, 0)))
    with pytest.raises(ValueError, match="scheme 'made', expected '300w'"):
        reading_errors(other, val, val)
