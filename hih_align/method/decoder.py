"""`Decoder`: the settings of decoding heatmaps, as stored in a checkpoint's config. `heatmaps.decode` applies them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Rounding = Literal["round", "floor"]
Method = Literal["argmax", "expectation"]

#: Crop pixels per heatmap pixel: crop = STRIDE * heatmap (the authors' convention, without a half-pixel shift).
STRIDE = 4


@dataclass(frozen=True)
class Decoder:
    """The settings of decoding, which a checkpoint's config stores.

    Attributes:
        method: "argmax" is the paper's Eq. 4. "expectation" is the default of this package: the centroid of the integer
            heatmap around its maximum, plus the expected value of the softmax of the decimal heatmap.
        radius: the centroid is computed over (2 radius + 1)^2 heatmap pixels around the maximum; None: the whole map.
        power: power of the clamped response that is the weight in the centroid.
        temperature: temperature of the softmax of the decimal heatmap.
        bin_offset: place of a decimal label in its cell, in cells: 0 for rounded labels, 0.5 (the centre of the cell)
            for floored labels.
        shift: (x, y) heatmap pixels, a constant offset that is added to every landmark. It corrects the label bias of a
            data set, which a network that also learns from mirrored faces cannot learn, and the `bias` of the decoder.
            `calibrate` chooses it.
        bias: heatmap pixels, how far to the right of the place that the network sees a landmark is decoded, before
            ``shift`` is added. Rounded labels use the last cell of a pixel three times as often as the first one. So a
            decoder that prefers large values of the decimal heatmap prefers large cells, in x and in y. Only
            `label_bias` needs it. `calibrate` measures it on mirrored faces.
    """

    method: Method = "expectation"
    radius: int | None = None
    power: float = 3.0
    temperature: float = 0.35
    bin_offset: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    bias: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in ("argmax", "expectation"):
            raise ValueError(f"decode is {self.method!r}, expected 'argmax' or 'expectation'")
        if not (isinstance(self.shift, (tuple, list)) and len(self.shift) == 2 and all(map(math.isfinite, self.shift))):
            raise ValueError(f"shift is {self.shift!r}, expected finite x, y in heatmap pixels")
        object.__setattr__(self, "shift", tuple(map(float, self.shift)))  # JSON has lists
        if not math.isfinite(self.bias):
            raise ValueError(f"bias is {self.bias}, expected a finite number of heatmap pixels")
        if (self.radius or 0) < 0 or self.power <= 0 or self.temperature <= 0:
            raise ValueError(f"radius, power, temperature out of range in {self}")

    @property
    def label_bias(self) -> float:
        """How far to the right of the places that the network sees the landmarks are put, in heatmap pixels.

        This is the bias of the labels: it has the same direction in a mirrored picture (`crops.unmirrored`).
        """
        return self.shift[0] + self.bias


#: The paper's decoder (Eq. 4).
ARGMAX = Decoder("argmax")
