"""Exponential moving average of the weights. The average, not the weights, is validated and saved."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from .learner import Learner


class EMA:
    """Moving average of a model's weights and batch norm statistics.

    Early in a stage the average forgets faster: the decay of update n is at most (1 + n) / (10 + n). So it does not
    keep random weights, or weights of another resolution.
    """

    def __init__(self, model: Learner, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Update the average after optimiser step number ``steps`` of the stage, counted from 0."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        mine, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(list(mine), [t.detach() for t in theirs], 1 - decay)
        mine, theirs = zip(*self._copied, strict=True)
        torch._foreach_copy_(list(mine), list(theirs))


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
