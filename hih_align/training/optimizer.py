"""The optimiser of a recipe."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam or AdamW. AdamW's weight decay spares biases and batch normalisation; Adam's is an L2 term of all."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": spared, "weight_decay": 0.0 if recipe.optimizer == "adamw" else recipe.weight_decay},
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
