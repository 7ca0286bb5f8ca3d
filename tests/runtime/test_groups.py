"""On a CPU, small networks run several faces together, in groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align import FaceAligner
from hih_align.method.sizes import SIZES, Size
from hih_align.runtime.backend import Found, Grouped, faces_at_once


class Counted(Grouped):
    """A runtime whose points and score for a crop are the crop's first pixel."""

    name, dtype = "onnxruntime", "float32"

    def __init__(self, group: int) -> None:
        self.group = group
        self.seen: list[int] = []

    def run(self, crops: NDArray[np.uint8]) -> Found:
        self.seen.append(len(crops))
        first = crops[:, 0, 0].astype(np.float32)
        return first[:, None, :2], first[:, :1]


@pytest.mark.parametrize(
    ("count", "group", "expected"),
    [(1, 4, [1]), (4, 4, [4]), (10, 4, [4, 4, 1, 1]), (3, 4, [1, 1, 1]), (3, 1, [1, 1, 1]), (8, 4, [4, 4])],
)
def test_groups_and_the_remaining_faces(count: int, group: int, expected: list[int]) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (count, 2, 2, 3), np.uint8)
    backend = Counted(group)
    points, scores = backend(crops)
    assert backend.seen == expected
    np.testing.assert_array_equal(points, crops[:, :1, 0, :2])
    np.testing.assert_array_equal(scores, crops[:, 0, 0, :1])


def test_small_networks_run_several_faces_together() -> None:
    assert {name: faces_at_once(size) for name, size in SIZES.items()} == {
        "HIH_N": 4,
        "HIH_T": 1,
        "HIH_S": 1,
        "HIH_B": 1,
    }
    assert faces_at_once(Size(1, width=4.0, input_size=512)) == 1


def test_other_faces_in_a_batch_do_not_change_the_points(astronaut: NDArray[np.uint8]) -> None:
    aligner: Any = FaceAligner.from_pretrained("HIH_N/300w", device="cpu")
    boxes = np.array([(177.0, 80, 275, 200)]) + np.arange(5)[:, None] * (2, 1, 2, 1)
    together = aligner.align(astronaut, boxes)
    for box, points in zip(boxes, together.points, strict=True):
        np.testing.assert_allclose(points, aligner.align(astronaut, box).points, atol=5e-3)
