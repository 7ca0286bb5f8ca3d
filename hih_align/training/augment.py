"""Stored faces to network input, with the augmentation of Sec. IV-A.3 and what harder faces need beyond it.

Everything is drawn per sample from its own 64-bit seed by a counter-based generator: a sample's result depends on
its seed and itself, not on its batch or worker. The few numbers drawn stay on the CPU; pixels are batched torch on the
device of the images. All geometry is one affine and one resampling, and points go through the same matrix. Effects
follow in the order of a photograph's life: occluders, light, colour, blur, resolution, noise. Each is computed only
for the samples that drew it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..crops import CROP_SIZE, REDUCE_ABOVE
from ..data.faces import MARGIN
from ..method.network import MEAN, STD
from ..runtime.transfer import upload

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Range = tuple[float, float]

# Rec. 601, as in every conversion to grey
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augmentation:
    """How samples are varied. The defaults are the modern recipes' (`modern`).

    A bare name is a probability; what follows it (``rotate_degrees``) is its range, drawn uniformly unless said.
    Lengths are shares of the crop's side unless said. Pixel values are in [0, 1].

    Attributes:
        mirror: left and right exchanged, where the scheme says which landmarks change places.
        rotate: rotation about the crop's centre by up to ± ``rotate_degrees``, else by up to ± ``tilt_degrees``.
        roll: instead of those, rotation by up to ± ``roll_degrees``.
        zoom: factor of the crop's side.
        shift: the crop's centre moves by up to ± this per axis; of the box's longer side.
        foreign: a box as other detectors draw it: ``foreign_zoom`` in place of zoom, and ``foreign_shift_x`` and
            ``foreign_shift_y`` (down is positive) of the box's longer side in place of shift. WFLW's own boxes
            measure 1.0 to 1.45, ±0.07 and -0.23 to -0.04 (5th to 95th percentile).
        rectangle: a filled rectangle with sides of ``rectangle_size`` anywhere in the crop.
        piece: an ellipse or rectangle, turned, with axes of ``piece_size``, cut out of another picture.
        light: one side of the face in the dark: down to 1 - ``light_strength`` of its brightness.
        colour: brightness (± ``brightness``), contrast (factor 1 ± ``contrast``), saturation (factor 1 ±
            ``saturation``) and each channel (factor 1 ± ``tint``).
        gamma: each value to a power out of ``gamma_range``, logarithmically.
        grey: no colour.
        blur: Gaussian of ``blur_sigma``.
        motion: motion blur of ``motion_length``, any direction.
        low_resolution: reduced to ``low_resolution_share`` of the crop's side, logarithmically, and enlarged again.
        noise: Gaussian of ``noise_sigma`` in the bright, a third of it in the dark; before enlarging where the
            resolution is low.

    Lists are taken for ranges too, so that a recipe's plain data can be passed.

    Raises:
        ValueError: for a probability outside [0, 1], or a range that is empty or out of what is possible.
    """

    mirror: float = 0.5
    rotate: float = 0.5
    rotate_degrees: float = 30.0
    tilt_degrees: float = 8.0
    roll: float = 0.0
    roll_degrees: float = 90.0
    zoom: Range = (0.86, 1.18)
    shift: float = 0.06
    foreign: float = 0.25
    foreign_zoom: Range = (0.85, 1.5)
    foreign_shift_x: Range = (-0.1, 0.1)
    foreign_shift_y: Range = (-0.25, 0.1)
    rectangle: float = 0.25
    rectangle_size: Range = (0.1, 0.4)
    piece: float = 0.25
    piece_size: Range = (0.15, 0.5)
    light: float = 0.2
    light_strength: Range = (0.3, 0.85)
    colour: float = 0.8
    brightness: float = 0.15
    contrast: float = 0.25
    saturation: float = 0.4
    tint: float = 0.08
    gamma: float = 0.3
    gamma_range: Range = (0.65, 1.5)
    grey: float = 0.1
    blur: float = 0.3
    blur_sigma: Range = (0.002, 0.01)
    motion: float = 0.08
    motion_length: Range = (0.01, 0.05)
    low_resolution: float = 0.2
    low_resolution_share: Range = (0.15, 0.6)
    noise: float = 0.2
    noise_sigma: Range = (0.01, 0.06)

    def __post_init__(self) -> None:
        for name in PROBABILITIES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a probability")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in PROBABILITIES:
                continue
            if field.name not in _BOUNDS:  # one number, ± it
                if not 0 <= value < math.inf:
                    raise ValueError(f"{field.name} is {value}, expected a number of at least 0")
                continue
            pair = tuple(float(v) for v in value)
            low, high = _BOUNDS[field.name]
            if len(pair) != 2 or not low <= pair[0] <= pair[1] <= high:
                raise ValueError(f"{field.name} is {value}, expected two ascending numbers within [{low:g}, {high:g}]")
            object.__setattr__(self, field.name, pair)

    @classmethod
    def none(cls) -> Augmentation:
        """The plain centred crop, as in validation."""
        never: dict[str, Any] = dict.fromkeys(PROBABILITIES, 0.0)
        return cls(**never, tilt_degrees=0.0, zoom=(1.0, 1.0), shift=0.0)

    @classmethod
    def paper(cls) -> Augmentation:
        """Sec. IV-A.3: mirrored 50 %, rotated by up to ±30° 50 %, occluded 50 %, blurred 30 %."""
        return replace(cls.none(), mirror=0.5, rotate=0.5, rectangle=0.5, blur=0.3)

    @classmethod
    def modern(cls) -> Augmentation:
        """Ours: boxes of other detectors, pieces of other pictures, light, colour, low resolution."""
        return cls()

    @classmethod
    def wild(cls) -> Augmentation:
        """For hard faces, as in WFLW's subsets: large roll, heavier occlusion, faces of 20 px, dark, blurred, grey."""
        return cls(
            roll=0.12,
            rectangle=0.2,
            piece=0.4,
            piece_size=(0.15, 0.7),
            light=0.3,
            light_strength=(0.3, 0.95),
            brightness=0.2,
            contrast=0.35,
            gamma=0.4,
            gamma_range=(0.55, 1.8),
            grey=0.15,
            blur_sigma=(0.002, 0.015),
            motion=0.15,
            motion_length=(0.01, 0.08),
            low_resolution=0.35,
            low_resolution_share=(0.09, 0.6),
            noise=0.3,
            noise_sigma=(0.01, 0.08),
        )


