"""Occluders: a filled rectangle, and a piece that is cut out of another picture."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.transfer import upload
from .dice import Bools, Dice, Floats, columns
from .settings import Augmentation
from .tensors import affine_grid, apply, numbers, places


@dataclass(frozen=True)
class Occluders:
    """The drawn numbers of B samples. Lengths are shares of the crop's side.

    Attributes:
        rectangle: (B,) whether there is a rectangle.
        rectangle_at: (B, 4) its centre and half sides.
        rectangle_colour: (B, 3) in [0, 1].
        piece: (B,) whether there is a piece.
        piece_at: (B, 7) its centre, half axes, angle, shape (1: ellipse, 0: rectangle), and steepness of its edge.
        piece_from: (B, 4) centre in the donor, share of the donor that the crop's side covers, and angle.
        piece_donor: (B,) the donor, as a share of the number of donors.
    """

    rectangle: Bools
    rectangle_at: Floats
    rectangle_colour: Floats
    piece: Bools
    piece_at: Floats
    piece_from: Floats
    piece_donor: Floats

    def donors(self, count: int) -> NDArray[np.int64]:
        """(B,) the number, out of ``count``, of the donor of each sample's piece."""
        return (self.piece_donor * count).astype(np.int64)

    def at(self, rows: slice) -> Occluders:
        """The numbers of some of the samples."""
        return Occluders(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw_occluders(dice: Dice, s: Augmentation) -> Occluders:
    """Draw the numbers of the occluders."""
    rectangle = dice.chance(s.rectangle)
    # centre and half sides, in shares of the crop's side
    centre, sides = (dice.uniform(), dice.uniform()), (dice.between(s.rectangle_size), dice.between(s.rectangle_size))
    rectangle_at = columns(*centre, sides[0] / 2, sides[1] / 2)
    rectangle_colour = columns(dice.uniform(), dice.uniform(), dice.uniform())

    piece = dice.chance(s.piece)
    # centre, half axes, angle, shape (1: ellipse, 0: rectangle), steepness of the edge
    centre, sides = (dice.uniform(), dice.uniform()), (dice.between(s.piece_size), dice.between(s.piece_size))
    shape = (dice.around(math.pi), np.round(dice.uniform()), dice.logarithmic((6.0, 40.0)))
    piece_at = columns(*centre, sides[0] / 2, sides[1] / 2, *shape)
    # centre in the donor, share of the donor that the crop's side covers, angle
    piece_from = columns(dice.uniform(), dice.uniform(), dice.between((0.4, 1.0)), dice.around(math.pi))
    piece_donor = dice.uniform()
    return Occluders(rectangle, rectangle_at, rectangle_colour, piece, piece_at, piece_from, piece_donor)


def occlude(x: Tensor, drawn: Occluders, pictures: Tensor, donor: NDArray[np.int64]) -> Tensor:
    """Draw occluders into pictures (B, 3, S, S). ``donor`` (B,): the number of each sample's donor in ``pictures``."""
    x = apply(x, drawn.rectangle, _fill, drawn.rectangle_at, drawn.rectangle_colour)

    def paste(part: Tensor, at: Floats, origin: Floats, which: NDArray[np.int64]) -> Tensor:
        return _paste(part, at, origin, pictures[upload(which, pictures.device)])

    return apply(x, drawn.piece, paste, drawn.piece_at, drawn.piece_from, donor)


def _fill(x: Tensor, at: Floats, colour: Floats) -> Tensor:
    cx, cy, width, height = numbers(at, x.device)[..., None].unbind(1)
    t = places(x.shape[-1], x.device)
    inside = ((t - cy).abs() < height)[:, None, :, None] & ((t - cx).abs() < width)[:, None, None, :]
    return torch.where(inside, numbers(colour, x.device)[:, :, None, None], x)


def _paste(x: Tensor, at: Floats, origin: Floats, pictures: Tensor) -> Tensor:
    size = x.shape[-1]
    centre, axes = at[:, :2] * size - 0.5, at[:, 2:4] * size
    # only pixels that a piece can cover; an edge is soft over half of 1 / steepness, at most 1 / 12
    reach = 1.1 * np.linalg.norm(axes, axis=1, keepdims=True)
    left, top = np.floor((centre - reach).min(0)).clip(0, size - 1).astype(int)
    right, bottom = np.ceil((centre + reach).max(0) + 1).clip(1, size).astype(int)
    window = (right - left, bottom - top, left, top)
    # the position of a pixel in units of the piece's axes
    cos, sin = np.cos(at[:, 4]), np.sin(at[:, 4])
    own = np.stack((columns(cos, sin), columns(-sin, cos)), 1) / axes[:, :, None]
    place = affine_grid(numbers(_about(own, centre), x.device), *window)
    ellipse, steepness = numbers(at[:, 5:7], x.device)[:, :, None, None].unbind(1)
    radius = torch.where(ellipse > 0, place.square().sum(-1).sqrt(), place.abs().amax(-1))
    alpha = ((1 - radius) * steepness + 0.5).clamp_(0, 1)[:, None]
    # and its position in the donor picture, whose edges are at -1 and 1
    cos, sin = np.cos(origin[:, 3]), np.sin(origin[:, 3])
    turn = np.stack((columns(cos, -sin), columns(sin, cos)), 1) * (2 * origin[:, 2, None, None] / size)
    source = _about(turn, centre)
    source[:, :, 2] += origin[:, :2] - 0.5
    grid = affine_grid(numbers(source, x.device), *window)
    content = pictures.permute(0, 3, 1, 2).float()
    content = F.grid_sample(content, grid, padding_mode="reflection", align_corners=False).mul_(1 / 255)
    view = x[:, :, top:bottom, left:right]
    view.lerp_(content, alpha.expand_as(view))
    return x


def _about(linear: Floats, centre: Floats) -> Floats:
    """(B, 2, 3) affines p -> linear (p - centre)."""
    return np.concatenate((linear, -linear @ centre[:, :, None]), -1)
