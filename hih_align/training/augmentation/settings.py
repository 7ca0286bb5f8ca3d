"""The settings of an augmentation, and the presets that recipes name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

Range = tuple[float, float]


@dataclass(frozen=True)
class Augmentation:
    """The settings of an augmentation. The defaults are those of the modern recipes (`modern`).

    A plain name is the probability of an effect. Names that extend it (``rotate_degrees``) give its range; values are
    drawn uniformly unless stated otherwise. Lengths are shares of the crop's side unless stated otherwise. Pixel values
    are in [0, 1].

    Attributes:
        mirror: exchange left and right, if the scheme has mirror pairs.
        rotate: rotation about the centre of the crop by up to ± ``rotate_degrees``; without this effect by up to
            ± ``tilt_degrees``.
        roll: replaces both by a rotation of up to ± ``roll_degrees``.
        zoom: factor of the crop's side.
        shift: shift of the crop's centre by up to ± this per axis, in longer sides of the box.
        foreign: a box as other detectors give it: ``foreign_zoom`` replaces zoom, and ``foreign_shift_x`` and
            ``foreign_shift_y`` (down is positive), in longer sides of the box, replace shift. For WFLW's own boxes the
            measured values are 1.0 to 1.45, ±0.07 and -0.23 to -0.04 (5th to 95th percentile).
        rectangle: a filled rectangle with sides of ``rectangle_size``, anywhere in the crop.
        piece: an ellipse or rectangle with axes of ``piece_size``, turned, cut out of another picture.
        light: one side of the face becomes darker, down to 1 - ``light_strength`` of its brightness.
        colour: brightness (± ``brightness``), contrast (factor 1 ± ``contrast``), saturation (factor 1 ±
            ``saturation``) and each channel (factor 1 ± ``tint``).
        gamma: each value is raised to a power in ``gamma_range``, drawn logarithmically.
        grey: the picture becomes grey.
        blur: Gaussian blur with a sigma in ``blur_sigma``.
        motion: motion blur of ``motion_length`` in any direction.
        low_resolution: reduction to ``low_resolution_share`` of the crop's side, drawn logarithmically, and
            enlargement.
        noise: Gaussian noise of ``noise_sigma`` in bright parts and a third of it in dark parts. At low resolution it
            is added before the enlargement.

    A range may also be a list, so that plain data of a recipe can be passed.

    Raises:
        ValueError: a probability is outside [0, 1], or a range is empty or out of bounds.
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
            if field.name not in _BOUNDS:  # one number, for the range from -value to value
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
        """The default of this package: boxes of other detectors, pieces of other pictures, light, low resolution."""
        return cls()

    @classmethod
    def wild(cls) -> Augmentation:
        """For hard faces, as in WFLW's subsets: large roll, heavy occlusion, faces of 20 px, darkness, blur, grey."""
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


#: The attributes of `Augmentation` that are probabilities. `Augmentation.none` sets all of them to 0.
PROBABILITIES = (
    *("mirror", "rotate", "roll", "foreign", "rectangle", "piece", "light", "colour", "gamma", "grey"),
    *("blur", "motion", "low_resolution", "noise"),
)


# bounds of the ranges
_BOUNDS: dict[str, Range] = {
    "zoom": (0.1, 10.0),
    "foreign_zoom": (0.1, 10.0),
    "foreign_shift_x": (-5.0, 5.0),
    "foreign_shift_y": (-5.0, 5.0),
    "rectangle_size": (0.0, 2.0),
    "piece_size": (0.01, 2.0),
    "light_strength": (0.0, 1.0),
    "gamma_range": (0.1, 10.0),
    "blur_sigma": (0.0, 0.03),  # a larger blur would reach across the border, `camera.PADDING`
    "motion_length": (0.0, 0.12),
    "low_resolution_share": (0.02, 1.0),
    "noise_sigma": (0.0, 1.0),
}


#: The presets, by the names that recipes use.
PRESETS: dict[str, Callable[[], Augmentation]] = {
    "none": Augmentation.none,
    "paper": Augmentation.paper,
    "modern": Augmentation.modern,
    "wild": Augmentation.wild,
}
