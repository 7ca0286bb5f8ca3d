"""The effects of light, lens and sensor: light, colour, blur, resolution and noise, in that order."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .dice import Bools, Dice, Floats, columns
from .settings import Augmentation
from .tensors import apply, numbers, places

# weights of grey by Rec. 601
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Camera:
    """The drawn numbers of B samples.

    Attributes:
        light: (B,) whether one side of the face is dark.
        light_at: (B, 4) direction, place of the shadow's edge and its softness (both in half crops), and strength.
        colour: (B,) whether colours change.
        colour_matrix: (B, 3, 4) matrix of the channels, with a column that is added.
        gamma: (B,) whether values are raised to a power.
        exponent: (B,) the power.
        soft: (B,) whether the picture is blurred.
        soft_by: (B, 3) sigma, and motion in x and y, as shares of the crop's side.
        coarse: (B,) whether the resolution is low.
        coarse_share: (B,) the low resolution as a share of the crop's side.
        noise: (B,) whether there is noise.
        noise_sigma: (B,) standard deviation of the noise, 0 without noise.
        noise_at: (B, 2) the place in the noise tile.
    """

    light: Bools
    light_at: Floats
    colour: Bools
    colour_matrix: Floats
    gamma: Bools
    exponent: Floats
    soft: Bools
    soft_by: Floats
    coarse: Bools
    coarse_share: Floats
    noise: Bools
    noise_sigma: Floats
    noise_at: Floats

    def at(self, rows: slice) -> Camera:
        """The numbers of some of the samples."""
        return Camera(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw_camera(dice: Dice, s: Augmentation) -> Camera:
    """Draw the numbers of all camera effects."""
    light = dice.chance(s.light)
    # direction, place of the shadow's edge and its softness (both in half crops), strength
    light_at = columns(
        dice.around(math.pi), dice.around(0.6), dice.logarithmic((0.04, 0.6)), dice.between(s.light_strength)
    )

    coloured = dice.chance(s.colour)
    brightness, contrast = dice.around(s.brightness), 1 + dice.around(s.contrast)
    saturation = 1 + dice.around(s.saturation)
    tint = 1 + columns(*(dice.around(s.tint) for _ in range(3)))
    grey = dice.chance(s.grey)
    gamma, exponent = dice.chance(s.gamma), dice.logarithmic(s.gamma_range)

    blur, sigma = dice.chance(s.blur), dice.between(s.blur_sigma)
    motion, length, direction = dice.chance(s.motion), dice.between(s.motion_length), dice.around(math.pi)
    sigma, length = np.where(blur, sigma, 0.0), np.where(motion, length, 0.0)
    coarse, coarse_share = dice.chance(s.low_resolution), dice.logarithmic(s.low_resolution_share)
    noise, noise_sigma = dice.chance(s.noise), dice.between(s.noise_sigma)
    return Camera(
        light=light,
        light_at=light_at,
        colour=coloured | grey,
        colour_matrix=_colour_matrix(coloured, grey, brightness, contrast, saturation, tint),
        gamma=gamma,
        exponent=exponent,
        soft=blur | motion,
        soft_by=columns(sigma, length * np.cos(direction), length * np.sin(direction)),
        coarse=coarse,
        coarse_share=coarse_share,
        noise=noise,
        noise_sigma=np.where(noise, noise_sigma, 0.0),
        noise_at=columns(dice.uniform(), dice.uniform()),
    )


def _colour_matrix(
    coloured: Bools, grey: Bools, brightness: Floats, contrast: Floats, saturation: Floats, tint: Floats
) -> Floats:
    """(B, 3, 4) colour matrices with an added column. Contrast leaves a middle grey unchanged."""
    middle = 0.45
    saturation = np.where(grey, 0.0, np.where(coloured, saturation, 1.0))[:, None, None]
    mixed = saturation * np.eye(3) + (1 - saturation) * np.array(_LUMA)
    contrast = np.where(coloured, contrast, 1.0)[:, None, None]
    tint = np.where(coloured[:, None], tint, 1.0)[:, None, :]
    offset = np.where(coloured, brightness, 0.0)[:, None, None] + middle * (1 - contrast)
    return np.concatenate((contrast * mixed * tint, np.broadcast_to(offset, (len(grey), 3, 1))), -1)


def photograph(x: Tensor, drawn: Camera) -> Tensor:
    """Apply light, colour, blur, resolution and noise."""
    x = apply(x, drawn.light, _shade, drawn.light_at)
    x = apply(x, drawn.colour, _recolour, drawn.colour_matrix)
    x = apply(x, drawn.gamma, _raise, drawn.exponent)
    x = apply(x, drawn.soft, _blur, drawn.soft_by)
    x = apply(x, drawn.coarse, _coarsen, drawn.coarse_share, drawn.noise_sigma, drawn.noise_at)
    x = apply(x, drawn.noise & ~drawn.coarse, partial(_add_noise, room=x.shape[-1]), drawn.noise_sigma, drawn.noise_at)
    return x.clamp_(0, 1)


def _shade(x: Tensor, at: Floats) -> Tensor:
    direction, edge, softness, strength = at.T
    across = columns(np.cos(direction), np.sin(direction), -edge) / softness[:, None]
    along, down, offset = numbers(across, x.device)[:, :, None].unbind(1)
    t = 2 * places(x.shape[-1], x.device) - 1
    shadow = torch.sigmoid((along * t)[:, None, None, :] + (down * t + offset)[:, None, :, None])
    by = numbers(strength, x.device)[:, None, None, None]
    # a camera exposes for the whole picture, so the lit side becomes brighter
    return x * ((1 - by * shadow) * (1 + 0.4 * by))


def _recolour(x: Tensor, matrix: Floats) -> Tensor:
    m = numbers(matrix, x.device)
    return torch.baddbmm(m[:, :, 3:], m[:, :, :3], x.flatten(2)).view_as(x)


def _raise(x: Tensor, exponent: Floats) -> Tensor:
    return x.clamp(0, 1).pow(numbers(exponent, x.device)[:, None, None, None])


#: Width of the border around an image during blurring, as a share of its side: circular convolution wraps into it.
PADDING = 0.0625


def _blur(x: Tensor, by: Floats) -> Tensor:
    """Gaussian blur and straight motion blur at once, as a product in the frequency domain."""
    size = x.shape[-1]
    pad = int(size * PADDING)
    wide = F.pad(x.clamp(0, 1), (pad, pad, pad, pad), mode="reflect")
    sigma, along, down = numbers(by * size, x.device)[:, :, None, None].unbind(1)
    fx = torch.fft.rfftfreq(wide.shape[-1], device=x.device)
    fy = torch.fft.fftfreq(wide.shape[-1], device=x.device)[:, None]
    transfer = torch.exp(-2 * math.pi**2 * sigma.square() * (fx.square() + fy.square()))
    if by[:, 1:].any():
        transfer = transfer * torch.sinc(along * fx + down * fy)
    blurred = torch.fft.irfft2(torch.fft.rfft2(wide) * transfer[:, None], s=wide.shape[-2:])
    return blurred[..., pad:-pad, pad:-pad].contiguous()


def _coarsen(x: Tensor, share: Floats, sigma: Floats, at: Floats) -> Tensor:
    """Reduce by area averaging, add noise, and enlarge bilinearly: so a crop shows a small face."""
    size = x.shape[-1]
    count = np.maximum(1, np.round(share * size))
    most = int(count.max())
    cells = numbers(count, x.device)[:, None, None]
    cell = torch.arange(most, device=x.device, dtype=torch.float32)
    pixel = torch.arange(size, device=x.device, dtype=torch.float32)
    # (B, most, size): overlap of cell i and pixel j, in cells; `enlarge` ignores rows beyond a sample's count
    right = torch.minimum((cell + 1)[:, None], (pixel + 1) * cells / size)
    reduce = (right - torch.maximum(cell[:, None], pixel * cells / size)).clamp_(min=0)
    place = ((pixel + 0.5) * cells / size - 0.5).clamp(min=0).minimum(cells - 1)
    enlarge = (1 - (place.transpose(1, 2) - cell).abs()).clamp_(min=0)  # (B, size, most)
    small = reduce[:, None] @ x.clamp(0, 1) @ reduce.transpose(1, 2)[:, None]
    small = _add_noise(small, sigma, at, size)
    return enlarge[:, None] @ small @ enlarge.transpose(1, 2)[:, None]


def _add_noise(x: Tensor, sigma: Floats, at: Floats, room: int) -> Tensor:
    """Add noise. Its place in the tile depends on ``room``, which is at least x's size and the same in every batch."""
    size, tile = x.shape[-1], noise_tile(x.device)
    times = -(-room // tile.shape[-1])
    tile = tile.repeat(1, times, times) if times > 1 else tile
    corners = (at * (tile.shape[-1] - room + 1)).astype(int)
    noise = torch.stack([tile[:, top : top + size, left : left + size] for left, top in corners])
    # photon noise: bright parts get more noise, and dark parts are not lost in it
    return x + noise * (x + 0.3) * numbers(sigma, x.device)[:, None, None, None]


@lru_cache(maxsize=4)
def noise_tile(device: torch.device) -> Tensor:
    """(3, 640, 640) fixed normal numbers. Samples take their noise from random places in it."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 640, 640, generator=generator).to(device)
