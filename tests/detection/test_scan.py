"""`detection.scan`: which parts of an image are scanned at which scale, and how their detections are merged."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hih_align.detection import scan
from hih_align.detection.detector import SCAN_SIZES


@settings(max_examples=60)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_every_pixel_of_every_scale_is_in_a_square(height: int, width: int) -> None:
    seen: dict[float, NDArray[Any]] = {}
    for square in scan.plan(height, width, SCAN_SIZES):
        taken = np.zeros((scan.CANVAS, scan.CANVAS), bool)
        for tile in square:
            part = taken[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
            assert part.shape == (tile.height, tile.width)
            assert not part.any()  # tiles do not overlap
            part[:] = True
            size = max(1, round(height * tile.scale)), max(1, round(width * tile.scale))
            full = seen.setdefault(tile.scale, np.zeros(size, bool))
            full[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = True
    assert all(full.all() for full in seen.values())
    assert max(seen) >= min(1, SCAN_SIZES[-1] / max(height, width)) / scan.STEP
    assert all(b / a >= scan.STEP for a, b in pairwise(sorted(seen)))


@pytest.mark.parametrize(("height", "width"), [(512, 512), (480, 640), (1080, 1920), (3000, 2000), (200, 200)])
def test_two_scales_share_a_square(height: int, width: int) -> None:
    """A photograph that needs no fine scale is scanned by one run of the network."""
    assert len(scan.plan(height, width, SCAN_SIZES[:2])) == 1


@pytest.mark.parametrize("shape", [(1600, 1200), (700, 3000), (2000, 3000)])
def test_positions_in_tiles_map_back_to_the_image(shape: tuple[int, int]) -> None:
    """A white square maps back to its position in the image. A box that a tile's edge cuts off is dropped.

    The square is 40 pixels wide at the largest scale.
    """
    height, width = shape
    squares = scan.plan(height, width, SCAN_SIZES)
    scale = SCAN_SIZES[-1] / max(shape)
    side = round(40 / scale)
    rng = np.random.default_rng(0)
    for x, y in (rng.uniform(0, 1, (6, 2)) * (width - side, height - side)).astype(int):
        image = np.zeros((height, width, 3), np.uint8)
        image[y : y + side, x : x + side] = 255
        found = []
        for square, canvas in zip(squares, scan.paint(image, squares), strict=True):
            for tile in square:
                part = canvas[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width, 0] > 127
                if tile.scale != scale or not part.any():
                    continue
                rows, columns = np.nonzero(part.any(1))[0], np.nonzero(part.any(0))[0]
                box = np.array([[columns[0], rows[0], columns[-1], rows[-1]]], float)
                box += np.tile((tile.left, tile.top), 2)
                keep = np.ones(1, bool)
                boxes, _ = scan.to_image(box, np.zeros((1, 5, 2)), square, keep)
                if keep[0]:
                    found.append(boxes[0])
        assert found
        np.testing.assert_allclose(found, [(x, y, x + side - 1, y + side - 1)] * len(found), atol=1.1 / scale)


def test_overlapping_detections_are_merged() -> None:
    boxes = np.array([[0, 0, 100, 100], [5, 5, 105, 105], [30, 30, 60, 60], [200, 0, 300, 100], [90, 90, 190, 190]])
    scores = np.array([0.8, 0.9, 0.7, 0.6, 0.5])
    assert scan.merged(boxes.astype(float), scores).tolist() == [1, 3, 4]  # the third box is inside the second
    assert scan.merged(np.zeros((0, 4)), np.zeros(0)).tolist() == []
