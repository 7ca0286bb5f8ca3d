"""The optimiser of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from .recipe import Recipe

#: Factor of the learning rate for layers that start from scratch, relative to layers that are already trained.
SCRATCH_RATE = 10.0


def make_optimizer(model: nn.Module, recipe: Recipe, fast: Sequence[nn.Module] = ()) -> torch.optim.Optimizer:
    """Create the Adam or AdamW optimiser of a recipe.

    With AdamW, biases and parameters of batch normalisation have no weight decay. With Adam, the weight decay is an L2
    term of all parameters.

    Args:
        model: the model. Its parameters that require a gradient are trained.
        recipe: the recipe with the settings of the optimiser.
        fast: modules of ``model`` that start from scratch. Their learning rate is `SCRATCH_RATE` times higher.
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
    """Convert the optimiser state of a run of version 0.1, in place.

    Version 0.1 multiplied the loss and eps by a factor, so the moments contain this factor. They are divided by it.
    """
    for group in state["param_groups"]:
        factor = group["eps"] / eps
        if math.isclose(factor, 1):
            continue
        for moments in (state["state"][index] for index in group["params"] if index in state["state"]):
            moments["exp_avg"] /= factor
            moments["exp_avg_sq"] /= factor**2
        group["eps"] = eps
    return state
