"""Nested heatmaps: encoding landmarks as integer and decimal heatmaps, and decoding them (Sec. III-B, Eq. 1-4).

A landmark p, in heatmap pixels, is split into its pixel c = floor(p) and the place inside that pixel, f = p - c, on a
grid of n x n cells. The *integer* heatmap is a Gaussian around c, the *decimal* heatmap is a Gaussian around the cell
of f. Training encodes and inference decodes, both with this module.

All functions are batched torch on the device of their input. Leading dimensions are free.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .decoder import ARGMAX, Decoder, Rounding
from .decoder import STRIDE as STRIDE  # the old path `hih_align.heatmaps` has it, until version 0.3


class Encoded(NamedTuple):
    """Training targets of K landmarks.

    ``integer`` (..., K, h, w) and ``decimal`` (..., K, n, n) are float32 in [0, 1]. ``mask`` (..., K) is bool; it is
    False for a landmark outside the map, whose heatmaps are all zero.
    """

    integer: Tensor
    decimal: Tensor
    mask: Tensor


def split(points: Tensor, decimal_size: int, rounding: Rounding = "round") -> tuple[Tensor, Tensor]:
    """Integer pixel and decimal cell of each landmark (Eq. 2).

    Args:
        points: (..., 2) float, in heatmap pixels.
        decimal_size: n, the number of cells per heatmap pixel and axis.
        rounding: how the fraction is put on the decimal grid. "round" takes the nearest cell (n becomes n - 1), as the
            authors did: the "Ideal" column of Tab. IX shows it. "floor" is Eq. 2 as printed.

    Returns:
        Pixel and cell, (..., 2) each, as float tensors of integers. The cell is in [0, n - 1].
    """
    if rounding not in ("round", "floor"):
        raise ValueError(f"rounding is {rounding!r}, expected 'round' or 'floor'")
    pixel = points.floor()
    fraction = (points - pixel) * decimal_size
    cell = (fraction + 0.5).floor() if rounding == "round" else fraction.floor()
    return pixel, cell.clamp(0, decimal_size - 1)


def encode(
    points: Tensor,
    size: tuple[int, int] = (64, 64),
    decimal_size: int = 8,
    integer_sigma: float = 1.5,
    decimal_sigma: float = 1.0,
    rounding: Rounding = "round",
) -> Encoded:
    """Encode landmarks as nested heatmaps (Eq. 1-3).

    Args:
        points: (..., K, 2) landmarks (x, y) in heatmap pixels: crop pixels / `decoder.STRIDE`.
        size: (height, width) of the integer heatmaps.
        decimal_size: side n of the decimal heatmaps: 4, 8 or 16.
        integer_sigma: sigma of the Gaussian of Eq. 1, in heatmap pixels: 1.5, or 1.0 for 300W (Sec. IV-A.3).
        decimal_sigma: sigma of the Gaussian of Eq. 3, in decimal cells: 1.0.
        rounding: see `split`.

    Both Gaussians are cut off at 3 sigma, measured from the unrounded landmark, as d in Eq. 1 and 3.

    Raises:
        ValueError: the points have another shape, the decimal size is another, or a sigma is not positive.
    """
    if points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"points has shape {tuple(points.shape)}, expected (..., K, 2)")
    if decimal_size not in (4, 8, 16):
        raise ValueError(f"decimal_size is {decimal_size}, expected 4, 8 or 16")
    if integer_sigma <= 0 or decimal_sigma <= 0:
        raise ValueError(f"integer_sigma, decimal_sigma are {integer_sigma}, {decimal_sigma}, expected positive")
    height, width = size
    if points.dtype != torch.float64:  # float64 is kept: float32 could round a point across a border of pixels
        points = points.float()
    x, y = points.unbind(-1)
    mask = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # NaN gives False
    points = torch.where(mask[..., None], points, torch.zeros_like(points))
    pixel, cell = split(points, decimal_size, rounding)
    integer = _gaussian(pixel, points, (height, width), integer_sigma)
    decimal = _gaussian(cell, (points - pixel) * decimal_size, (decimal_size, decimal_size), decimal_sigma)
    keep = mask[..., None, None]
    return Encoded((integer * keep).float(), (decimal * keep).float(), mask)


def _gaussian(centre: Tensor, exact: Tensor, size: tuple[int, int], sigma: float) -> Tensor:
    """(..., 2) -> (..., h, w): exp(-|g - centre|^2 / 2 sigma^2) where |g - exact| <= 3 sigma, else 0."""
    y = torch.arange(size[0], device=centre.device, dtype=centre.dtype)
    x = torch.arange(size[1], device=centre.device, dtype=centre.dtype)

    def squared_distance(c: Tensor) -> Tensor:
        return (y - c[..., 1, None]).square()[..., :, None] + (x - c[..., 0, None]).square()[..., None, :]

    value = torch.exp(squared_distance(centre) / (-2 * sigma**2))
    return value * (squared_distance(exact) <= (3 * sigma) ** 2)


def decode(integer: Tensor, decimal: Tensor, decoder: Decoder = ARGMAX) -> Tensor:
    """Decode nested heatmaps to landmarks (Eq. 4, or the expectation).

    Args:
        integer: (..., K, h, w) integer heatmaps.
        decimal: (..., K, n, n) decimal heatmaps of the same leading dimensions.
        decoder: the method of decoding, see `Decoder`.

    Returns:
        (..., K, 2) float32 landmarks (x, y) in heatmap pixels.

    Raises:
        ValueError: the shapes of the two do not fit.
    """
    if integer.ndim < 3 or decimal.ndim < 3 or integer.shape[:-2] != decimal.shape[:-2]:
        raise ValueError(
            f"integer {tuple(integer.shape)} and decimal {tuple(decimal.shape)} heatmaps, "
            "expected (..., K, h, w) and (..., K, n, n) with the same leading dimensions"
        )
    return _pixel(integer, decoder) + _within(decimal, decoder)


def decode_each(integer: Tensor, decimal: Tensor, decoders: Iterable[Decoder]) -> dict[Decoder, Tensor]:
    """Decode by each of several decoders. Decoders that differ in one part share the other part, which is slow.

    Args:
        integer, decimal: as in `decode`.
        decoders: the decoders. One that comes twice has one result.

    Returns:
        (..., K, 2) float32 landmarks in heatmap pixels by decoder, equal to those of `decode`.
    """
    pixels: dict[Decoder, Tensor] = {}
    withins: dict[Decoder, Tensor] = {}
    points = {}
    for decoder in decoders:
        of_pixel = replace(decoder, temperature=1.0, bin_offset=0.0, shift=(0.0, 0.0))
        of_within = replace(decoder, radius=None, power=1.0)
        if of_pixel not in pixels:
            pixels[of_pixel] = _pixel(integer, decoder)
        if of_within not in withins:
            withins[of_within] = _within(decimal, decoder)
        points[decoder] = pixels[of_pixel] + withins[of_within]
    return points


def _pixel(integer: Tensor, decoder: Decoder) -> Tensor:
    """(..., K, 2) the position of the heatmap pixel. With the expectation it is between pixels."""
    integer = integer.float()
    return peak(integer) if decoder.method == "argmax" else centroid(integer, decoder.radius, decoder.power)


def _within(decimal: Tensor, decoder: Decoder) -> Tensor:
    """(..., K, 2) the position inside the heatmap pixel, in heatmap pixels, moved by the decoder's shift."""
    decimal = decimal.float()
    cell = peak(decimal) if decoder.method == "argmax" else expectation(decimal, decoder.temperature)
    x, y = (cell + decoder.bin_offset).unbind(-1)
    # plain numbers and not a tensor: making a tensor on the GPU would wait for it
    right, down = decoder.shift
    return torch.stack((x / decimal.shape[-1] + right, y / decimal.shape[-2] + down), -1)


