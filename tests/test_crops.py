"""`crops`: positions of pixels in crops, and that both directions of the mapping agree to a fraction of a pixel."""

from __future__ import annotations

import time
import tracemalloc
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from hih_align.crops import CROP_SIZE, Crop, similarity, square_crop, tight_box, warp

# OpenCV before 5 interpolates at positions rounded to 1/32 of an image pixel; this is visible where a tiny face is
# enlarged
GRAIN = 0.0 if int(cv2.__version__.split(".")[0]) >= 5 else 1 / 64

SIDES = [12, 25.5, 60, 128, 256, 333, 383, 385, 500, 1000, 2222.2, 4000]


def rotated(crop: Crop, degrees: float) -> NDArray[np.float64]:
    """``crop.matrix`` rotated about the crop's centre."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    middle = (crop.size - 1) / 2
    turn = np.array([[c, -s, middle * (1 - c + s)], [s, c, middle * (1 - s - c)], [0, 0, 1]])
    return (turn @ np.vstack((crop.matrix, (0, 0, 1))))[:2]


def apply(matrix: NDArray[np.float64], points: Any) -> NDArray[np.float64]:
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def bilinear(image: NDArray[Any], matrix: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Bilinear interpolation at the source position of each output pixel; outside the image the value is 0."""
    y, x = np.mgrid[:size, :size]
    back = np.linalg.inv(np.vstack((matrix, (0, 0, 1))))[:2]
    where = apply(back, np.stack((x, y), -1))
    planes = [
        ndimage.map_coordinates(
            plane.astype(np.float64), (where[..., 1], where[..., 0]), order=1, mode="grid-constant", cval=0.0
        )
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack(planes, -1)


@cache
def smooth(height: int, width: int, period: float) -> NDArray[np.uint8]:
    """A colour image without details smaller than ``period`` pixels, not to be changed."""
    y, x = np.mgrid[:height, :width] * (2 * np.pi / period)
    planes = [np.sin(x + 0.3 * y), np.cos(0.7 * y - x), np.sin(0.5 * x) * np.cos(y)]
    image = np.round(127.5 + 100 * np.stack(planes, -1)).astype(np.uint8)
    image.setflags(write=False)
    return image


def dot(image: NDArray[np.uint8], centre: Any, sigma: float) -> NDArray[np.float64]:
    """Paint a Gaussian into a black image; return its centre of mass after rounding and cutting at the border."""
    reach = int(5 * sigma) + 2
    x0, y0 = (max(0, int(c) - reach) for c in centre)
    part = image[y0 : int(centre[1]) + reach, x0 : int(centre[0]) + reach]
    y, x = np.mgrid[: part.shape[0], : part.shape[1]]
    distance = (x + x0 - centre[0]) ** 2 + (y + y0 - centre[1]) ** 2
    part[:] = np.round(255 * np.exp(-distance / (2 * sigma**2)))[..., None].astype(np.uint8)
    return centre_of_mass(part) + np.array([x0, y0])


def assert_same(got: NDArray[np.float64], expected: NDArray[np.float64], crop: Crop) -> None:
    """Check that two positions in a crop agree to 0.05 crop pixels."""
    assert np.abs(got - expected).max() < max(0.05, GRAIN * crop.scale)


def centre_of_mass(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    y, x = ndimage.center_of_mass(picture[..., 1].astype(np.float64))
    return np.array([x, y])


# the formula


@given(
    st.tuples(st.floats(-500, 5000), st.floats(-500, 5000)),
    st.tuples(st.floats(2, 5000), st.floats(2, 5000)),
    st.floats(0.5, 2),
    st.tuples(st.floats(-9000, 9000), st.floats(-9000, 9000)),
)
def test_formula(
    corner: tuple[float, float], extent: tuple[float, float], ratio: float, point: tuple[float, float]
) -> None:
    """`to_crop` and the matrix calculate crop = (p - centre) * 256 / side + 127.5; the inverse is exact to 1e-3 px."""
    (x, y), (w, h) = corner, extent
    crop = square_crop((x, y, x + w, y + h), ratio)
    side = ratio * max(w, h)
    assert crop.side == pytest.approx(side)
    expected = [(point[0] - (x + w / 2)) * 256 / side + 127.5, (point[1] - (y + h / 2)) * 256 / side + 127.5]
    np.testing.assert_allclose(crop.to_crop(point), expected, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(apply(crop.matrix, point), expected, rtol=1e-9, atol=1e-6)
    assert np.abs(crop.to_image(crop.to_crop(point)) - point).max() < 1e-3


def test_formula_by_hand() -> None:
    # centre (140, 114), longer side 128; with the ratio 1.25 the crop's side is 160
    crop = square_crop((100, 50, 180, 178))
    assert crop == Crop(140, 114, 160, 256)
    assert crop.scale == 1.6
    # the square's corners are pixel edges and map to the crop's corners
    assert crop.to_crop([[140, 114], [60, 34], [220, 194]]).tolist() == [[127.5, 127.5], [-0.5, -0.5], [255.5, 255.5]]
    assert crop.to_image([[127.5, 127.5], [0.0, 255.0]]).tolist() == [[140, 114], [60.3125, 193.6875]]
    # the centre of a crop depends on the crop's size
    assert square_crop((100, 50, 180, 178), size=128).to_crop([140, 114]).tolist() == [63.5, 63.5]


@given(st.floats(1, 40000), st.floats(-40000, 40000), st.lists(st.floats(0, 255, width=32), min_size=2, max_size=2))
@example(12, 39999, [0.0, 255.0])
def test_inverse(side: float, centre: float, point: list[float]) -> None:
    """Crop pixels in float32, as the network returns them, map to the image and back to 1e-3 px."""
    crop = Crop(centre, -centre, side)
    back = crop.to_crop(crop.to_image(np.array(point, np.float32)))
    assert back.dtype == np.float64
    assert np.abs(back - point).max() < 1e-3
    assert np.abs(back - point).max() / crop.scale < 1e-3


@given(st.floats(-720, 720), st.floats(8, 4000), st.tuples(st.floats(-900, 900), st.floats(-900, 900)))
def test_rotated_crops(roll: float, side: float, point: tuple[float, float]) -> None:
    """A face that is rotated clockwise by its roll is upright in its crop. The matrix and both directions agree."""
    crop, upright = square_crop((10, 20, 50, 80), roll=roll), square_crop((10, 20, 50, 80))
    assert (crop.x, crop.y, crop.side, crop.roll) == (30, 50, upright.side, roll)
    angle = np.radians(roll)
    x, y = np.subtract(point, (30, 50))
    there = 30 + np.cos(angle) * x - np.sin(angle) * y, 50 + np.sin(angle) * x + np.cos(angle) * y
    np.testing.assert_allclose(crop.to_crop(there), upright.to_crop(point), atol=1e-6)
    np.testing.assert_allclose(apply(crop.matrix, there), upright.to_crop(point), atol=1e-6)
    assert np.abs(crop.to_image(crop.to_crop(point)) - point).max() < 1e-6


def test_a_rotated_crop_by_hand() -> None:
    """At roll 90, a point above the centre of the upright face is to the right of the centre in the image."""
    crop = Crop(100, 60, 256, roll=90)
    np.testing.assert_allclose(crop.to_crop((150, 60)), (127.5, 77.5))
    image = np.zeros((120, 200, 3), np.uint8)
    image[60, 150] = 255
    seen = warp(image, Crop(100, 60, 255, 255, roll=90).matrix, 255)
    assert np.argwhere(seen[..., 0] > 200).tolist() == [[77, 127]]


def test_leading_dimensions() -> None:
    crop, points = Crop(3, 4, 50), np.random.default_rng(0).uniform(0, 50, (2, 5, 68, 2))
    assert crop.to_crop(points).shape == points.shape
    np.testing.assert_allclose(crop.to_crop(points)[1, 3, 7], crop.to_crop(points[1, 3, 7]))
    np.testing.assert_allclose(crop.to_image(crop.to_crop(points)), points)


def test_tight_box() -> None:
    assert tight_box([[3, 9], [7, 2], [5, 5]]).tolist() == [3, 2, 7, 9]
    assert tight_box(np.arange(24).reshape(3, 4, 2)).tolist() == [[0, 1, 6, 7], [8, 9, 14, 15], [16, 17, 22, 23]]


# pixels


def test_warp_copies_pixels_at_scale_1() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    crop = Crop(20 + 127.5, 30 + 127.5, 256)
    before = image.copy()
    np.testing.assert_array_equal(warp(image, crop.matrix, 256), image[30:286, 20:276])
    np.testing.assert_array_equal(image, before)


PLACES = {
    "inside": (150.3, 120.7),
    "at the border": (40.2, 33.9),
    "corner cut": (2.6, 8.1),
    "beyond the right": (309.4, 160.2),
    "half below": (160.8, 246.5),
}


@pytest.mark.parametrize("degrees", [0, 23])
@pytest.mark.parametrize("side", [12, 60, 256, 383])
@pytest.mark.parametrize("place", PLACES)
def test_warp_is_bilinear(place: str, side: float, degrees: float) -> None:
    """Up to 1.5 image pixels per crop pixel, `warp` interpolates bilinearly. Outside the image it is black."""
    image = smooth(250, 310, 40)
    matrix = rotated(Crop(*PLACES[place], side), degrees)
    got, expected = warp(image, matrix, CROP_SIZE), bilinear(image, matrix, CROP_SIZE)
    assert got.shape == (256, 256, 3)
    assert got.dtype == np.uint8
    assert expected.any()
    # an error of 1/32 pixel (see GRAIN) is up to 1/32 of the step between the image and the black around it
    assert np.abs(got - expected).max() <= 9
    assert np.abs(got - expected).mean() < 0.6


@pytest.mark.parametrize("degrees", [0, -50])
@pytest.mark.parametrize("side", [385, 777.7, 1300])
@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.02, 0.3), (1.05, 0.9)])
def test_warp_of_larger_faces(x: float, y: float, side: float, degrees: float) -> None:
    """If an image has no fine details, area averaging before the warp changes only pixels at the border."""
    height, width = int(1.1 * side), int(1.3 * side)
    image = smooth(height, width, side / 8)
    matrix = rotated(Crop(x * width, y * height, side), degrees)
    got, expected = warp(image, matrix, CROP_SIZE), bilinear(image, matrix, CROP_SIZE)
    away = bilinear(np.full((height, width, 1), 255, np.uint8), matrix, CROP_SIZE)[..., 0].round()
    uniform = ndimage.maximum_filter(away, 5) == ndimage.minimum_filter(away, 5)
    assert np.abs(got - expected)[uniform].max() <= 4
    assert np.abs(got - expected)[uniform].mean() < 1
    assert not got[uniform & (away == 0)].any()
    assert uniform.mean() > 0.9
    assert (away > 0).mean() > 0.2