#: The attributes of `Augmentation` that are probabilities; `Augmentation.none` has them all at 0.
PROBABILITIES = (
    *("mirror", "rotate", "roll", "foreign", "rectangle", "piece", "light", "colour", "gamma", "grey"),
    *("blur", "motion", "low_resolution", "noise"),
)

# what a range may be
_BOUNDS: dict[str, Range] = {
    "zoom": (0.1, 10.0),
    "foreign_zoom": (0.1, 10.0),
    "foreign_shift_x": (-5.0, 5.0),
    "foreign_shift_y": (-5.0, 5.0),
    "rectangle_size": (0.0, 2.0),
    "piece_size": (0.01, 2.0),
    "light_strength": (0.0, 1.0),
    "gamma_range": (0.1, 10.0),
    "blur_sigma": (0.0, 0.03),  # more would reach around the padding, `_PADDING`, and so would the next
    "motion_length": (0.0, 0.12),
    "low_resolution_share": (0.02, 1.0),
    "noise_sigma": (0.0, 1.0),
}

#: Named settings, as recipes write them.
PRESETS: dict[str, Callable[[], Augmentation]] = {
    "none": Augmentation.none,
    "paper": Augmentation.paper,
    "modern": Augmentation.modern,
    "wild": Augmentation.wild,
}


class Batch(NamedTuple):
    """Network input: ``images`` (B, 3, size, size) float32, normalised by the network's mean and deviation;
    ``points`` (B, K, 2) float32 in crop pixels, also beyond the crop, arbitrary where the weight is 0; ``weights``
    (B, K) float32."""

    images: Tensor
    points: Tensor
    weights: Tensor


def sample_seeds(seed: int, epoch: int, indices: ArrayLike) -> Tensor:
    """(B,) int64 seeds of samples in an epoch: the same after a resume, on any worker, in any batch.

    Args:
        seed: of the training run.
        epoch: or any other count of passes.
        indices: (B,) places in the data set.
    """
    state = np.asarray(indices).astype(np.uint64)
    for key in (epoch, seed):
        state = _mix(_mix(state) + np.asarray([key]).astype(np.int64).astype(np.uint64))
    return torch.from_numpy(state.view(np.int64))


