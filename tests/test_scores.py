"""`scores`: a curve over the height of the heatmaps' maxima."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from hih_align.scores import TOLERANCE, Calibration, score


def maps(*heights: float) -> torch.Tensor:
    """Heatmaps with these maxima; all other values are lower."""
    noise = torch.rand(len(heights), 5, 7, generator=torch.Generator().manual_seed(0)) - 600
    for i, height in enumerate(heights):
        noise[i, i % 5, (3 * i) % 7] = height
    return noise


def test_curve() -> None:
    calibration = Calibration(slope=8.0, bias=-2.0)
    got = score(maps(0.0, 0.25, 0.5, 1.0, 1.3), calibration)
    assert got.tolist() == pytest.approx([1 / (1 + math.exp(-(8 * h - 2))) for h in (0, 0.25, 0.5, 1, 1.3)])
    assert got[1] == 0.5


def test_scores_are_probabilities() -> None:
    """For any output of the network, scores are between 0 and 1 and have the order of the heights."""
    heights = (-500.0, -1.0, 0.0, 0.3, 0.9, 2.0, 500.0)
    got = score(maps(*heights), Calibration(9.0, -2.0)).tolist()
    assert got == sorted(got)
    assert got[0] == 0
    assert got[-1] == 1
    empty = score(torch.zeros(1, 4, 4), Calibration(9.0, -2.0))
    assert 0 < empty.item() < 0.5


def test_without_calibration() -> None:
    assert score(maps(-0.5, 0.0, 0.3, 1.0, 1.7), None).tolist() == pytest.approx([0, 0, 0.3, 1, 1])


@pytest.mark.parametrize("calibration", [None, Calibration(8.0, -2.0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_shapes_and_precision(calibration: Calibration | None, dtype: torch.dtype) -> None:
    integer = torch.rand(2, 3, 5, 8, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    got = score(integer, calibration)
    assert got.shape == (2, 3, 5)
    assert got.dtype == torch.float32
    assert torch.equal(got[1, 2], score(integer[1, 2], calibration))
    assert torch.equal(got, score(integer.float(), calibration))
    assert score(integer[:0], calibration).shape == (0, 3, 5)


def test_stays_on_the_device() -> None:
    assert score(torch.zeros(2, 5, 8, 8, device="meta"), Calibration(8.0, -2.0)).device.type == "meta"


def test_tolerance() -> None:
    """5 % of the box's longer side: the scores of every published checkpoint are calibrated to this distance."""
    assert TOLERANCE == 0.05


def test_calibration_is_plain_data() -> None:
    calibration = Calibration(slope=8.0, bias=-2.0)
    assert Calibration(**dataclasses.asdict(calibration)) == calibration
    with pytest.raises(dataclasses.FrozenInstanceError):
        calibration.slope = 1.0  # type: ignore[misc]
