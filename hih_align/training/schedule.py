"""The stage of the recipe that an epoch belongs to, and the cost of epochs."""

from __future__ import annotations

from collections.abc import Sequence

from .recipe import Stage
from .sampling import Order

#: The cost of a step whose pictures were computed before (`grown.Kept`), as a share of the cost of a first step.
AGAIN = 0.05


class Schedule:
    """The stages of a recipe over the epochs of a run.

    Args:
        stages: the stages, at least one; their sizes are set.
        order: the order of the faces, which gives the number of steps in an epoch.
        fresh: number of epochs after which the pictures repeat, and cost less. None: they do not repeat.
    """

    def __init__(self, stages: Sequence[Stage], order: Order, fresh: int | None = None) -> None:
        self._stages, self._order, self._fresh = stages, order, fresh

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

    def step_cost(self, epoch: int) -> float:
        """Number of pixels that the network sees in a step of an epoch; used to estimate the remaining time."""
        stage = self.at(epoch)[1]
        return stage.batch * stage.size**2 * (1.0 if self._fresh is None or epoch < self._fresh else AGAIN)

    def cost(self, epoch: int, step: int = 0) -> float:
        """The cost of all steps until a step of an epoch, see `step_cost`."""
        return sum(self.steps(e) * self.step_cost(e) for e in range(epoch)) + step * self.step_cost(epoch)