def augment(
    images: Tensor,
    points: Tensor,
    weights: Tensor,
    *,
    settings: Augmentation,
    seeds: Tensor,
    permutation: ArrayLike | None,
    crop_ratio: float = 1.25,
    margin: float = MARGIN,
    size: int = CROP_SIZE,
    donors: Tensor | None = None,
) -> Batch:
    """Stored faces to network input.

    Args:
        images: (B, S, S, 3) uint8 RGB, as `FaceStore` keeps them.
        points: (B, K, 2) float landmarks in pixels of ``images``.
        weights: (B, K) float, 0 where missing.
        settings: what is varied and how far.
        seeds: (B,) int64 on the CPU, one per sample (`sample_seeds`).
        permutation: (K,) index of each landmark's mirror image (`Scheme.permutation`); None never mirrors.
        crop_ratio: the unvaried crop's side over the box's longer side.
        margin: S over the box's longer side (`FaceStore.margin`).
        size: side of the output.
        donors: (M, S', S', 3) uint8 on the device of ``images``: pictures that occluding pieces are cut from, the
            whole store or some of it. Without them a sample's pieces are its own, turned and from elsewhere.

    Returns:
        the batch, on the device of ``images``. With `Augmentation.none` it is the crop of `crops.square_crop` at
        ``crop_ratio``, within the error of resampling twice. On the CPU in float32 a sample is bit-identical for
        the same seed, itself and ``donors``; outside the store the image is black.

    Raises:
        TypeError: images that are not uint8, seeds that are not int64.
        ValueError: shapes that do not fit, a ratio, margin or size out of range.
    """
    _check(images, points, weights, seeds, crop_ratio, margin, size, donors)
    count, side = images.shape[:2]
    drawn = _draw(settings, seeds.cpu().numpy(), permutation is not None)
    affine = _matrices(drawn, side, crop_ratio, margin, size)
    device = images.device
    cast = _numbers(affine, device)
    middle = (side - 1) / 2  # a point's distance from it is small, so float32 is exact enough
    x, y = (points.float() - middle).unbind(-1)
    a = cast[:, :, :, None]
    moved = torch.stack([a[:, n, 0] * x + a[:, n, 1] * y + a[:, n, 2] for n in (0, 1)], -1)
    weights = weights.float()
    if permutation is not None:
        swap = np.array(permutation, np.int64)
        if swap.shape != points.shape[1:2]:
            raise ValueError(f"permutation has shape {tuple(swap.shape)}, expected ({points.shape[1]},)")
        order = upload(np.where(drawn.mirror[:, None], swap, np.arange(len(swap))), device)
        moved = moved.gather(1, order[..., None].expand_as(moved))
        weights = weights.gather(1, order)
    mean, std = (_numbers(np.array(v), device)[:, None, None] for v in (MEAN, STD))
    output = torch.empty(count, 3, size, size, device=device)
    # one by one on a CPU: a face stays in its cache, and the batch cannot change the order of any sum
    step = 1 if device.type == "cpu" else max(count, 1)
    for start in range(0, count, step):
        rows = slice(start, start + step)
        crop = _render(images[rows], drawn.at(rows), affine[rows], size, donors)
        output[rows] = crop.sub_(mean).div_(std)
    return Batch(output, moved, weights)


