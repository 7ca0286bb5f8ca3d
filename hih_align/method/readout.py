"""Readouts: landmarks of another scheme as weighted sums of the points of a network's heads, without training.

A head predicts one landmark; it is one row of the network's last layers. A readout computes each new landmark as a sum
of the heads' points. Points and weights are complex numbers; a point is x + iy. A weight of absolute value s and angle
t scales by s and turns by t. The weights of a landmark sum to 1, so the landmarks move, turn and scale with the face.
An example of such a sum is "head 3, moved down by a tenth of the distance of the eyes, in the frame of the face".

Such a sum treats x and y alike: it cannot say "as far to the right as head 3 lies, but not as far down". A second sum,
of the mirrored points x - iy, can. Mirrored points turn against the face, so this sum is turned by twice the roll of
the face, which the points themselves give (`Readout.upright`).
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

#: A face whose scale has a square below this has no roll: its points coincide.
TINY = 1e-12

#: A term of a sum: a head, and the real and the imaginary part of its weight.
Term = tuple[int, float, float]


@dataclass(frozen=True, repr=False)
class Readout:
    """How K landmarks are computed from H heads.

    Attributes:
        heads: H, the number of landmarks of the network itself.
        terms: for each of the K landmarks its terms. Their weights sum to 1.
        mirrored: for each of the K landmarks the terms of the mirrored points, whose weights sum to 0. Empty: none.
        upright: terms whose sum is the scale and rotation of the face, as one complex number. Their weights sum to 0.
            Empty without ``mirrored``.

    Raises:
        ValueError: there is no landmark, a landmark has no terms, a head is outside 0..H-1, weights have another sum,
            or ``mirrored`` has another number of landmarks or no ``upright``.
    """

    heads: int
    terms: tuple[tuple[Term, ...], ...]
    mirrored: tuple[tuple[Term, ...], ...] = ()
    upright: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("readout has no landmarks, expected at least one")
        if self.mirrored and len(self.mirrored) != len(self.terms):
            raise ValueError(f"readout: mirrored has {len(self.mirrored)} landmarks, expected {len(self.terms)}")
        if bool(self.mirrored) != bool(self.upright):
            raise ValueError("readout: mirrored and upright belong together, but one of them is empty")
        for landmark, terms in enumerate(self.terms):
            self._check(f"landmark {landmark}", terms, 1)
        for landmark, terms in enumerate(self.mirrored):
            self._check(f"mirrored landmark {landmark}", terms, 0)
        self._check("upright", self.upright, 0)

    def _check(self, what: str, terms: tuple[Term, ...], expected: int) -> None:
        if bad := [head for head, _, _ in terms if not 0 <= head < self.heads]:
            raise ValueError(f"readout: {what} names head {bad[0]}, expected 0..{self.heads - 1}")
        total = sum(complex(real, imaginary) for _, real, imaginary in terms)
        if not abs(total - expected) < 1e-3:
            raise ValueError(f"readout: the weights of {what} sum to {total:.4g}, expected {expected}")

    def __len__(self) -> int:
        return len(self.terms)

    def __repr__(self) -> str:
        return f"Readout({len(self)} landmarks from {self.heads} heads)"

    @cached_property
    def weights(self) -> NDArray[np.complex128]:
        """(K, H) complex weights of the points."""
        return _matrix(self.terms, self.heads)

    @cached_property
    def mirrored_weights(self) -> NDArray[np.complex128]:
        """(K, H) complex weights of the mirrored points, or (0, H)."""
        return _matrix(self.mirrored, self.heads)

    @cached_property
    def upright_weights(self) -> NDArray[np.complex128]:
        """(H,) complex weights of `upright`, 0 without `mirrored`."""
        found: NDArray[np.complex128] = _matrix((self.upright,), self.heads)[0]
        return found

    @cached_property
    def sources(self) -> NDArray[np.intp]:
        """(K,) the head with the largest weight of each landmark; the landmark has the score of this head."""
        return np.abs(self.weights).argmax(-1)

    @cached_property
    def picks(self) -> bool:
        """Whether each landmark is the point of one head, unchanged."""
        return not self.mirrored and bool(np.array_equal(self.weights, np.eye(self.heads)[self.sources]))

    @cached_property
    def used(self) -> NDArray[np.intp]:
        """(U,) the heads with a weight, in ascending order."""
        rows = np.concatenate((self.weights, self.mirrored_weights, self.upright_weights[None]))
        return np.flatnonzero((rows != 0).any(0))

    def points(self, heads: ArrayLike) -> NDArray[np.float64]:
        """(..., K, 2) landmarks from the points (..., H, 2) of the heads, in any unit."""
        p = np.asarray(heads, np.float64)
        p = p[..., 0] + 1j * p[..., 1]
        z = p @ self.weights.T
        if self.mirrored:
            turn = (p @ self.upright_weights)[..., None] ** 2
            # the mean is subtracted because the weights sum to 0 only nearly
            z += turn / np.maximum(abs(turn), TINY) * ((p - p.mean(-1, keepdims=True)).conj() @ self.mirrored_weights.T)
        return np.stack((z.real, z.imag), -1)

    def then(self, weights: NDArray[Any]) -> Readout:
        """The readout that applies ``weights`` (K', K), whose rows sum to 1, to the landmarks of this readout."""
        rows = np.asarray(weights)
        mirrored = rows @ self.mirrored_weights if self.mirrored else None
        return from_weights(rows @ self.weights, mirrored, self.upright_weights)

    @cached_property
    def parts(self) -> NDArray[np.float32]:
        """The weights as real and imaginary parts. `from_parts` makes the readout of them.

        (K, H, 2) float32, or (2 K + 1, H, 2): the weights of the points, of the mirrored points, and of `upright`.
        """
        rows = self.weights
        if self.mirrored:
            rows = np.concatenate((rows, self.mirrored_weights, self.upright_weights[None]))
        return np.stack((rows.real, rows.imag), -1).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """The readout as a dictionary that `readout_from_dict` reads."""
        found = {"heads": self.heads, "terms": [[list(term) for term in terms] for terms in self.terms]}
        if self.mirrored:
            found["mirrored"] = [[list(term) for term in terms] for terms in self.mirrored]
            found["upright"] = [list(term) for term in self.upright]
        return found


def pick(heads: int, indices: Sequence[int]) -> Readout:
    """The readout that takes the points of some of ``heads`` heads, unchanged."""
    return Readout(heads, tuple(((operator.index(index), 1.0, 0.0),) for index in indices))


def from_weights(
    weights: NDArray[Any], mirrored: NDArray[Any] | None = None, upright: NDArray[Any] | None = None
) -> Readout:
    """The readout of weights, real or complex. Negligible weights are left out.

    Args:
        weights: (K, H) of the points. Each row sums to 1.
        mirrored: (K, H) of the mirrored points. Each row sums to 0. None: there are none.
        upright: (H,) of `Readout.upright`. It is not read if ``mirrored`` is None.
    """
    kept = _kept(weights)
    own = _terms(np.round(kept / kept.sum(-1, keepdims=True), 9))
    if mirrored is None:
        return Readout(kept.shape[1], own)
    assert upright is not None
    (turn,) = _terms(np.asarray(upright, np.complex128)[None])
    return Readout(kept.shape[1], own, _terms(np.round(_kept(mirrored), 9)), turn)


def _kept(weights: NDArray[Any]) -> NDArray[np.complex128]:
    found = np.asarray(weights, np.complex128).copy()
    found[np.abs(found) < NEGLIGIBLE] = 0
    return found


def from_parts(parts: NDArray[np.floating]) -> Readout:
    """The readout whose `Readout.parts` are ``parts``, exactly.

    Args:
        parts: (H, H, 2) or (2 H + 1, H, 2), so of a readout with as many landmarks as heads.
    """
    heads = parts.shape[1]
    rows = _terms(parts[..., 0] + 1j * parts[..., 1])
    if len(rows) != 2 * heads + 1:
        return Readout(heads, rows)
    return Readout(heads, rows[:heads], rows[heads:-1], rows[-1])


def _terms(rows: NDArray[np.complexfloating]) -> tuple[tuple[Term, ...], ...]:
    return tuple(tuple((int(h), float(row[h].real), float(row[h].imag)) for h in np.flatnonzero(row)) for row in rows)


def _matrix(rows: Sequence[Sequence[Term]], heads: int) -> NDArray[np.complex128]:
    """(R, H) the weights of R rows of terms."""
    found = np.zeros((len(rows), heads), np.complex128)
    for row, terms in zip(found, rows, strict=True):
        for head, real, imaginary in terms:
            row[head] += complex(real, imaginary)
    return found


def readout_from_dict(data: Mapping[str, Any]) -> Readout:
    """Make a readout from a dictionary.

    Raises:
        KeyError, TypeError, ValueError: the dictionary has another form.
    """

    def read(row: Any) -> tuple[Term, ...]:
        return tuple((operator.index(head), float(real), float(imaginary)) for head, real, imaginary in row)

    rows, mirrored = (tuple(map(read, data.get(name, ()))) for name in ("terms", "mirrored"))
    return Readout(operator.index(data["heads"]), rows, mirrored, read(data.get("upright", ())))