@pytest.mark.parametrize("side", [500, 1024, 3000])
def test_no_aliasing(side: int) -> None:
    """A chequerboard of single pixels becomes grey when it is reduced. Without averaging it would show a pattern."""
    board = (np.indices((side + 40, side + 40)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    got = warp(board, Crop(side / 2 + 20.3, side / 2 + 20.1, side).matrix, CROP_SIZE)
    inner = got[2:-2, 2:-2].astype(float)
    assert inner.mean() == pytest.approx(127.5, abs=2)
    assert inner.std() < 255 / 2 * 256**2 / side**2 * 2


def test_area_averaging_starts_at_a_reduction_of_one_and_a_half() -> None:
    """Below, noise is only interpolated, which reduces its deviation to 2/3. Above, noise is averaged first."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    crop = Crop(300.3, 299.6, 384)
    plain = warp(noise, crop.matrix, CROP_SIZE)
    assert np.abs(plain - bilinear(noise, crop.matrix, CROP_SIZE)).max() <= 9
    assert warp(noise, Crop(300.3, 299.6, 390).matrix, CROP_SIZE).std() < 0.8 * plain.std()


@pytest.mark.parametrize("degrees", [0, 33, -120])
@pytest.mark.parametrize("side", SIDES)
def test_content_is_where_the_crop_maps_it(side: float, degrees: float) -> None:
    """A dot's centre of mass is within 0.05 crop pixels of its mapped centre, at any size and rotation.

    Area averaging without the correction of half a pixel would shift it by 0.5 - 0.5 * 256 / side crop pixels, up to
    0.47.
    """
    size = int(1.2 * side) + 8
    crop = Crop(size / 2 + 0.37, size / 2 - 1.21, side)
    matrix = rotated(crop, degrees)
    sigma = max(side / 25, 1)
    for x, y in [(0.1, -0.05), (-0.13, 0.11)]:
        image = np.zeros((size, size, 3), np.uint8)
        centre = dot(image, (crop.x + x * side, crop.y + y * side), sigma)
        got = centre_of_mass(warp(image, matrix, CROP_SIZE))
        assert_same(got, apply(matrix, centre), crop)
        if degrees == 0:
            np.testing.assert_allclose(apply(matrix, centre), crop.to_crop(centre), atol=1e-6)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("x", "y"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_content_is_where_the_crop_maps_it_at_the_border(x: int, y: int, side: float) -> None:
    """A third of the crop lies beyond a corner of the image, and the corner cuts the dot."""
    size = int(1.3 * side) + 3
    image = np.zeros((size, size, 3), np.uint8)
    corner = np.array([x, y]) * (size - 1)
    inward = 1 - 2 * np.array([x, y])
    cx, cy = corner + inward * side * 0.17
    crop = Crop(cx, cy, side)
    centre = dot(image, corner + inward * side * np.array([0.07, 0.3]), max(side / 20, 1))
    got = centre_of_mass(warp(image, crop.matrix, CROP_SIZE))
    assert_same(got, crop.to_crop(centre), crop)


@pytest.mark.parametrize("side", [12, 100, 384, 400, 1234, 4000])
def test_the_edge_of_the_image_is_where_the_crop_maps_it(side: float) -> None:
    """The crop is white up to the outer edge of the last pixel, half a pixel beyond its centre.

    From there it is black.
    """
    size = int(side) + 11
    image = np.full((size, size, 3), 255, np.uint8)
    crop = Crop(3.3, size - 1 - 0.2 * side, side)
    got = warp(image, crop.matrix, CROP_SIZE).astype(float) / 255
    left, bottom = crop.to_crop([-0.5, size - 0.5])
    # pixel i covers the range from i - 0.5 to i + 0.5
    near = max(0.1, GRAIN * crop.scale)
    assert got[20].sum(0) == pytest.approx([255.5 - left] * 3, abs=near)
    assert got[:, 250].sum(0) == pytest.approx([bottom + 0.5] * 3, abs=near)
    soft = max(1, crop.scale)
    assert not got[:, : int(left - soft)].any()
    assert (got[: int(bottom - soft), int(left + soft) + 2 :] == 1).all()


@pytest.mark.parametrize(("x", "y"), [(-500, 50), (50, -500), (900, 50), (50, 900), (-1e6, 1e6)])
@pytest.mark.parametrize("side", [12, 256, 600])
def test_a_crop_outside_the_image_is_black(x: float, y: float, side: float) -> None:
    got = warp(np.full((100, 100, 3), 255, np.uint8), Crop(x, y, side).matrix, CROP_SIZE)
    assert got.shape == (256, 256, 3)
    assert not got.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 3)])
@pytest.mark.parametrize("side", [12, 256, 900])
def test_small_pictures(shape: tuple[int, int], side: float) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    got = warp(image, Crop((shape[1] - 1) / 2, (shape[0] - 1) / 2, side).matrix, CROP_SIZE)
    assert got.shape == (256, 256, 3)
    assert got.max() <= 200
    if side == 12:
        assert got[127, 127].tolist() == pytest.approx([200] * 3, abs=12)


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.floats(-100, 160), st.floats(-100, 160)),
    st.floats(0.5, 3000),
    st.floats(-180, 180),
    st.sampled_from([16, 112, 256]),
)
def test_any_crop_of_any_picture(
    shape: tuple[int, int], centre: tuple[float, float], side: float, degrees: float, size: int
) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    got = warp(image, rotated(Crop(*centre, side, size), degrees), size)
    assert got.shape == (size, size, 3)
    assert got.max() <= 77


def test_photograph(astronaut: NDArray[np.uint8], astronaut_box: tuple[float, ...]) -> None:
    """The crop of the astronaut, enlarged by any method, is nearly the crop of the original."""
    crop = square_crop(astronaut_box)
    large = np.repeat(np.repeat(astronaut, 7, 0), 7, 1)
    # pixel p becomes the pixels 7p .. 7p + 6, whose centre is 7p + 3
    moved = Crop(7 * crop.x + 3, 7 * crop.y + 3, 7 * crop.side)
    difference = np.abs(warp(large, moved.matrix, 256).astype(int) - warp(astronaut, crop.matrix, 256))
    assert difference.mean() < 2.5
    shifted = Crop(moved.x + 14, moved.y, moved.side)
    assert np.abs(warp(large, shifted.matrix, 256).astype(int) - warp(astronaut, crop.matrix, 256)).mean() > 5


def test_only_visible_pixels_are_read(tmp_path: Path) -> None:
    """Crops from a 1.2 GB image on disk, of a face of 4000 px and a face of 12 px.

    Time and memory depend on the crop's side, not on the size of the image.
    """
    # a sparse file: nothing is written to disk
    image = np.memmap(tmp_path / "huge", np.uint8, "w+", shape=(20000, 20000, 3))
    big, small = dot(image, (15000.4, 4000.7), 60), dot(image, (19990.2, 19985.6), 1)
    tracemalloc.start()
    start = time.perf_counter()
    for centre, side in ((big, 4000), (small, 12)):
        crop = Crop(centre[0] - 0.1 * side, centre[1] + 0.05 * side, side)
        got = centre_of_mass(warp(image, crop.matrix, CROP_SIZE))
        assert_same(got, crop.to_crop(centre), crop)
    assert time.perf_counter() - start < 5
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    (tmp_path / "huge").unlink()


@pytest.mark.parametrize("side", [12, 250, 500])
def test_images_wider_than_opencv_supports(side: float) -> None:
    """cv2.warpAffine refuses images of more than 32767 px."""
    image = np.zeros((600, 40000, 3), np.uint8)
    crop = Crop(39700.3, 300.6, side)
    centre = dot(image, (crop.x + 0.1 * side, crop.y - 0.07 * side), max(side / 40, 1))
    assert_same(centre_of_mass(warp(image, crop.matrix, CROP_SIZE)), crop.to_crop(centre), crop)


def test_a_crop_wider_than_opencv_supports() -> None:
    image = np.zeros((600, 40000, 3), np.uint8)
    image[:, 30001:32000] = 255
    for axis, picture in enumerate((image, image.transpose(1, 0, 2))):
        centre = np.roll([31000, 299.5], axis)
        x, y = np.roll([20000.0, 1000.0], axis)
        crop = Crop(x, y, 40000)
        assert_same(centre_of_mass(warp(picture, crop.matrix, CROP_SIZE)), crop.to_crop(centre), crop)


# similarity


def test_similarity_is_exact_if_an_exact_one_exists() -> None:
    source = np.random.default_rng(0).uniform(0, 100, (5, 2))
    angle, scale, shift = np.radians(37), 0.4, np.array([12.0, -7.0])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(source, scale * source @ turn.T + shift)
    np.testing.assert_allclose(matrix, np.column_stack((scale * turn, shift)), atol=1e-9)


def test_similarity_is_the_least_squares_solution() -> None:
    """The expected a, b, tx, ty solve x' = ax - by + tx, y' = bx + ay + ty as linear equations.

    For mirrored targets the result contains no mirroring.
    """
    rng = np.random.default_rng(1)
    source = rng.uniform(0, 100, (5, 2))
    for target in (source + rng.normal(0, 9, (5, 2)), source * (-1, 1)):
        x, y = source.T
        one, zero = np.ones(5), np.zeros(5)
        rows = np.vstack((np.column_stack((x, -y, one, zero)), np.column_stack((y, x, zero, one))))
        a, b, tx, ty = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
        got = similarity(source, target)
        np.testing.assert_allclose(got, [[a, -b, tx], [b, a, ty]], atol=1e-9)
        assert np.linalg.det(got[:, :2]) >= 0
