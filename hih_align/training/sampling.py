"""Which faces an epoch shows, and in what order.

Both depend only on the run's seed and the number of the epoch. So a resumed run needs no random state, and any number
of processes sees the same batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.annotations import Dataset
from ..schemes import Scheme

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Faces to train on. ``weight``: how often an epoch shows each (0.5: half in one epoch, half in the next)."""

    dataset: Dataset
    weight: float = 1.0


def common_scheme(data: Sequence[Source], val: Dataset | None) -> Scheme:
    """The common scheme of all training and validation faces.

    Raises:
        ValueError: there is no training data, or some faces have another scheme than the first data set.
    """
    if not data:
        raise ValueError("data is empty, expected at least one source")
    scheme = data[0].dataset.scheme
    for dataset in [*(source.dataset for source in data), *([val] if val else [])]:
        if dataset.scheme != scheme:
            own, first = dataset.scheme.to_dict(), scheme.to_dict()
            others = ", ".join(key for key in own if own[key] != first[key])
            raise ValueError(
                f"data {dataset.name!r} has scheme {dataset.scheme.id!r}, expected {scheme.id!r}, as the first data "
                f"({data[0].dataset.name!r}): they differ in {others}. Read all data with the same scheme"
            )
    return scheme


class Order:
    """The faces of each epoch, from one or several sources.

    Args:
        sources: (N,) the number of the source of each face.
        weights: one per source: how often an epoch shows its faces. At 0.5 an epoch shows one half and the next epoch
            the other half. Every face of a source is shown before a face is shown again.
        seed: the seed of the run.

    Raises:
        ValueError: a weight is not positive, a face has no source, or a source has no face.
    """

    def __init__(self, sources: ArrayLike, weights: Sequence[float], seed: int) -> None:
        which = np.asarray(sources, np.int64)
        if not weights or not all(0 < weight < np.inf for weight in weights):
            raise ValueError(f"weights are {list(weights)}, expected a positive number per source")
        if len(which) == 0 or which.min() < 0 or which.max() >= len(weights):
            raise ValueError(f"sources name {np.unique(which).tolist()}, expected 0..{len(weights) - 1}")
        self._members = [np.flatnonzero(which == source) for source in range(len(weights))]
        if empty := [source for source, members in enumerate(self._members) if not len(members)]:
            raise ValueError(f"sources {empty} have no faces")
        self._counts = [
            max(1, round(weight * len(members))) for weight, members in zip(weights, self._members, strict=True)
        ]
        self._seed = seed

    @property
    def faces(self) -> int:
        """Number of faces in an epoch, before its last batch is filled up."""
        return sum(self._counts)

    def steps(self, batch: int) -> int:
        """Number of batches in an epoch."""
        return -(-self.faces // batch)

    def epoch(self, epoch: int, batch: int) -> Indices:
        """(steps, batch) numbers of the faces of an epoch. Its first faces fill up the last batch."""
        chosen = np.concatenate([self._take(source, epoch) for source in range(len(self._members))])
        chosen = chosen[np.random.default_rng([self._seed, 1, epoch]).permutation(len(chosen))]
        steps = self.steps(batch)
        return np.resize(chosen, steps * batch).reshape(steps, batch)

    def _take(self, source: int, epoch: int) -> Indices:
        members, count = self._members[source], self._counts[source]
        first, last = epoch * count, (epoch + 1) * count
        passes = range(first // len(members), -(-last // len(members)))
        # the epochs take consecutive parts of one endless sequence of permutations
        sequence = np.concatenate(
            [members[np.random.default_rng([self._seed, 0, source, p]).permutation(len(members))] for p in passes]
        )
        start = first - passes.start * len(members)
        return sequence[start : start + count]
