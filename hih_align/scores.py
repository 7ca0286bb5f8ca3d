"""Scores: the probability that a landmark's error is below 5 % of the longer side of the box.

The height of an integer heatmap's maximum says how sure the network is. A logistic curve over it, fitted on
validation faces per scheme and decoder (`hih-align calibrate`), turns it into a probability; its two parameters are in
the checkpoint's config. The spread of the map, the decimal heatmap and the other landmarks of the face were tried as
well: with the height known they added nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

#: A landmark counts as found when its error is below this share of the box's longer side.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Calibration:
    """A logistic curve: probability = 1 / (1 + exp(-(slope * height + bias)))."""

    slope: float
    bias: float


def score(integer: Tensor, calibration: Calibration | None) -> Tensor:
    """Probability that each landmark's error is below `TOLERANCE`.

    Args:
        integer: (..., K, h, w) integer heatmaps.
        calibration: of this network and decoder. None, for a network that was never measured on faces of its own,
            gives the clamped height itself: a ranking, not a probability.

    Returns:
        (..., K) float32 in [0, 1].
    """
    height = integer.float().amax((-2, -1))
    if calibration is None:
        return height.clamp(0, 1)
    return (height * calibration.slope + calibration.bias).sigmoid()
