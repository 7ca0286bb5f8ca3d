"""`device_crops`: PyTorch code that gives the pixels of `crops.warp`; the tests run it on the CPU."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hih_align import crops
from hih_align.crops import Crop, square_crop
from hih_align.runtime import device_crops
from hih_align.runtime.backend import Photograph
from hih_align.runtime.device_crops import WINDOW, packed, sent, unpacked, warp
from hih_align.runtime.transfer import upload

Array = NDArray[Any]

CPU = torch.device("cpu")
#: Grey levels. OpenCV before 5 interpolates at positions rounded to 1/32 of a pixel, see `test_crops.GRAIN`.
LIMIT = 1 if int(cv2.__version__.split(".")[0]) >= 5 else 9


def compare(images: list[Array], transforms: list[Crop]) -> None:
    found = warp([Photograph(image) for image in images], transforms, CPU)
    assert found.dtype is torch.uint8
    for image, transform, got in zip(images, transforms, found.numpy(), strict=True):
        off = np.abs(got.astype(int) - crops.warp(image, transform.matrix, transform.size))
        assert off.max() <= LIMIT, transform
        # at a reduction by exactly one half, a quarter of the pixels lie between two grey levels, and OpenCV rounds up
        assert off.mean() < (0.2 if LIMIT == 1 else 1.0), transform


def resized(image: Array, width: int, height: int) -> Array:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("scale", [0.3, 1, 2.6, 4])
def test_faces_of_a_photograph(astronaut: Array, astronaut_box: Any, scale: float) -> None:
    """Faces from 36 px to 480 px: small faces are interpolated directly, large faces are reduced first."""
    image = resized(astronaut, round(512 * scale), round(512 * scale))
    boxes = np.array(astronaut_box) * scale + np.random.default_rng(0).uniform(-20, 20, (4, 4)) * scale
    compare([image] * 4, [square_crop(box) for box in boxes])


@settings(max_examples=20)
@given(
    st.floats(-0.3, 1.3),
    st.floats(-0.3, 1.3),
    st.floats(8, 1500),
    st.sampled_from([256, 128]),
    st.sampled_from([0.0, 90.0, 180.0]) | st.floats(-180, 180),
)
def test_any_position_size_and_roll(x: float, y: float, side: float, size: int, roll: float) -> None:
    """Crops at any position (also outside the image), of any size and roll, from noise, the most difficult image."""
    noise = np.random.default_rng(0).integers(0, 256, (170, 230, 3), dtype=np.uint8)
    compare([noise], [Crop(x * 230, y * 170, side, size, roll)])


@pytest.mark.parametrize("side", [383.9, 384, 384.1, 512, 768])
def test_reduction_starts_at_the_size_at_which_it_does_on_the_cpu(side: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    compare([noise], [Crop(300.3, 299.6, side)])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_tiny_images(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    compare([image] * 3, [Crop(width / 2, height / 2, side) for side in (4, 300, 5000)])


def test_wide_images() -> None:
    image = np.zeros((40, 40000, 3), np.uint8)
    image[:, 39000:] = np.random.default_rng(0).integers(0, 256, (40, 1000, 3))
    compare([image] * 3, [Crop(39700.3, 20.6, side) for side in (30, 300, 20000)])


def test_arrays_with_any_strides(astronaut: Array) -> None:
    """Reversed channels, a flipped array, and a read-only part: none of them becomes a tensor without a copy."""
    part = astronaut[20:300, 100:400]
    part.flags.writeable = False
    images = [astronaut[:, :, ::-1], astronaut[::-1, ::2], part]
    compare(images, [Crop(120, 90, 150)] * 3)


def test_mixed_batches(astronaut: Array) -> None:
    """Consecutive faces of one photograph are cut out together, unless they are reduced.

    Each face gets its own pixels.
    """
    large = resized(astronaut, 1100, 900)
    images = [Photograph(astronaut), Photograph(large)]
    which = [0, 0, 1, 0, 1, 1, 1, 1, 0]
    sides = [150, 60, 700, 300, 100, 90, 800, 120, 200]
    transforms = [Crop(150 + 12.3 * n, 180 - 7.7 * n, side) for n, side in enumerate(sides)]
    transforms[1] = Crop(-900, 50, 100)  # wholly outside the image, in a group with a face inside
    transforms[3] = Crop(5000, 5000, 300)  # wholly outside the image, in a group of its own
    for n in (0, 2, 5):
        transforms[n] = replace(transforms[n], roll=40.0 * n - 70)
    found = warp([images[n] for n in which], transforms, CPU).numpy().astype(int)
    for n, transform, got in zip(which, transforms, found, strict=True):
        assert np.abs(got - crops.warp(images[n].pixels, transform.matrix, 256)).max() <= LIMIT
    assert not found[1].any()
    assert not found[3].any()


def test_the_number_of_faces_cut_out_together_is_limited(astronaut: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_crops, "TOGETHER", 2)
    compare([astronaut] * 5, [Crop(100 + 20.4 * n, 150, 120) for n in range(5)])
    photograph = Photograph(astronaut)
    plan = device_crops._Plan([photograph] * 5, [Crop(100, 150, 120)] * 5)
    assert list(plan.groups()) == [(0, 2), (2, 4), (4, 5)]


def test_photographs_are_freed_after_their_faces_are_cut_out(astronaut: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a photograph that does not stay on the device, only the needed part is sent.

    At most one such photograph is on the device at a time.
    """
    sent: list[tuple[weakref.ref[torch.Tensor], tuple[int, ...]]] = []

    def watching(array: Any, device: torch.device) -> torch.Tensor:
        if array.ndim == 3:  # the array is a photograph
            assert [ref for ref, _ in sent if ref() is not None] == []
            tensor = upload(array, device)
            sent.append((weakref.ref(tensor), array.shape))
            return tensor
        return upload(array, device)

    transforms = [
        Crop(200, 150, 100),
        Crop(250, 150, 450),
        Crop(200, 150, 100),
        Crop(100, 100, 80),
        Crop(300, 100, 900),
    ]
    images = [astronaut, astronaut[::-1], astronaut[:, ::-1]]
    photographs = [Photograph(image) for image in images]
    which = [0, 1, 2, 2, 2]
    stay = [Photograph(image, stays=True) for image in images]
    expected = warp([stay[n] for n in which], transforms, CPU)
    monkeypatch.setattr(device_crops, "upload", watching)
    assert torch.equal(warp([photographs[n] for n in which], transforms, CPU), expected)
    assert [ref for ref, _ in sent if ref() is not None] == []
    shapes = [shape for _, shape in sent]
    assert len(shapes) == 3
    assert shapes[0][0] < 120  # only the part with the face
    assert shapes[2] == images[2].shape  # faces that share a photograph: it is sent once, as a whole


