"""Conversion of landmarks from one built-in scheme to another.

A conversion exists where the landmarks of the source scheme determine the landmarks of the target scheme.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .builtin import SCHEMES
from .scheme import Scheme


# Each target landmark is a weighted mean of source landmarks. The 68-point scheme marks each eyelid at about one third
# and two thirds of its length. The 98-point scheme marks it at its quarters. One third of the length lies one third of
# the way from the first quarter to the second.
def _lid(first: int, middle: int, last: int) -> list[dict[int, float]]:
    return [{first: 2 / 3, middle: 1 / 3}, {middle: 1 / 3, last: 2 / 3}]


_WFLW_TO_W300: list[dict[int, float]] = [
    *({i: 1.0} for i in range(0, 33, 2)),
    *({i: 1.0} for i in (*range(33, 38), *range(42, 47), *range(51, 60))),
    *({60: 1.0}, *_lid(61, 62, 63), {64: 1.0}, *_lid(65, 66, 67)),
    *({68: 1.0}, *_lid(69, 70, 71), {72: 1.0}, *_lid(73, 74, 75)),
    *({i: 1.0} for i in range(76, 96)),
]


# The inner end of a brow in COFW lies between the upper and the lower edge of the brow in WFLW.
_WFLW_TO_COFW: list[dict[int, float]] = [
    *({33: 1.0}, {46: 1.0}, {37: 0.5, 38: 0.5}, {42: 0.5, 50: 0.5}),
    *({35: 1.0}, {40: 1.0}, {44: 1.0}, {48: 1.0}),
    *({i: 1.0} for i in (60, 72, 64, 68, 62, 66, 70, 74, 96, 97)),
    *({i: 1.0} for i in (55, 59, 54, 57, 76, 82, 79, 90, 94, 85, 16)),
]


_CONVERSIONS = {("wflw", "300w"): _WFLW_TO_W300, ("wflw", "cofw"): _WFLW_TO_COFW}


def conversion(source: Scheme, target: Scheme) -> NDArray[np.float64]:
    """Weights that convert landmarks: ``target_points = conversion(source, target) @ source_points``.

    Returns:
        (K of the target, K of the source) float64. Each row sums to 1.

    Raises:
        ValueError: no conversion between the two schemes is known.
    """
    if source.same_landmarks(target):
        return np.eye(len(source))
    for scheme in (source, target):
        built_in = SCHEMES.get(scheme.id)
        if built_in is not None and not scheme.same_landmarks(built_in):
            raise ValueError(
                f"no conversion from scheme {source.id!r} to {target.id!r}: the given scheme {scheme.id!r} has other "
                f"landmarks ({len(scheme)}) than the built-in scheme of this id ({len(built_in)}); give the scheme "
                "another id"
            )
    if source.id == target.id:
        raise ValueError(
            f"no conversion from scheme {source.id!r} to another scheme of the same id: the landmarks of the two "
            f"schemes have different names ({len(source)} and {len(target)} landmarks)"
        )
    rows = _CONVERSIONS.get((source.id, target.id))
    if rows is None:
        possible = sorted(t for s, t in _CONVERSIONS if s == source.id)
        known = ", ".join(f"{s} to {t}" for s, t in _CONVERSIONS)
        raise ValueError(
            f"no conversion from scheme {source.id!r} to {target.id!r}, only to {', '.join(possible) or 'itself'} "
            f"(known conversions: {known})"
        )
    weights = np.zeros((len(target), len(source)))
    for row, parts in enumerate(rows):
        for index, weight in parts.items():
            weights[row, index] = weight
    return weights
