"""What is minimised: Eq. 5 and 6, the paper's ablations of them, and our additions.

All losses are means over landmarks of a batch, weighted by each landmark's confidence. A landmark without a label
(weight 0, or outside the map) adds nothing: the gradient of its heatmaps is exactly zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from . import heatmaps
from .heatmaps import Decoder, Encoded, Rounding


@dataclass(frozen=True)
class LossSettings:
    """Which terms count, and how targets are made.

    Attributes:
        supervise: integer heatmaps under supervision: those of the "last" stack (Sec. III-D) or the sum over "all".
        integer_sigma: Gaussian of Eq. 1, heatmap pixels; 1.5, for 300W 1.0 (Sec. IV-A.3).
        decimal: "csc" (Eq. 5), "mse" (Tab. VIII), or "none".
        alpha: weight of the decimal loss (Eq. 6): 0.1 for HIH_T, 0.05 for HIH_S and HIH_B.
        decimal_sigma: Gaussian of Eq. 3, decimal cells (Tab. X).
        hard_labels: decimal targets are one at the landmark's cell and zero elsewhere (Tab. VII).
        rounding: how labels are put on the decimal grid, see `heatmaps.split`.
        temperature: of the softmax that makes a distribution of the decimal target. 1 is Eq. 5 as printed, where
            values in [0, 1] give a nearly uniform one; 0.1 makes it follow the Gaussian. The prediction's softmax
            always has temperature 1.
        gate: the decimal loss of a landmark counts only where its integer maximum is within so many heatmap pixels
            of the label's, per axis; None: always.
        expectation: weight of the smooth L1 distance, in heatmap pixels, between the expectation decoder's output
            and the landmark; without decimal heatmaps, between the centroid and the landmark's pixel. Its gradient is
            larger than that of heatmaps' mean squares by far: the recipe ``wild`` has 3e-5.
        beta: where that distance turns from square to linear, heatmap pixels.
        decoder: the decoder that the term trains.
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
            raise ValueError(f"alpha, expectation and gate are {self.alpha}, {self.expectation}, {self.gate}: negative")


class Loss(NamedTuple):
    """``total`` () float32 is what to minimise; ``parts`` its terms before their weights, detached."""

    total: Tensor
    parts: dict[str, Tensor]


def weighted_mean(values: Tensor, weights: Tensor, count: float | Tensor | None = None) -> Tensor:
    """(..., K) losses and weights -> (): their weighted sum over ``count``.

    ``count`` is the number of landmarks with a weight above 0 unless given. It is given where a batch is cut into
    pieces (several processes, accumulation): with the mean count of the pieces, the mean over the pieces is the loss
    of the whole batch. Values at weight 0 are never read, and may be NaN.
    """
    used = weights > 0
    total = (torch.where(used, values, 0) * weights).sum()
    return total / (used.sum().clamp(min=1) if count is None else count)


def integer_loss(maps: Tensor, target: Tensor, weights: Tensor, count: float | Tensor | None = None) -> Tensor:
    """MSE of integer heatmaps, the first term of Eq. 6: (..., K, h, w) twice and (..., K) -> ()."""
    return weighted_mean((maps.float() - target).square().mean((-2, -1)), weights, count)


def csc_loss(
    maps: Tensor, target: Tensor, weights: Tensor, temperature: float = 1.0, count: float | Tensor | None = None
) -> Tensor:
    """Coordinate soft-classification (Eq. 5): KL(softmax(target / temperature), softmax(maps)) over each map's cells.

    Args:
        maps: (..., K, n, n) decimal heatmaps, logits.
        target: (..., K, n, n) decimal targets in [0, 1].
        weights: (..., K).
        temperature: 1 is Eq. 5.
        count: see `weighted_mean`.

    The sum over cells is divided by n * n, as Eq. 5 has it.
    """
    log_q = maps.float().flatten(-2).log_softmax(-1)
    log_p = (target.flatten(-2) / temperature).log_softmax(-1)
    return weighted_mean(F.kl_div(log_q, log_p, reduction="none", log_target=True).mean(-1), weights, count)


def expectation_loss(
    points: Tensor, target: Tensor, weights: Tensor, beta: float = 0.25, count: float | Tensor | None = None
) -> Tensor:
    """Smooth L1 of decoded landmarks, (..., K, 2) heatmap pixels, mean over x and y."""
    target = torch.where((weights > 0)[..., None], target, 0)  # a missing label may be NaN: its gradient would be too
    return weighted_mean(F.smooth_l1_loss(points, target, reduction="none", beta=beta).mean(-1), weights, count)


def one_hot(target: Tensor) -> Tensor:
    """(..., n, n) -> the same, 1 at each map's maximum and 0 elsewhere: the hard labels of Tab. VII."""
    flat = target.flatten(-2)
    hard = torch.zeros_like(flat).scatter_(-1, flat.argmax(-1, keepdim=True), 1.0)
    return hard.view_as(target)


def near(integer: Tensor, points: Tensor, gate: float) -> Tensor:
    """(..., K, h, w) and (..., K, 2) -> (..., K) bool: maxima within ``gate`` pixels of the label's, per axis."""
    return ((heatmaps.peak(integer.detach()) - points.floor()).abs() <= gate).all(-1)


def integer_parts(
    integer: Tensor, points: Tensor, weights: Tensor, settings: LossSettings, size: int, count: float | Tensor | None
) -> tuple[Tensor, Encoded, Tensor]:
    """What every variant shares: the integer loss, the targets, and the weights of landmarks inside the map.

    ``integer`` is (B, stacks, K, h, w), ``points`` (B, K, 2) heatmap pixels, ``size`` the decimal targets' side.
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
    """The total loss (Eq. 6, and what ``settings`` adds).

    Args:
        integer: (B, stacks, K, h, w) integer heatmaps, as `HIHNet` gives them.
        decimal: (B, K, n, n) decimal heatmaps, n 4, 8 or 16; None leaves their terms out.
        points: (B, K, 2) float landmarks in heatmap pixels (crop pixels / `heatmaps.STRIDE`).
        weights: (B, K) float in [0, 1]; 0 where a landmark has no label.
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
        if decimal is None:  # integer heatmaps alone know the pixel
            decoder, goal = settings.decoder, points.floor()
            decoded = heatmaps.centroid(integer[:, -1].float(), decoder.radius, decoder.power)
        else:
            decoded, goal = heatmaps.decode(integer[:, -1], decimal, settings.decoder), points
        loss = expectation_loss(decoded, goal, weights, settings.beta, count)
        total = total + settings.expectation * loss
        parts["expectation"] = loss.detach()
    return Loss(total, parts)
