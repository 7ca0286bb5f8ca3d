"""Readouts: landmarks of another scheme as weighted sums of the points of a network's heads, without training.

A head predicts one landmark; it is one row of the network's last layers. A readout computes each new landmark as a sum
of the heads' points. Points and weights are complex numbers; a point is x + iy. A weight of absolute value s and angle
t scales by s and turns by t. The weights of a landmark sum to 1, so the landmarks move, turn and scale with the face.
An example of such a sum is "head 3, moved down by a tenth of the distance of the eyes, in the frame of the face".
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: A weight below this moves a point by less than a thousandth of a pixel.
NEGLIGIBLE = 1e-6


@dataclass(frozen=True, repr=False)
class Readout:
    """How K landmarks are computed from H heads.

    Attributes:
        heads: H, the number of landmarks of the network itself.
        terms: for each of the K landmarks its terms: (head, real part of the weight, imaginary part of the weight).

    Raises:
        ValueError: there is no landmark, a landmark has no terms, a head is outside 0..H-1, or the weights of a
            landmark do not sum to 1.
    """

    heads: int
    terms: tuple[tuple[tuple[int, float, float], ...], ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("readout has no landmarks, expected at least one")
        for landmark, terms in enumerate(self.terms):
            if bad := [head for head, _, _ in terms if not 0 <= head < self.heads]:
                raise ValueError(f"readout: landmark {landmark} names head {bad[0]}, expected 0..{self.heads - 1}")
            total = sum(complex(real, imaginary) for _, real, imaginary in terms)
            if not abs(total - 1) < 1e-3:
                raise ValueError(f"readout: the weights of landmark {landmark} sum to {total:.4g}, expected 1")

    def __len__(self) -> int:
        return len(self.terms)

    def __repr__(self) -> str:
        return f"Readout({len(self)} landmarks from {self.heads} heads)"

    @cached_property
    def weights(self) -> NDArray[np.complex128]:
        """(K, H) complex weights."""
        found = np.zeros((len(self), self.heads), np.complex128)
        for landmark, terms in enumerate(self.terms):
            heads, real, imaginary = np.array(terms, np.float64).T
            np.add.at(found[landmark], heads.astype(np.intp), real + 1j * imaginary)
        return found

    @cached_property
    def sources(self) -> NDArray[np.intp]:
        """(K,) the head with the largest weight of each landmark; the landmark has the score of this head."""
        return np.abs(self.weights).argmax(-1)

    @cached_property
    def picks(self) -> bool:
        """Whether each landmark is the point of one head, unchanged."""
        return bool(np.array_equal(self.weights, np.eye(self.heads)[self.sources]))

    @cached_property
    def used(self) -> NDArray[np.intp]:
        """(U,) the heads with a weight, in ascending order."""
        return np.flatnonzero((self.weights != 0).any(0))

    def points(self, heads: ArrayLike) -> NDArray[np.float64]:
        """(..., K, 2) landmarks from the points (..., H, 2) of the heads, in any unit."""
        p = np.asarray(heads, np.float64)
        z = (p[..., 0] + 1j * p[..., 1]) @ self.weights.T
        return np.stack((z.real, z.imag), -1)

    def then(self, weights: NDArray[Any]) -> Readout:
        """The readout that applies ``weights`` (K', K), whose rows sum to 1, to the landmarks of this readout."""
        return from_weights(np.asarray(weights) @ self.weights)

    @cached_property
    def parts(self) -> NDArray[np.float32]:
        """(K, H, 2) float32 real and imaginary parts of the weights. `from_parts` makes the readout of them."""
        return np.stack((self.weights.real, self.weights.imag), -1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The readout as a dictionary that `readout_from_dict` reads."""
        return {"heads": self.heads, "terms": [[list(term) for term in terms] for terms in self.terms]}


def pick(heads: int, indices: Sequence[int]) -> Readout:
    """The readout that takes the points of some of ``heads`` heads, unchanged."""
    return Readout(heads, tuple(((operator.index(index), 1.0, 0.0),) for index in indices))


def from_weights(weights: NDArray[Any]) -> Readout:
    """The readout of weights (K, H), real or complex, whose rows sum to 1. Negligible weights are left out."""
    kept = np.asarray(weights, np.complex128).copy()
    kept[np.abs(kept) < NEGLIGIBLE] = 0
    kept = np.round(kept / kept.sum(-1, keepdims=True), 9)
    terms = tuple(
        tuple((int(head), float(row[head].real), float(row[head].imag)) for head in np.flatnonzero(row)) for row in kept
    )
    return Readout(kept.shape[1], terms)


def from_parts(parts: NDArray[np.floating]) -> Readout:
    """The readout whose `Readout.parts` are ``parts`` (K, H, 2), exactly."""
    terms = (tuple((int(h), float(row[h, 0]), float(row[h, 1])) for h in np.flatnonzero(row.any(-1))) for row in parts)
    return Readout(parts.shape[1], tuple(terms))


def readout_from_dict(data: Mapping[str, Any]) -> Readout:
    """Make a readout from a dictionary.

    Raises:
        KeyError, TypeError, ValueError: the dictionary has another form.
    """
    terms = tuple(
        tuple((operator.index(head), float(real), float(imaginary)) for head, real, imaginary in row)
        for row in data["terms"]
    )
    return Readout(operator.index(data["heads"]), terms)
