"""Scores that mean something: the probability that a landmark's error is below 5 % of its box.

The network's heatmaps say how sure it is: a sharp, high response is a good sign, a low or smeared one a bad sign.
A logistic regression on a few such signs, fitted on validation faces per scheme and decoder
(`hih-align calibrate`), turns them into a probability. Its parameters are in the checkpoint's config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

#: A landmark counts as found when its error is below this share of the box's longer side.
TOLERANCE = 0.05

#: What the logistic regression sees of each landmark, in this order; see `features`.
FEATURES = ("peak", "concentration", "spread", "face_peak", "face_spread")


def features(integer: Tensor, decimal: Tensor) -> Tensor:
    """Signs of certainty.

    Args:
        integer: (..., K, h, w) integer heatmaps.
        decimal: (..., K, n, n) decimal heatmaps.

    Returns:
        (..., K, 5) float32, each about [0, 1]: the integer heatmap's maximum; the largest probability of the
        decimal heatmap's softmax; the standard deviation of the squared response over the whole map, as a share of
        its side (0.5 for an empty map); and, the same for all landmarks of a face, the means of the first and third.
    """
    integer, decimal = integer.float(), decimal.float()
    peak = integer.flatten(-2).amax(-1)
    concentration = decimal.flatten(-2).softmax(-1).amax(-1)
    mass = integer.clamp(min=0).square()
    total = mass.sum((-2, -1)).clamp(min=1e-12)
    variance = torch.zeros_like(total)
    for axis in (-1, -2):
        place = torch.arange(mass.shape[axis], device=mass.device, dtype=mass.dtype) / mass.shape[axis]
        density = mass.sum(-1 if axis == -2 else -2) / total[..., None]
        variance = variance + (density * place.square()).sum(-1) - (density * place).sum(-1).square()
    spread = torch.where(peak > 0, variance.clamp(min=0).sqrt(), torch.full_like(peak, 0.5))
    face = [f.mean(-1, keepdim=True).expand_as(f) for f in (peak, spread)]
    return torch.stack((peak, concentration, spread, *face), -1)


@dataclass(frozen=True)
class Calibration:
    """Logistic regression from `features` to a probability.

    Attributes:
        bias: intercept.
        weights: one per name in `FEATURES`.
    """

    bias: float
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := set(self.weights) - set(FEATURES):
            raise ValueError(f"calibration weighs unknown features {sorted(unknown)}, expected some of {FEATURES}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data; ``Calibration(**data)`` reads it back."""
        return asdict(self) | {"weights": dict(self.weights)}


def score(integer: Tensor, decimal: Tensor, calibration: Calibration | None) -> Tensor:
    """(..., K) float32 in [0, 1]: probability that each landmark's error is below `TOLERANCE`.

    Without a calibration (a network that was never measured on faces of its own) it is the integer heatmap's
    maximum, clamped: a ranking, not a probability.
    """
    signs = features(integer, decimal)
    if calibration is None:
        return signs[..., 0].clamp(0, 1)
    weights = signs.new_tensor([calibration.weights.get(name, 0.0) for name in FEATURES])
    return torch.sigmoid(signs @ weights + calibration.bias)
