"""Random numbers of samples. Each sample has its own seed, so its numbers do not depend on its batch or worker.

A counter-based generator (splitmix64) makes uniform numbers column by column, with one row per sample.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .settings import Range

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def sample_seeds(seed: int, epoch: int, indices: ArrayLike) -> Tensor:
    """(B,) int64 seeds of samples in an epoch. They are the same after a resume, in any worker and in any batch.

    Args:
        seed: the seed of the training run.
        epoch: the number of the epoch, or any other count.
        indices: (B,) places in the epoch or the data set.
    """
    state = np.asarray(indices).astype(np.uint64)
    for key in (epoch, seed):
        state = _mix(_mix(state) + np.asarray([key]).astype(np.int64).astype(np.uint64))
    return torch.from_numpy(state.view(np.int64))


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of splitmix64: a bijection in which each input bit affects all 64 output bits."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Dice:
    """Uniform numbers of several samples, column by column.

    Every column is drawn, whatever the settings. So a changed setting does not change the other effects of a seed.
    """

    def __init__(self, seeds: NDArray[np.int64]) -> None:
        self.seeds = _mix(seeds.view(np.uint64))
        self.column = 0

    def uniform(self) -> Floats:
        """(B,) numbers in [0, 1)."""
        self.column += 1
        bits = _mix(self.seeds + np.full(1, self.column, np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def chance(self, probability: float) -> Bools:
        return self.uniform() < probability

    def between(self, limits: Range) -> Floats:
        return limits[0] + (limits[1] - limits[0]) * self.uniform()

    def around(self, reach: float) -> Floats:
        return self.between((-reach, reach))

    def logarithmic(self, limits: Range) -> Floats:
        return np.exp(self.between((math.log(limits[0]), math.log(limits[1]))))


def columns(*values: Floats) -> Floats:
    """Join n arrays (B,) to one array (B, n)."""
    return np.stack(values, -1)
