"""Which faces an epoch shows, and in what order: a function of the run's seed and the epoch's number alone, so that a
resumed run needs no random state, and any number of processes sees the same batches."""

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
    """Faces to train on, and how many times an epoch shows them (0.5: half of them, in turn)."""

    dataset: Dataset
    weight: float = 1.0


def common_scheme(data: Sequence[Source], val: Dataset | None) -> Scheme:
    """The scheme of all training and validation faces.

    Raises:
        ValueError: no training data, or faces of another scheme than the first data's.
    """
    if not data:
        raise ValueError("data is empty, expected at least one source")
    scheme = data[0].dataset.scheme
    for dataset in [*(source.dataset for source in data), *([val] if val else [])]:
        if dataset.scheme != scheme:
            raise ValueError(
                f"data {dataset.name!r} has scheme {dataset.scheme.id!r}, expected {scheme.id!r} as the first"
            )
    return scheme


class Order:
    """Epochs over one or several sources of faces.

    Args:
        sources: (N,) which source each face is from.
        weights: one per source: how many times an epoch shows it. At 0.5 an epoch shows half of it and the next the
            other half; every face of a source is shown before any is shown again.
        seed: of the run.

    Raises:
        ValueError: for a weight that is not positive, a face of no source or a source of no face.
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
        """Faces of an epoch, before its last batch is filled up."""
        return sum(self._counts)

    def steps(self, batch: int) -> int:
        """Batches of an epoch."""
        return -(-self.faces // batch)

    def epoch(self, epoch: int, batch: int) -> Indices:
        """(steps, batch) faces of an epoch; the last batch is filled up with the epoch's first faces."""
        chosen = np.concatenate([self._take(source, epoch) for source in range(len(self._members))])
        chosen = chosen[np.random.default_rng([self._seed, 1, epoch]).permutation(len(chosen))]
        steps = self.steps(batch)
        return np.resize(chosen, steps * batch).reshape(steps, batch)

    def _take(self, source: int, epoch: int) -> Indices:
        members, count = self._members[source], self._counts[source]
        first, last = epoch * count, (epoch + 1) * count
        passes = range(first // len(members), -(-last // len(members)))
        # one endless sequence of permutations, of which each epoch takes the next part
        sequence = np.concatenate(
            [members[np.random.default_rng([self._seed, 0, source, p]).permutation(len(members))] for p in passes]
        )
        start = first - passes.start * len(members)
        return sequence[start : start + count]
