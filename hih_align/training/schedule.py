"""The stage of the recipe that an epoch belongs to, and the cost of epochs."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import Stage
from .sampling import Order


class Schedule:
    """The stages of a recipe over the epochs of a run.

    Args:
        stages: the stages, at least one; their sizes are set.
        order: the order of the faces, which gives the number of steps in an epoch.
    """

    def __init__(self, stages: Sequence[Stage], order: Order) -> None:
        self._stages, self._order = stages, order

    def at(self, epoch: int) -> tuple[int, Stage, int]:
        """The number of the stage of an epoch, the stage, and the first epoch of that stage."""
        first = 0
        for number, stage in enumerate(self._stages):
            if epoch < first + stage.epochs:
                return number, stage, first
            first += stage.epochs
        return len(self._stages) - 1, self._stages[-1], first - self._stages[-1].epochs

    def steps(self, epoch: int) -> int:
        """Number of optimiser steps in an epoch."""
        return self._order.steps(self.at(epoch)[1].batch)

    def cost(self, epoch: int, step: int = 0) -> int:
        """Number of pixels that the network sees until a step of an epoch; used to estimate the remaining time."""
        costs = [self._order.steps(s.batch) * s.batch * s.size**2 for s in self._stages for _ in range(s.epochs)]
        under_way = costs[min(epoch, len(costs) - 1)] * step // max(self.steps(epoch), 1)
        return sum(costs[:epoch]) + under_way