def _check(
    images: Tensor,
    points: Tensor,
    weights: Tensor,
    seeds: Tensor,
    crop_ratio: float,
    margin: float,
    size: int,
    donors: Tensor | None,
) -> None:
    for name, pictures in (("images", images), ("donors", donors)):
        if pictures is None:
            continue
        if pictures.dtype != torch.uint8:
            raise TypeError(f"{name} is {pictures.dtype}, expected uint8")
        shape = tuple(pictures.shape)
        if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[1] == 0:
            raise ValueError(f"{name} has shape {shape}, expected (B, S, S, 3)")
    if donors is not None and len(donors) == 0:
        raise ValueError("donors is empty, expected at least one picture")
    if seeds.dtype != torch.int64:
        raise TypeError(f"seeds is {seeds.dtype}, expected int64")
    if points.ndim != 3 or points.shape[0] != len(images) or points.shape[2] != 2:
        raise ValueError(f"points has shape {tuple(points.shape)}, expected ({len(images)}, K, 2)")
    if weights.shape != points.shape[:2]:
        raise ValueError(f"weights has shape {tuple(weights.shape)}, expected {tuple(points.shape[:2])}")
    if seeds.shape != (len(images),):
        raise ValueError(f"seeds has shape {tuple(seeds.shape)}, expected ({len(images)},)")
    if not (crop_ratio > 0 and margin > 0):
        raise ValueError(f"crop_ratio, margin are {crop_ratio}, {margin}, expected positive")
    if size < 16:
        raise ValueError(f"size is {size}, expected at least 16")


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of splitmix64: a bijection that spreads any difference over all 64 bits."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class _Dice:
    """Uniform numbers of several samples, column after column.

    Every column is drawn whatever the settings, so a changed setting leaves all other effects of a seed as they were.
    """

    def __init__(self, seeds: NDArray[np.int64]) -> None:
        self.seeds = _mix(seeds.view(np.uint64))
        self.column = 0

    def uniform(self) -> Floats:
        """(B,) in [0, 1)."""
        self.column += 1
        bits = _mix(self.seeds + np.full(1, self.column, np.uint64) * np.uint64(0x9E3779B97F4A7C15))
        return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def chance(self, probability: float) -> Bools:
        return self.uniform() < probability

    def between(self, limits: Range) -> Floats:
        return limits[0] + (limits[1] - limits[0]) * self.uniform()

    def around(self, reach: float) -> Floats:
        return self.between((-reach, reach))

    def logarithmic(self, limits: Range) -> Floats:
        return np.exp(self.between((math.log(limits[0]), math.log(limits[1]))))