def test_a_photograph_that_stays_is_sent_once(astronaut: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def counting(array: Any, device: torch.device) -> torch.Tensor:
        shapes.append(array.shape)
        return upload(array, device)

    monkeypatch.setattr(device_crops, "upload", counting)
    photograph = Photograph(astronaut, stays=True)
    for _ in range(3):
        warp([photograph] * 2, [Crop(200, 150, 100), Crop(250, 150, 450)], CPU)
    assert shapes.count(astronaut.shape) == 1
    assert len(shapes) == 4  # the photograph once, and the positions at each of the three calls
    assert not np.shares_memory(sent(photograph, CPU).numpy(), astronaut)


@pytest.mark.parametrize("size", [256, 128])
@pytest.mark.parametrize(("side", "roll"), [(60, 0), (190.7, 0), (256, 0), (300, 7), (180, 33), (200, -120)])
def test_a_face_packed_in_one_row_gives_the_same_crop(astronaut: Array, size: int, side: float, roll: float) -> None:
    """A packed face is sent in one transfer, and no later operation depends on the face.

    The pixels are those of `warp`.
    """
    transform = Crop(230.4, 220.7, side * size / 256, size, roll)
    photograph = Photograph(astronaut[:, ::-1])
    row = packed(photograph, transform, CPU)
    assert row is not None
    assert (row.dtype, row.shape) == (torch.uint8, (1, 16 * size + 3 * WINDOW**2))
    expected = warp([photograph], [transform], CPU)
    off = (unpacked(row, size).int() - expected.int()).abs()
    assert off.max() <= 1  # positions are stored in units of the window, and so are their rounding errors
    assert off.float().mean() < 0.01


def test_rows_of_several_faces(astronaut: Array) -> None:
    transforms = [Crop(200, 150, 120), Crop(280, 260, 300)]
    rows = [packed(Photograph(astronaut), transform, CPU) for transform in transforms]
    found = unpacked(torch.cat([row for row in rows if row is not None]), 256)
    expected = warp([Photograph(astronaut)] * 2, transforms, CPU)
    assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    "transform",
    [
        Crop(60, 200, 150),  # extends beyond the left edge
        Crop(200, 500, 100),  # extends beyond the lower edge
        Crop(256, 256, 420),  # is reduced first
        Crop(256, 256, 340, 256, 45),  # is inside the photograph, but does not fit into a window
        Crop(-500, 200, 100),
    ],
)
def test_faces_that_cannot_be_packed(astronaut: Array, transform: Crop) -> None:
    assert packed(Photograph(astronaut), transform, CPU) is None
