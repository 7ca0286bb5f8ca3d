"""The optimiser of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .recipe import Recipe

#: Layers that start from scratch learn so many times as fast as those that are trained already.
SCRATCH_RATE = 10.0


def make_optimizer(model: nn.Module, recipe: Recipe, fast: Sequence[nn.Module] = ()) -> torch.optim.Optimizer:
    """Adam or AdamW. AdamW's weight decay spares biases and batch normalisation; Adam's is an L2 term of all.

    Args:
        model: of whose parameters those learn that require a gradient.
        recipe: kind, first learning rate and so on.
        fast: modules of ``model`` that learn `SCRATCH_RATE` times as fast: they start from scratch, the rest does not.
    """
    hurried = {parameter for module in fast for parameter in module.parameters()}
    spared = 0.0 if recipe.optimizer == "adamw" else recipe.weight_decay
    groups: list[dict[str, Any]] = []
    for rate in (1.0, SCRATCH_RATE):
        learning = [p for p in model.parameters() if p.requires_grad and (p in hurried) == (rate == SCRATCH_RATE)]
        if learning:
            groups += [
                {"params": [p for p in learning if p.ndim > 1], "weight_decay": recipe.weight_decay, "rate": rate},
                {"params": [p for p in learning if p.ndim <= 1], "weight_decay": spared, "rate": rate},
            ]
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.stages[0].lr, betas=recipe.betas, eps=recipe.eps, fused=True)


def unscaled(state: dict[str, Any], eps: float) -> dict[str, Any]:
    """Adam's state for gradients as they are, in place. Runs of version 0.1 multiplied the loss by a factor, which is
    in the moments; their eps was larger by it."""
    for group in state["param_groups"]:
        factor = group["eps"] / eps
        if math.isclose(factor, 1):
            continue
        for moments in (state["state"][index] for index in group["params"] if index in state["state"]):
            moments["exp_avg"] /= factor
            moments["exp_avg_sq"] /= factor**2
        group["eps"] = eps
    return state