@dataclass(frozen=True)
class _Drawn:
    """What samples drew, an array (B,) or (B, n) each; `_draw` says what it means."""

    mirror: Bools
    radians: Floats
    zoom: Floats
    shift: Floats
    rectangle: Bools
    rectangle_at: Floats
    rectangle_colour: Floats
    piece: Bools
    piece_at: Floats
    piece_from: Floats
    piece_donor: Floats
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

    def at(self, rows: slice) -> _Drawn:
        return _Drawn(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def _draw(s: Augmentation, seeds: NDArray[np.int64], mirrored: bool) -> _Drawn:
    dice = _Dice(seeds)
    mirror = dice.chance(s.mirror) & mirrored
    rolls, rotates = dice.chance(s.roll), dice.chance(s.rotate)
    reach = np.where(rolls, s.roll_degrees, np.where(rotates, s.rotate_degrees, s.tilt_degrees))
    radians = np.radians(dice.around(1.0) * reach)
    foreign = dice.chance(s.foreign)
    zoom = np.where(foreign, dice.between(s.foreign_zoom), dice.between(s.zoom))
    wide = _columns(dice.between(s.foreign_shift_x), dice.between(s.foreign_shift_y))
    shift = np.where(foreign[:, None], wide, _columns(dice.around(s.shift), dice.around(s.shift)))

    rectangle = dice.chance(s.rectangle)
    # centre and half sides, of the crop's side
    centre, sides = (dice.uniform(), dice.uniform()), (dice.between(s.rectangle_size), dice.between(s.rectangle_size))
    rectangle_at = _columns(*centre, sides[0] / 2, sides[1] / 2)
    rectangle_colour = _columns(dice.uniform(), dice.uniform(), dice.uniform())

    piece = dice.chance(s.piece)
    # centre and half axes, angle, an ellipse (1) or rectangle (0), steepness of the edge
    centre, sides = (dice.uniform(), dice.uniform()), (dice.between(s.piece_size), dice.between(s.piece_size))
    shape = (dice.around(math.pi), np.round(dice.uniform()), dice.logarithmic((6.0, 40.0)))
    piece_at = _columns(*centre, sides[0] / 2, sides[1] / 2, *shape)
    # where in the donor, how much of it in a crop's side, angle
    piece_from = _columns(dice.uniform(), dice.uniform(), dice.between((0.4, 1.0)), dice.around(math.pi))
    piece_donor = dice.uniform()

    light = dice.chance(s.light)
    # direction, place of the shadow's edge and its softness, both in half crops, strength
    light_at = _columns(
        dice.around(math.pi), dice.around(0.6), dice.logarithmic((0.04, 0.6)), dice.between(s.light_strength)
    )

    coloured = dice.chance(s.colour)
    brightness, contrast = dice.around(s.brightness), 1 + dice.around(s.contrast)
    saturation = 1 + dice.around(s.saturation)
    tint = 1 + _columns(*(dice.around(s.tint) for _ in range(3)))
    grey = dice.chance(s.grey)
    gamma, exponent = dice.chance(s.gamma), dice.logarithmic(s.gamma_range)

    blur, sigma = dice.chance(s.blur), dice.between(s.blur_sigma)
    motion, length, direction = dice.chance(s.motion), dice.between(s.motion_length), dice.around(math.pi)
    sigma, length = np.where(blur, sigma, 0.0), np.where(motion, length, 0.0)
    coarse, coarse_share = dice.chance(s.low_resolution), dice.logarithmic(s.low_resolution_share)
    noise, noise_sigma = dice.chance(s.noise), dice.between(s.noise_sigma)
    return _Drawn(
        mirror=mirror,
        radians=radians,
        zoom=zoom,
        shift=shift,
        rectangle=rectangle,
        rectangle_at=rectangle_at,
        rectangle_colour=rectangle_colour,
        piece=piece,
        piece_at=piece_at,
        piece_from=piece_from,
        piece_donor=piece_donor,
        light=light,
        light_at=light_at,
        colour=coloured | grey,
        colour_matrix=_colour_matrix(coloured, grey, brightness, contrast, saturation, tint),
        gamma=gamma,
        exponent=exponent,
        soft=blur | motion,
        soft_by=_columns(sigma, length * np.cos(direction), length * np.sin(direction)),
        coarse=coarse,
        coarse_share=coarse_share,
        noise=noise,
        noise_sigma=np.where(noise, noise_sigma, 0.0),
        noise_at=_columns(dice.uniform(), dice.uniform()),
    )


def _columns(*values: Floats) -> Floats:
    return np.stack(values, -1)


def _colour_matrix(
    coloured: Bools, grey: Bools, brightness: Floats, contrast: Floats, saturation: Floats, tint: Floats
) -> Floats:
    """(B, 3, 4): channels times a matrix, plus a column; around a middle grey, which contrast leaves as it is."""
    middle = 0.45
    saturation = np.where(grey, 0.0, np.where(coloured, saturation, 1.0))[:, None, None]
    mixed = saturation * np.eye(3) + (1 - saturation) * np.array(_LUMA)
    contrast = np.where(coloured, contrast, 1.0)[:, None, None]
    tint = np.where(coloured[:, None], tint, 1.0)[:, None, :]
    offset = np.where(coloured, brightness, 0.0)[:, None, None] + middle * (1 - contrast)
    return np.concatenate((contrast * mixed * tint, np.broadcast_to(offset, (len(grey), 3, 1))), -1)


def _matrices(drawn: _Drawn, side: int, crop_ratio: float, margin: float, size: int) -> Floats:
    """(B, 2, 3) affines from store pixels, counted from the store's centre, to crop pixels."""
    box = side / margin
    scale = size / (crop_ratio * box * drawn.zoom)
    cos, sin = scale * np.cos(drawn.radians), scale * np.sin(drawn.radians)
    linear = np.stack((_columns(cos, -sin), _columns(sin, cos)), 1)
    linear[:, 0] *= np.where(drawn.mirror, -1.0, 1.0)[:, None]
    offset = (size - 1) / 2 - (linear @ (box * drawn.shift)[:, :, None])
    return np.concatenate((linear, offset), -1)


def _numbers(values: Floats, device: torch.device) -> Tensor:
    return upload(values.astype(np.float32), device)


def _apply(x: Tensor, drew: Bools, effect: Callable[..., Tensor], *arrays: NDArray[np.generic]) -> Tensor:
    """``effect`` on the samples that drew it, given their rows of ``arrays``; may write into ``x``."""
    if not drew.any():
        return x
    if drew.all():
        return effect(x, *arrays)
    rows = np.flatnonzero(drew)
    index = upload(rows, x.device)
    x[index] = effect(x[index], *(array[rows] for array in arrays))
    return x


def _render(images: Tensor, drawn: _Drawn, affine: Floats, size: int, donors: Tensor | None) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, size, size) float32 in [0, 1]."""
    x = _warp(images, affine, size)
    x = _occlude(x, drawn, images if donors is None else donors, own=donors is None)
    return _photograph(x, drawn)


def _warp(images: Tensor, affine: Floats, size: int) -> Tensor:
    """(B, S, S, 3) uint8 -> (B, 3, size, size) float32 in [0, 1], bilinear, black outside."""
    side = images.shape[1]
    inverse = np.linalg.inv(affine[:, :, :2])
    backward = np.concatenate((inverse, (side - 1) / 2 - inverse @ affine[:, :, 2:]), -1)
    shrink = np.sqrt(np.abs(np.linalg.det(inverse)))
    # as `crops.warp`: what comes out much smaller is averaged first, here over blocks of 2, 4, ... pixels
    block = np.where(shrink > REDUCE_ABOVE, 2.0 ** np.round(np.log2(np.maximum(shrink, 1.0))), 1.0)
    block = np.minimum(block, 2 ** int(math.log2(side))).astype(np.int64)
    x = torch.empty(len(images), 3, size, size, device=images.device)
    rows = np.arange(len(images))
    for width in np.unique(block):
        x = _apply(x, block == width, partial(_sample, images, int(width)), rows, backward)
    return x


def _sample(images: Tensor, block: int, x: Tensor, rows: NDArray[np.intp], backward: Floats) -> Tensor:
    """The crops of some rows of ``images``, at first averaged over blocks; in place of ``x``."""
    side, size = images.shape[1], x.shape[-1]
    # only what is seen is converted: whole blocks, and a pixel more for the interpolation
    corners = np.array([(u, v, 1.0) for u in (0, size - 1) for v in (0, size - 1)])
    reach = backward @ corners.T
    low = np.clip(np.floor(reach.min((0, 2)) / block - 2) * block, 0, side - block).astype(int)
    count = np.ceil((reach.max((0, 2)) - low) / block + 2).astype(int)
    width, height = (count.clip(1) * block).clip(max=(side - low) // block * block)
    left, top = low
    part = images[:, top : top + height, left : left + width]
    if len(rows) < len(images):
        part = part[upload(rows, images.device)]
    pixels = part.float() if block == 1 else _average(part, block)
    # align_corners=False: -1 and 1 are the outer edges of the first and the last pixel
    extent = np.array([width, height], np.float64)[:, None]
    backward = backward * (2 / extent)
    backward[:, :, 2:] += (1 - 2 * low[:, None]) / extent - 1
    grid = _grid(_numbers(backward, images.device), size, size)
    return F.grid_sample(pixels.permute(0, 3, 1, 2), grid, align_corners=False).mul_(1 / 255)


def _average(images: Tensor, block: int) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, H / block, W / block, 3) float32, block a power of 2."""
    total = images.to(torch.int32)
    step = block
    while step > 1:
        total = total[:, ::2] + total[:, 1::2]
        total = total[:, :, ::2] + total[:, :, 1::2]
        step //= 2
    return total.float().mul_(block**-2)


