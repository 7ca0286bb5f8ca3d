"""The part of a recipe for training from few faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Few:
    """Settings for training from few faces. Only new heads are trained, see `grown.Grown`.

    Attributes:
        below: these settings apply if there are fewer training faces than this. 0: never.
        lr: highest learning rate. It replaces the learning rate of the stages.
        steps: smallest number of optimiser steps. It replaces ``min_steps``, so a run never has fewer epochs than its
            stages. Fewer epochs ("epochs": 3) make a shorter run.
        share: weight of the point of the new head in a landmark, in (0, 1]. The point that is computed from the old
            heads has the remaining weight. A landmark that is the same as an old one has only the old point, and a
            landmark from scratch has only the new one.
        views: number of different augmented pictures of the faces. Later epochs repeat them.
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
            raise ValueError(f"lr and share are {self.lr} and {self.share}, expected lr > 0 and share in (0, 1]")


def follow_stages(few: dict[str, Any], given: Mapping[str, Any], lr: Any = None, steps: Any = None) -> None:
    """Apply settings that a user gave for the stages also to few faces, in place.

    Args:
        few: the settings of `Few`, as a recipe file holds them.
        given: all that the user gave, by dotted key. Settings for few faces among them remain.
        lr, steps: the settings for the stages. None: not given.
    """
    own = {key.removeprefix("few.") for key in given if key.startswith("few.")} | set(given.get("few") or ())
    few |= {key: value for key, value in (("lr", lr), ("steps", steps)) if value is not None and key not in own}
