"""On a CPU, small networks run several faces together, in groups."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hih_align import FaceAligner
from hih_align.crops import square_crop, warp
from hih_align.method.sizes import SIZES, Size
from hih_align.runtime import backend
from hih_align.runtime.backend import Found, Grouped, Photograph, cut_faces, faces_at_once


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
    runtime = Counted(group)
    points, scores = runtime(crops)
    assert runtime.seen == expected
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


@pytest.mark.parametrize(("count", "threads", "used"), [(1, 4, 1), (15, 4, 1), (16, 4, 2), (50, 4, 4), (50, 1, 1)])
def test_threads_cut_many_faces(
    monkeypatch: pytest.MonkeyPatch, astronaut: NDArray[np.uint8], count: int, threads: int, used: int
) -> None:
    seen = set()
    together = threading.Barrier(used, timeout=60)  # no thread is done before all have begun

    def watched(*arguments: Any, **options: Any) -> Any:
        if (name := threading.current_thread().name) not in seen:
            seen.add(name)
            together.wait()
        return warp(*arguments, **options)

    random = np.random.default_rng(0)
    corners = random.uniform(-50, 450, (count, 2))
    boxes = np.hstack((corners, corners + random.uniform(20, 200, (count, 2))))
    transforms = [square_crop(box, size=64, roll=float(roll)) for box, roll in zip(boxes, range(count), strict=True)]
    expected = np.stack([warp(astronaut, transform.matrix, 64) for transform in transforms])
    monkeypatch.setattr(backend, "thread_count", lambda: threads)
    monkeypatch.setattr("hih_align.crops.warp", watched)
    found = np.empty_like(expected)
    cut_faces([Photograph(astronaut)] * count, transforms, found)
    np.testing.assert_array_equal(found, expected)
    assert len(seen) == used


@pytest.mark.parametrize("group", [4, 1])
def test_in_long_work_each_core_computes_other_faces(
    monkeypatch: pytest.MonkeyPatch, astronaut: NDArray[np.uint8], converted_nano: Callable[[str], str], group: int
) -> None:
    """The points are the same, also in a thread that comes later, and a small batch still runs as before."""
    openvino = pytest.importorskip("hih_align.runtime.openvino")
    monkeypatch.setattr(openvino, "MANY", 25)
    aligner: Any = FaceAligner.from_pretrained(converted_nano("openvino"), device="cpu", backend="openvino")
    runtime = aligner._runtime()
    runtime.group = group
    runtime._threads = 2  # also where OMP_NUM_THREADS is 1
    boxes = np.array([(177.0, 80, 275, 200)]) + np.arange(23)[:, None]  # more than 7 parts, of each kind
    for _ in range(4):
        few = aligner.align(astronaut, boxes[:7], refine=0)
    first = aligner.align(astronaut, boxes, refine=0)
    assert (group, 2) not in runtime._compiled
    np.testing.assert_allclose(few.points, first.points[:7], atol=5e-3)
    with ThreadPoolExecutor(3) as pool:
        later = list(pool.map(lambda _: aligner.align(astronaut, boxes, refine=0), range(4)))
    assert (group, 2) in runtime._compiled
    for found in later:
        np.testing.assert_allclose(found.points, first.points, atol=5e-3)
        np.testing.assert_allclose(found.scores, first.scores, atol=1e-3)
    alone = aligner.align(astronaut, boxes[3], refine=0)
    np.testing.assert_allclose(alone.points, first.points[3], atol=5e-3)