def _grid(backward: Tensor, width: int, height: int, left: int = 0, top: int = 0) -> Tensor:
    """(B, 2, 3) affines of pixel indices -> (B, height, width, 2), for a part of the pixels."""
    across = torch.arange(left, left + width, device=backward.device, dtype=torch.float32)
    down = torch.arange(top, top + height, device=backward.device, dtype=torch.float32)
    grid = backward.new_empty(len(backward), height, width, 2)
    for n in (0, 1):
        row, column = backward[:, n, 0, None] * across, backward[:, n, 1, None] * down + backward[:, n, 2, None]
        torch.add(row[:, None, :], column[:, :, None], out=grid[..., n])
    return grid


def _occlude(x: Tensor, drawn: _Drawn, pictures: Tensor, own: bool) -> Tensor:
    x = _apply(x, drawn.rectangle, _fill, drawn.rectangle_at, drawn.rectangle_colour)
    donor = np.arange(len(x)) if own else (drawn.piece_donor * len(pictures)).astype(np.int64)

    def paste(part: Tensor, at: Floats, origin: Floats, which: NDArray[np.int64]) -> Tensor:
        return _paste(part, at, origin, pictures[upload(which, pictures.device)])

    return _apply(x, drawn.piece, paste, drawn.piece_at, drawn.piece_from, donor)


