"""The part of a recipe that says how landmarks are learnt from few faces."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Few:
    """How landmarks are learnt from few faces: new heads alone learn, beside the start network's, see `grown.Grown`.

    Attributes:
        below: with fewer training faces than this; 0: never.
        lr: the highest learning rate, in the place of the stages'.
        steps: least optimiser steps, in the place of ``min_steps``.
        share: of the own head's point in a landmark; the rest is what is read from the old heads.
        views: so many different pictures of the faces are made, which are then shown again and again.
    """

    below: int = 0
    lr: float = 1e-2
    steps: int = 300
    share: float = 0.35
    views: int = 400

    def __post_init__(self) -> None:
        if self.below < 0 or self.steps < 0 or self.views < 1:
            raise ValueError(
                f"below, steps and views are {self.below}, {self.steps} and {self.views}, expected at least 0, 0 and 1"
            )
        if not (self.lr > 0 and 0 < self.share <= 1):
            raise ValueError(f"lr and share are {self.lr} and {self.share}, expected positive, and within (0, 1]")