def peak(maps: Tensor) -> Tensor:
    """(..., 2) float: x, y of the largest value of each map (..., h, w); of several equal values the first."""
    flat, width = maps.flatten(-2), maps.shape[-1]
    places = torch.arange(flat.shape[-1], device=maps.device, dtype=torch.float32)
    # not argmax: OpenVINO sorts for it, which takes longer than the rest of the decoder
    index = torch.where(flat == flat.amax(-1, keepdim=True), places, flat.shape[-1] - 1).amin(-1)
    row = (index / width).floor()
    return torch.stack((index - row * width, row), -1).to(maps.dtype)


def centroid(maps: Tensor, radius: int | None, power: float) -> Tensor:
    """(..., 2): centre of mass of ``clamp(map, 0) ** power`` of each map (..., h, w).

    With ``radius`` only pixels within this distance of the maximum count, per axis. For a map without a positive value
    the result is its maximum.
    """
    top = peak(maps)
    if radius is None:
        # relative to the maximum, so that the power of a low response does not underflow
        highest = maps.amax((-2, -1), keepdim=True)
        weights = _power((maps / torch.where(highest > 0, highest, 1.0)).clamp(min=0), power)
        columns, rows = weights.sum(-2), weights.sum(-1)
        total = rows.sum(-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
        x = torch.arange(maps.shape[-1], device=maps.device, dtype=maps.dtype)
        y = torch.arange(maps.shape[-2], device=maps.device, dtype=maps.dtype)
        # no matrix product: autocast would run it in bfloat16, which is too imprecise for coordinates
        mean = torch.stack(((columns * x).sum(-1), (rows * y).sum(-1)), -1) / total
        return torch.where((highest > 0)[..., 0], mean, top)
    shift, values = window(maps, top, radius)
    highest = values.amax(-1, keepdim=True)
    weights = _power((values / torch.where(highest > 0, highest, 1.0)).clamp(min=0), power)
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return top + (weights[..., None] * shift).sum(-2)


def _power(x: Tensor, power: float) -> Tensor:
    """``x ** power`` of x >= 0, if possible by products and a square root, which are faster than `Tensor.pow`."""
    whole = int(power)
    if power - whole not in (0, 0.5) or whole > 8 or (power != whole and x.requires_grad):  # sqrt has no gradient at 0
        return x.pow(power)
    result = x.sqrt() if power != whole else None
    while whole:
        if whole & 1:
            result = x if result is None else result * x
        whole >>= 1
        x = x * x if whole else x
    assert result is not None  # power is positive
    return result


def window(maps: Tensor, centre: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The m = (2 radius + 1)^2 pixels around ``centre`` (..., 2) of each map (..., h, w).

    Their offsets (x, y) from the centre, (m, 2), and their values, (..., m). Values outside the map are 0.
    """
    height, width = maps.shape[-2:]
    step = torch.arange(-radius, radius + 1, device=maps.device)
    shift = torch.stack((step.repeat(len(step)), step.repeat_interleave(len(step))), -1)
    x, y = (centre.long()[..., None, :] + shift).unbind(-1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    values = maps.flatten(-2).gather(-1, (y * width + x).clamp(0, height * width - 1))
    return shift.to(maps.dtype), values * inside


def expectation(maps: Tensor, temperature: float = 1.0) -> Tensor:
    """(..., 2): the expected (x, y) of each map (..., h, w) under the softmax of ``map / temperature``."""
    p = (maps.flatten(-2) / temperature).softmax(-1).view_as(maps)
    x = torch.arange(maps.shape[-1], device=maps.device, dtype=maps.dtype)
    y = torch.arange(maps.shape[-2], device=maps.device, dtype=maps.dtype)
    return torch.stack(((p.sum(-2) * x).sum(-1), (p.sum(-1) * y).sum(-1)), -1)