def _places(size: int, device: torch.device) -> Tensor:
    """(size,) pixel centres along a side, in [0, 1]."""
    return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) / size


def _fill(x: Tensor, at: Floats, colour: Floats) -> Tensor:
    cx, cy, width, height = _numbers(at, x.device)[..., None].unbind(1)
    t = _places(x.shape[-1], x.device)
    inside = ((t - cy).abs() < height)[:, None, :, None] & ((t - cx).abs() < width)[:, None, None, :]
    return torch.where(inside, _numbers(colour, x.device)[:, :, None, None], x)


def _paste(x: Tensor, at: Floats, origin: Floats, pictures: Tensor) -> Tensor:
    size = x.shape[-1]
    centre, axes = at[:, :2] * size - 0.5, at[:, 2:4] * size
    # only the pixels that any of the pieces can cover; an edge is soft over half of 1 / steepness, at most 1 / 12
    reach = 1.1 * np.linalg.norm(axes, axis=1, keepdims=True)
    left, top = np.floor((centre - reach).min(0)).clip(0, size - 1).astype(int)
    right, bottom = np.ceil((centre + reach).max(0) + 1).clip(1, size).astype(int)
    window = (right - left, bottom - top, left, top)
    # the place of a pixel in units of the piece's axes
    cos, sin = np.cos(at[:, 4]), np.sin(at[:, 4])
    own = np.stack((_columns(cos, sin), _columns(-sin, cos)), 1) / axes[:, :, None]
    place = _grid(_numbers(_about(own, centre), x.device), *window)
    ellipse, steepness = _numbers(at[:, 5:7], x.device)[:, :, None, None].unbind(1)
    radius = torch.where(ellipse > 0, place.square().sum(-1).sqrt(), place.abs().amax(-1))
    alpha = ((1 - radius) * steepness + 0.5).clamp_(0, 1)[:, None]
    # and in the picture it is cut from, whose edges are at -1 and 1
    cos, sin = np.cos(origin[:, 3]), np.sin(origin[:, 3])
    turn = np.stack((_columns(cos, -sin), _columns(sin, cos)), 1) * (2 * origin[:, 2, None, None] / size)
    source = _about(turn, centre)
    source[:, :, 2] += origin[:, :2] - 0.5
    grid = _grid(_numbers(source, x.device), *window)
    content = pictures.permute(0, 3, 1, 2).float()
    content = F.grid_sample(content, grid, padding_mode="reflection", align_corners=False).mul_(1 / 255)
    view = x[:, :, top:bottom, left:right]
    view.lerp_(content, alpha.expand_as(view))
    return x


def _about(linear: Floats, centre: Floats) -> Floats:
    """(B, 2, 3) affines p -> linear (p - centre)."""
    return np.concatenate((linear, -linear @ centre[:, :, None]), -1)


def _photograph(x: Tensor, drawn: _Drawn) -> Tensor:
    """Light, colour, optics and sensor."""
    x = _apply(x, drawn.light, _shade, drawn.light_at)
    x = _apply(x, drawn.colour, _recolour, drawn.colour_matrix)
    x = _apply(x, drawn.gamma, _raise, drawn.exponent)
    x = _apply(x, drawn.soft, _blur, drawn.soft_by)
    x = _apply(x, drawn.coarse, _coarsen, drawn.coarse_share, drawn.noise_sigma, drawn.noise_at)
    x = _apply(x, drawn.noise & ~drawn.coarse, partial(_add_noise, room=x.shape[-1]), drawn.noise_sigma, drawn.noise_at)
    return x.clamp_(0, 1)


