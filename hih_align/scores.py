"""Scores: the probability that a landmark's error is below 5 % of the longer side of the box.

The height of the maximum of an integer heatmap shows how certain the network is. A logistic curve turns the height into
a probability. `hih-align calibrate` fits the curve on validation faces, for each scheme and decoder, and stores its two
parameters in the checkpoint's config. The spread of the map, the decimal heatmap and the other landmarks of the face
were tried too. In addition to the height they had no effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

#: A landmark counts as found if its error is below this share of the longer side of the box.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Calibration:
    """A logistic curve: probability = 1 / (1 + exp(-(slope * height + bias)))."""

    slope: float
    bias: float


#: The score of a clear landmark, whose heatmap has the height 1, is above this for landmarks all over the face.
CLEAR = 0.9


def limit_scale(calibration: Calibration | None) -> float:
    """Factor of the limits by which the mean score of a face says whether there is a face, such as `passes.NOTHING`.

    It is 1, or less if even clear landmarks have scores below `CLEAR`. The landmarks of one eye lie in a small box, so
    an error of 5 % of the box is small, too.
    """
    if calibration is None:
        return 1.0
    return min(1.0, 1 / (1 + math.exp(-(calibration.slope + calibration.bias))) / CLEAR)


def score(integer: Tensor, calibration: Calibration | None) -> Tensor:
    """The probability that the error of each landmark is below `TOLERANCE`.

    Args:
        integer: (..., K, h, w) integer heatmaps.
        calibration: the calibration of this network and decoder. None (the network was not calibrated): the result is
            the clamped height, which ranks landmarks but is no probability.

    Returns:
        (..., K) float32 in [0, 1].
    """
    height = integer.float().amax((-2, -1))
    if calibration is None:
        return height.clamp(0, 1)
    return (height * calibration.slope + calibration.bias).sigmoid()
