"""Which stage of the recipe an epoch is in, and what epochs cost."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import Stage
from .sampling import Order


class Schedule:
    """The stages of a recipe over a run's epochs.

    Args:
        stages: at least one, with sizes.
        order: of the faces, which says how many steps an epoch has.
    """

    def __init__(self, stages: Sequence[Stage], order: Order) -> None:
        self._stages, self._order = stages, order

    def at(self, epoch: int) -> tuple[int, Stage, int]:
        """Number of the stage that an epoch is in, the stage, and its first epoch."""
        first = 0
        for number, stage in enumerate(self._stages):
            if epoch < first + stage.epochs:
                return number, stage, first
            first += stage.epochs
        return len(self._stages) - 1, self._stages[-1], first - self._stages[-1].epochs

    def steps(self, epoch: int) -> int:
        """Optimiser steps of an epoch."""
        return self._order.steps(self.at(epoch)[1].batch)

    def cost(self, epoch: int, step: int = 0) -> int:
        """Pixels that the network sees up to a step of an epoch, by which the time left is estimated."""
        costs = [self._order.steps(s.batch) * s.batch * s.size**2 for s in self._stages for _ in range(s.epochs)]
        under_way = costs[min(epoch, len(costs) - 1)] * step // max(self.steps(epoch), 1)
        return sum(costs[:epoch]) + under_way