def _shade(x: Tensor, at: Floats) -> Tensor:
    direction, edge, softness, strength = at.T
    across = _columns(np.cos(direction), np.sin(direction), -edge) / softness[:, None]
    along, down, offset = _numbers(across, x.device)[:, :, None].unbind(1)
    t = 2 * _places(x.shape[-1], x.device) - 1
    shadow = torch.sigmoid((along * t)[:, None, None, :] + (down * t + offset)[:, None, :, None])
    by = _numbers(strength, x.device)[:, None, None, None]
    # a camera exposes for the whole: the lit side comes out brighter
    return x * ((1 - by * shadow) * (1 + 0.4 * by))


def _recolour(x: Tensor, matrix: Floats) -> Tensor:
    m = _numbers(matrix, x.device)
    return torch.baddbmm(m[:, :, 3:], m[:, :, :3], x.flatten(2)).view_as(x)


def _raise(x: Tensor, exponent: Floats) -> Tensor:
    return x.clamp(0, 1).pow(_numbers(exponent, x.device)[:, None, None, None])


#: Pixels around an image while it is blurred, as a share of its side: they take what comes in from beyond its edge.
_PADDING = 0.0625


def _blur(x: Tensor, by: Floats) -> Tensor:
    """Gaussian and straight motion in one, by their product in the frequency domain."""
    size = x.shape[-1]
    pad = int(size * _PADDING)
    wide = F.pad(x.clamp(0, 1), (pad, pad, pad, pad), mode="reflect")
    sigma, along, down = _numbers(by * size, x.device)[:, :, None, None].unbind(1)
    fx = torch.fft.rfftfreq(wide.shape[-1], device=x.device)
    fy = torch.fft.fftfreq(wide.shape[-1], device=x.device)[:, None]
    transfer = torch.exp(-2 * math.pi**2 * sigma.square() * (fx.square() + fy.square()))
    if by[:, 1:].any():
        transfer = transfer * torch.sinc(along * fx + down * fy)
    blurred = torch.fft.irfft2(torch.fft.rfft2(wide) * transfer[:, None], s=wide.shape[-2:])
    return blurred[..., pad:-pad, pad:-pad].contiguous()


def _coarsen(x: Tensor, share: Floats, sigma: Floats, at: Floats) -> Tensor:
    """Area averaging to fewer pixels, their noise, and bilinear enlargement: a small face, as a crop shows it."""
    size = x.shape[-1]
    count = np.maximum(1, np.round(share * size))
    most = int(count.max())
    cells = _numbers(count, x.device)[:, None, None]
    cell = torch.arange(most, device=x.device, dtype=torch.float32)
    pixel = torch.arange(size, device=x.device, dtype=torch.float32)
    # (B, most, size): overlap of cell i and pixel j, in cells; rows beyond a sample's count are not used by `enlarge`
    right = torch.minimum((cell + 1)[:, None], (pixel + 1) * cells / size)
    reduce = (right - torch.maximum(cell[:, None], pixel * cells / size)).clamp_(min=0)
    place = ((pixel + 0.5) * cells / size - 0.5).clamp(min=0).minimum(cells - 1)
    enlarge = (1 - (place.transpose(1, 2) - cell).abs()).clamp_(min=0)  # (B, size, most)
    small = reduce[:, None] @ x.clamp(0, 1) @ reduce.transpose(1, 2)[:, None]
    small = _add_noise(small, sigma, at, size)
    return enlarge[:, None] @ small @ enlarge.transpose(1, 2)[:, None]


def _add_noise(x: Tensor, sigma: Floats, at: Floats, room: int) -> Tensor:
    """Noise of x's size; its place depends on ``room``, which is at least that and the same in every batch."""
    size, tile = x.shape[-1], _noise(x.device)
    times = -(-room // tile.shape[-1])
    tile = tile.repeat(1, times, times) if times > 1 else tile
    corners = (at * (tile.shape[-1] - room + 1)).astype(int)
    noise = torch.stack([tile[:, top : top + size, left : left + size] for left, top in corners])
    # light comes in portions: what is bright is noisier, what is dark does not drown
    return x + noise * (x + 0.3) * _numbers(sigma, x.device)[:, None, None, None]


@lru_cache(maxsize=4)
def _noise(device: torch.device) -> Tensor:
    """(3, 640, 640) normal numbers, the same always: samples take their noise from random places in it."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 640, 640, generator=generator).to(device)
