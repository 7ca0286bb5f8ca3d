"""The losses: Eq. 5 and 6, the paper's ablations of them, and the losses that this package adds.

Each loss is a mean over the landmarks of a batch, weighted by the confidence of each landmark. A landmark that has no
label (weight 0) or lies outside the map contributes nothing: the gradient of its heatmaps is exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import heatmaps
from .decoder import Decoder, Rounding
from .heatmaps import Encoded


@dataclass(frozen=True)
class LossSettings:
    """The terms of the loss and how targets are made.

    Attributes:
        supervise: which integer heatmaps are supervised: "last": those of the last stack (Sec. III-D); "all": those of
            all stacks, summed.
        integer_sigma: sigma of the Gaussian of Eq. 1, in heatmap pixels: 1.5, or 1.0 for 300W (Sec. IV-A.3).
        decimal: "csc" (Eq. 5), "mse" (Tab. VIII), or "none".
        alpha: weight of the decimal loss (Eq. 6): 0.1 for HIH_T, 0.05 for HIH_S and HIH_B.
        decimal_sigma: sigma of the Gaussian of Eq. 3, in decimal cells (Tab. X).
        hard_labels: the decimal target is one at the landmark's cell and zero elsewhere (Tab. VII).
        rounding: how labels are put on the decimal grid; see `heatmaps.split`.
        temperature: temperature of the softmax that turns the decimal target into a distribution. 1 is Eq. 5 as
            printed; because targets lie in [0, 1], it gives a nearly uniform distribution. With 0.1 the distribution
            follows the Gaussian. The softmax of the prediction always has temperature 1.
        gate: the decimal loss of a landmark counts only if the maximum of its integer heatmap is at most this many
            heatmap pixels from the label, per axis; None: it always counts.
        expectation: weight of the smooth L1 distance, in heatmap pixels, between the landmark and the output of the
            expectation decoder. Without decimal heatmaps it is the distance between the landmark's pixel and the
            centroid. The gradient of this term is far larger than that of the mean squared heatmap error; the recipe
            ``wild`` uses a weight of 3e-5.
        beta: the distance, in heatmap pixels, where smooth L1 changes from square to linear.
        decoder: the decoder that the expectation term trains.
    """

    supervise: Literal["last", "all"] = "last"
    integer_sigma: float = 1.5
    decimal: Literal["csc", "mse", "none"] = "csc"
    alpha: float = 0.1
    decimal_sigma: float = 1.0
    hard_labels: bool = False
    rounding: Rounding = "round"
    temperature: float = 1.0
    gate: float | None = None
    expectation: float = 0.0
    beta: float = 0.25
    decoder: Decoder = field(default_factory=Decoder)

    def __post_init__(self) -> None:
        for name, allowed in (("supervise", ("last", "all")), ("decimal", ("csc", "mse", "none"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of {allowed}")
        for name in ("integer_sigma", "decimal_sigma", "temperature", "beta"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a positive number")
        if self.alpha < 0 or self.expectation < 0 or (self.gate is not None and self.gate < 0):
            raise ValueError(
                f"alpha, expectation and gate are {self.alpha}, {self.expectation} and {self.gate}, expected at least 0"
            )


class Loss(NamedTuple):
    """``total`` is the () float32 loss to minimise. ``parts`` holds its terms, unweighted and detached."""

    total: Tensor
    parts: dict[str, Tensor]


def weighted_mean(values: Tensor, weights: Tensor, count: float | Tensor | None = None) -> Tensor:
    """Sum of the weighted losses divided by ``count``; losses and weights are (..., K), the result is ().

    By default ``count`` is the number of landmarks with a weight above 0. Pass it if a batch is split (several
    processes, gradient accumulation): with the mean count of the pieces, the mean over the pieces is the loss of the
    whole batch. Values with weight 0 are not read and may be NaN.
    """
    used = weights > 0
    total = (torch.where(used, values, 0) * weights).sum()
    return total / (used.sum().clamp(min=1) if count is None else count)


def integer_loss(maps: Tensor, target: Tensor, weights: Tensor, count: float | Tensor | None = None) -> Tensor:
    """MSE of integer heatmaps, the first term of Eq. 6: two (..., K, h, w) and weights (..., K) -> ()."""
    return weighted_mean((maps.float() - target).square().mean((-2, -1)), weights, count)


def csc_loss(
    maps: Tensor, target: Tensor, weights: Tensor, temperature: float = 1.0, count: float | Tensor | None = None
) -> Tensor:
    """Coordinate soft-classification (Eq. 5): KL(softmax(target / temperature), softmax(maps)) over the cells of a map.

    Args:
        maps: (..., K, n, n) decimal heatmaps (logits).
        target: (..., K, n, n) decimal targets in [0, 1].
        weights: (..., K).
        temperature: 1 is Eq. 5.
        count: see `weighted_mean`.

    The sum over cells is divided by n * n, as in Eq. 5.
    """
    log_q = maps.float().flatten(-2).log_softmax(-1)
    log_p = (target.flatten(-2) / temperature).log_softmax(-1)
    return weighted_mean(F.kl_div(log_q, log_p, reduction="none", log_target=True).mean(-1), weights, count)


def expectation_loss(
    points: Tensor, target: Tensor, weights: Tensor, beta: float = 0.25, count: float | Tensor | None = None
) -> Tensor:
    """Smooth L1 distance of decoded landmarks (..., K, 2) in heatmap pixels, averaged over x and y."""
    target = torch.where((weights > 0)[..., None], target, 0)  # a missing label may be NaN, and so its gradient
    return weighted_mean(F.smooth_l1_loss(points, target, reduction="none", beta=beta).mean(-1), weights, count)


def one_hot(target: Tensor) -> Tensor:
    """Hard labels (Tab. VII): 1 at the maximum of each map (..., n, n), 0 elsewhere."""
    flat = target.flatten(-2)
    hard = torch.zeros_like(flat).scatter_(-1, flat.argmax(-1, keepdim=True), 1.0)
    return hard.view_as(target)


def near(integer: Tensor, points: Tensor, gate: float) -> Tensor:
    """(..., K) bool: whether the maximum of each map (..., K, h, w) is within ``gate`` pixels of its label."""
    return ((heatmaps.peak(integer.detach()) - points.floor()).abs() <= gate).all(-1)


def integer_parts(
    integer: Tensor, points: Tensor, weights: Tensor, settings: LossSettings, size: int, count: float | Tensor | None
) -> tuple[Tensor, Encoded, Tensor]:
    """The part that all variants share: integer loss, targets, and the weights of the landmarks inside the map.

    ``integer`` is (B, stacks, K, h, w), ``points`` is (B, K, 2) in heatmap pixels, ``size`` is the side of the decimal
    targets.
    """
    target = heatmaps.encode(
        points,
        (integer.shape[-2], integer.shape[-1]),
        size,
        settings.integer_sigma,
        settings.decimal_sigma,
        settings.rounding,
    )
    weights = weights * target.mask
    stacks = range(integer.shape[1]) if settings.supervise == "all" else [integer.shape[1] - 1]
    losses = [integer_loss(integer[:, i], target.integer, weights, count) for i in stacks]
    return torch.stack(losses).sum(), target, weights


def hih_loss(
    integer: Tensor,
    decimal: Tensor | None,
    points: Tensor,
    weights: Tensor,
    settings: LossSettings,
    count: float | Tensor | None = None,
) -> Loss:
    """The total loss: Eq. 6 and the terms that ``settings`` adds.

    Args:
        integer: (B, stacks, K, h, w) integer heatmaps of `HIHNet`.
        decimal: (B, K, n, n) decimal heatmaps, n is 4, 8 or 16; None leaves out their terms.
        points: (B, K, 2) float landmarks in heatmap pixels (crop pixels / `decoder.STRIDE`).
        weights: (B, K) float in [0, 1]; 0 for a landmark without a label.
        settings: see `LossSettings`.
        count: see `weighted_mean`.
    """
    if count is None:
        count = (weights > 0).sum().clamp(min=1)
    size = 8 if decimal is None else decimal.shape[-1]
    total, target, weights = integer_parts(integer, points, weights, settings, size, count)
    parts = {"integer": total.detach()}
    if decimal is not None and settings.decimal != "none":
        gated = weights if settings.gate is None else weights * near(integer[:, -1], points, settings.gate)
        labels = one_hot(target.decimal) if settings.hard_labels else target.decimal
        if settings.decimal == "csc":
            loss = csc_loss(decimal, labels, gated, settings.temperature, count)
        else:
            loss = integer_loss(decimal, labels, gated, count)
        total = total + settings.alpha * loss
        parts["decimal"] = loss.detach()
    if settings.expectation:
        if decimal is None:  # integer heatmaps alone give only the pixel
            decoder, goal = settings.decoder, points.floor()
            decoded = heatmaps.centroid(integer[:, -1].float(), decoder.radius, decoder.power)
        else:
            decoded, goal = heatmaps.decode(integer[:, -1], decimal, settings.decoder), points
        loss = expectation_loss(decoded, goal, weights, settings.beta, count)
        total = total + settings.expectation * loss
        parts["expectation"] = loss.detach()
    return Loss(total, parts)
