"""`heatmaps`: Eq. 1-4 of the paper, and the expectation decoder."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hih_align.method.decoder import ARGMAX, STRIDE, Decoder, Rounding
from hih_align.method.heatmaps import centroid, decode, decode_each, encode, expectation, peak, split

SIGMAS = [(1.5, 1.0), (1.0, 1.0)]  # WFLW's and 300W's sigmas
FLOORED = Decoder("argmax", bin_offset=0.5)
LOCAL = Decoder("expectation", radius=4, power=2.0, temperature=1.0)
GLOBAL = Decoder("expectation", radius=None, power=3.0, temperature=0.35)
EXPECTATIONS = pytest.mark.parametrize("decoder", [LOCAL, GLOBAL])
DECODERS = pytest.mark.parametrize("decoder", [ARGMAX, LOCAL, GLOBAL])


def encode_slowly(
    points: NDArray[np.float64],
    size: tuple[int, int],
    n: int,
    integer_sigma: float,
    decimal_sigma: float,
    rounding: Rounding,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Eq. 1-3 as printed in the paper, one pixel at a time; ``points`` are the paper's (u / n, v / n)."""
    h, w = size
    integer = np.zeros((len(points), h, w))
    decimal = np.zeros((len(points), n, n))
    inside = np.zeros(len(points), bool)
    for k, (u, v) in enumerate(points):
        inside[k] = 0 <= u < w and 0 <= v < h
        if not inside[k]:
            continue
        cu, cv = math.floor(u), math.floor(v)
        fu, fv = (u - cu) * n, (v - cv) * n
        if rounding == "round":
            du, dv = min(math.floor(fu + 0.5), n - 1), min(math.floor(fv + 0.5), n - 1)
        else:
            du, dv = math.floor(fu), math.floor(fv)
        for y in range(h):
            for x in range(w):
                if math.hypot(x - u, y - v) <= 3 * integer_sigma:
                    integer[k, y, x] = math.exp(-((x - cu) ** 2 + (y - cv) ** 2) / (2 * integer_sigma**2))
        for y in range(n):
            for x in range(n):
                if math.hypot(x - fu, y - fv) <= 3 * decimal_sigma:
                    decimal[k, y, x] = math.exp(-((x - du) ** 2 + (y - dv) ** 2) / (2 * decimal_sigma**2))
    return integer, decimal, inside


# Eq. 1-3


@pytest.mark.parametrize("rounding", ["round", "floor"])
@pytest.mark.parametrize(("integer_sigma", "decimal_sigma"), SIGMAS)
@pytest.mark.parametrize(("size", "n"), [((64, 64), 8), ((20, 33), 4), ((33, 20), 16), ((1, 5), 8)])
def test_encode_follows_the_paper(
    size: tuple[int, int], n: int, integer_sigma: float, decimal_sigma: float, rounding: Rounding
) -> None:
    h, w = size
    rng = np.random.default_rng(n)
    points = rng.uniform((-1, -1), (w + 1, h + 1), (8, 2))
    # corners, pixel centres, the last cell, and just outside
    points = np.vstack(
        (points, [(0, 0), (w - 0.01, h - 0.01), (w // 2, h // 2), (w / 2, h - 1 / (2 * n)), (w, 0), (0, -0.01)])
    )
    integer, decimal, mask = encode(torch.tensor(points), size, n, integer_sigma, decimal_sigma, rounding)
    expected = encode_slowly(points, size, n, integer_sigma, decimal_sigma, rounding)
    assert integer.dtype == decimal.dtype == torch.float32
    assert mask.dtype == torch.bool
    np.testing.assert_allclose(integer, expected[0], atol=1e-6)
    np.testing.assert_allclose(decimal, expected[1], atol=1e-6)
    np.testing.assert_array_equal(mask, expected[2])
    assert mask.any()
    assert not mask.all()


def test_truncation_uses_the_distance_from_the_unrounded_point() -> None:
    """The heatmap is cut off at 3 sigma from the point itself, not from its rounded pixel.

    With sigma 1 and the point at 10.9, pixel 13 is 3 from floor(10.9), but 2.1 from the point; pixel 8 is 2 and 2.9
    away; pixel 7 is 3 and 3.9 away.
    """
    integer = encode(torch.tensor([[10.9, 5.0]]), (11, 21), 8, 1.0).integer[0]
    row = integer[5]
    assert row[13].item() == pytest.approx(math.exp(-4.5))
    assert row[8].item() == pytest.approx(math.exp(-2))
    assert row[7] == 0
    assert row[14] == 0  # 3.1 from the point
    # a distance of exactly 3 sigma is still inside
    assert encode(torch.tensor([[10.0, 5.0]]), (11, 21), 8, 1.0).integer[0, 5, 13] > 0
    # decimal heatmap: 0.45 * 8 = 3.6 in cells, its label is 4; cell 1 is 2.6 away and cell 7 is 3.4 away
    decimal = encode(torch.tensor([[10.45, 5.0]]), (11, 21), 8).decimal[0]
    assert decimal[0, 1].item() == pytest.approx(math.exp(-4.5))
    assert decimal[0, 7] == 0


def test_split() -> None:
    points = torch.tensor([[3.0, 4.49], [3.06, 4.0625], [3.9375, 4.93], [3.99, 4.0624]])
    pixel, cell = split(points, 8)
    assert pixel.tolist() == [[3, 4]] * 4
    assert cell.tolist() == [[0, 4], [0, 1], [7, 7], [7, 0]]
    assert split(points, 8, "floor")[1].tolist() == [[0, 3], [0, 0], [7, 7], [7, 0]]


def test_points_outside_are_masked() -> None:
    points = [[-0.01, 5], [5, -0.01], [9, 5], [5, 7], [1e9, 5], [math.nan, 5], [5, math.inf], [-math.inf, 5]]
    inside = [[0, 0], [8.99, 6.99], [-0.0, 3]]
    encoded = encode(torch.tensor(points + inside), (7, 9))
    assert encoded.mask.tolist() == [False] * len(points) + [True] * len(inside)
    assert not encoded.integer[: len(points)].any()
    assert not encoded.decimal[: len(points)].any()
    assert (encoded.integer[len(points) :].flatten(1).amax(1) == 1).all()


# the round trip


@st.composite
def maps_and_points(draw: st.DrawFn) -> tuple[tuple[int, int], list[list[float]]]:
    size = draw(st.tuples(st.integers(1, 80), st.integers(1, 80)))
    point = st.tuples(*(st.floats(-2, s + 2, width=32) | st.floats(0, s, width=32) for s in (size[1], size[0])))
    return size, [list(p) for p in draw(st.lists(point, min_size=1, max_size=8))]


@given(maps_and_points(), st.sampled_from([4, 8, 16]), st.sampled_from(SIGMAS), st.sampled_from(["round", "floor"]))
@example(((64, 64), [[63.999996, 0.0], [0.06249999, 0.0625]]), 8, (1.5, 1.0), "round")
@example(((1, 2), [[1.9999999, 0.99999994]]), 16, (1.0, 1.0), "round")
def test_round_trip(
    case: tuple[tuple[int, int], list[list[float]]], n: int, sigmas: tuple[float, float], rounding: Rounding
) -> None:
    """A decoded point is near the encoded one; points outside the map are masked.

    With rounding, the error per axis is at most half a cell where the fraction is below 1 - 1/(2n), and at most one
    cell above that. With floor, it is at most half a cell when the point is decoded at bin centres.
    """
    size, points = case
    exact = np.array(points, np.float64)
    integer, decimal, mask = encode(torch.tensor(points), size, n, *sigmas, rounding)
    np.testing.assert_array_equal(mask, ((exact >= 0) & (exact < (size[1], size[0]))).all(-1))
    decoded = decode(integer, decimal, ARGMAX if rounding == "round" else FLOORED).double().numpy()
    error = np.abs(decoded - exact) * n
    fraction = exact - np.floor(exact)
    bound = np.where((rounding == "round") & (fraction >= 1 - 1 / (2 * n)), 1.0, 0.5)
    # a tolerance of 1e-6 cells, because 0.5 - 2^-25 + 0.5 is 1 in float32
    assert (error <= bound + 1e-6)[mask.numpy()].all()
    # the heatmaps of masked points are zero
    assert not integer[~mask].any()
    assert not decimal[~mask].any()


@given(st.floats(0, 64, exclude_max=True), st.sampled_from([4, 8, 16]))
@example(64 - 2**-40, 8)
@example(2**-40, 8)
@example(4 - 2**-40, 16)
def test_round_trip_of_float64(x: float, n: int) -> None:
    """Points in float64 keep their precision where float32 would round them out of the map or into the next pixel."""
    encoded = encode(torch.tensor([[x, 3.0]], dtype=torch.float64), (64, 64), n)
    assert encoded.mask.all()
    assert encoded.integer.dtype == encoded.decimal.dtype == torch.float32
    bound = 1.0 if x % 1 >= 1 - 1 / (2 * n) else 0.5
    assert abs(decode(encoded.integer, encoded.decimal)[0, 0].item() - x) * n <= bound + 1e-6


# Eq. 4


def test_argmax_decode_follows_the_paper() -> None:
    """Eq. 4, scaled by the map's (w, h): argmax + argmax / decimal size, on noise, in maps of any shape."""
    rng = np.random.default_rng(0)
    integer, decimal = rng.standard_normal((5, 7, 12, 30)), rng.standard_normal((5, 7, 8, 8))
    expected = np.empty((5, 7, 2))
    for index in np.ndindex(5, 7):
        y, x = np.unravel_index(integer[index].argmax(), (12, 30))
        v, u = np.unravel_index(decimal[index].argmax(), (8, 8))
        expected[index] = x + u / 8, y + v / 8
    got = decode(torch.tensor(integer), torch.tensor(decimal), ARGMAX)
    assert got.dtype == torch.float32
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(decode(torch.tensor(integer), torch.tensor(decimal), FLOORED), expected + 1 / 16)


def test_peak_takes_the_first_of_equal_maxima() -> None:
    maps = torch.zeros(2, 3, 4)
    maps[1, 1, 2] = maps[1, 2, 0] = 5
    assert peak(maps).tolist() == [[0, 0], [2, 1]]


# the expectation decoder


def test_centroid_by_hand() -> None:
    maps = torch.zeros(6, 9)
    maps[3, 5], maps[3, 6], maps[2, 5] = 1.0, 0.5, 0.25
    maps[3, 4] = -3.0  # negative responses are clamped to 0
    maps[5, 5] = maps[3, 8] = 0.9  # outside the radius of 1
    # weights: 1 at the peak, 1/4 at +1 in x, 1/16 at -1 in y
    assert centroid(maps, 1, 2.0).tolist() == pytest.approx([5 + 0.25 / 1.3125, 3 - 0.0625 / 1.3125])
    assert centroid(maps, 1, 1.0).tolist() == pytest.approx([5 + 0.5 / 1.75, 3 - 0.25 / 1.75])
    assert centroid(maps, 0, 2.0).tolist() == [5, 3]
    # radius 2 includes (5, 5), but not (8, 3)
    assert centroid(maps, 2, 1.0).tolist() == pytest.approx([5 + 0.5 / 2.65, 3 + (2 * 0.9 - 0.25) / 2.65])
    # without a radius the whole map counts, with (8, 3)
    assert centroid(maps, None, 1.0).tolist() == pytest.approx([5 + (0.5 + 2.7) / 3.55, 3 + (1.8 - 0.25) / 3.55])
    weights = 1 + 0.5**3 + 0.25**3 + 2 * 0.9**3
    expected = [5 + (0.5**3 + 3 * 0.9**3) / weights, 3 + (2 * 0.9**3 - 0.25**3) / weights]
    assert centroid(maps, None, 3.0).tolist() == pytest.approx(expected)


def test_expectation_by_hand() -> None:
    assert expectation(torch.zeros(4, 8)).tolist() == [3.5, 1.5]
    maps = torch.full((8, 8), -1e4)
    maps[2, 1], maps[6, 3] = 0.0, math.log(3)  # probabilities 1/4 and 3/4
    assert expectation(maps).tolist() == pytest.approx([2.5, 5.0])
    # at temperature 1/2 the odds of 3 become 9
    assert expectation(maps, 0.5).tolist() == pytest.approx([0.1 * 1 + 0.9 * 3, 0.1 * 2 + 0.9 * 6])


def test_decode_by_hand() -> None:
    integer, decimal = torch.zeros(1, 6, 9), torch.full((1, 8, 8), -1e4)
    integer[0, 3, 5], integer[0, 3, 6] = 1.0, 0.5
    decimal[0, 2, 1], decimal[0, 6, 3] = 0.0, math.log(3)
    got = decode(integer, decimal, Decoder("expectation", radius=1, power=2.0, temperature=1.0))
    assert got[0].tolist() == pytest.approx([5.2 + 2.5 / 8, 3 + 5 / 8])
    got = decode(integer, decimal, Decoder("expectation", radius=1, power=2.0, temperature=1.0, bin_offset=0.5))
    assert got[0].tolist() == pytest.approx([5.2 + 3 / 8, 3 + 5.5 / 8])


@pytest.mark.parametrize("radius", [0, 4, None])
@pytest.mark.parametrize("value", [0.0, -0.5])
def test_centroid_of_an_empty_map(value: float, radius: int | None) -> None:
    """Where no response is positive, the result is the maximum's position, and every coordinate is finite."""
    maps = torch.full((2, 10, 12), value)
    maps[1, 4, 7] = value / 2
    assert centroid(maps, radius, 2.0).tolist() == [[0, 0], [7, 4] if value else [0, 0]]


@pytest.mark.parametrize("radius", [4, None])
@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1e18])
def test_centroid_does_not_depend_on_the_scale(scale: float, radius: int | None) -> None:
    """The power underflows for no weak response and overflows for no strong one."""
    maps = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(centroid(maps * scale, radius, 3.0), centroid(maps, radius, 3.0), rtol=1e-4)


@pytest.mark.parametrize("x", [0, 11])
@pytest.mark.parametrize("y", [0, 9])
def test_centroid_at_the_border_uses_only_pixels_of_its_own_map(x: int, y: int) -> None:
    """The window neither reads the next row or map in memory nor wraps around to the other side."""
    maps = torch.zeros(3, 10, 12)
    maps[:, y, 11 - x] = maps[:, 9 - y, x] = maps[:, 9 - y, 11 - x] = 0.9
    maps[:, (y + 1) % 10, 11 - x] = maps[:, (y - 1) % 10, 11 - x] = 0.9
    maps[1, y, x] = 1.0
    inner = 1 if x == 0 else 10
    maps[1, y, inner] = 0.5
    expected = x + (inner - x) * 0.25 / 1.25
    assert centroid(maps, 4, 2.0)[1].tolist() == pytest.approx([expected, y])


@given(st.integers(0, 60), st.integers(0, 30), st.integers(0, 2**32 - 1), st.sampled_from([LOCAL, GLOBAL]))
def test_expectation_moves_with_the_map(dx: int, dy: int, seed: int, decoder: Decoder) -> None:
    generator = torch.Generator().manual_seed(seed)
    blob, decimal = torch.rand(9, 9, generator=generator), torch.rand(1, 8, 8, generator=generator)
    blob[4, 4] = 2  # so that the window covers the same pixels at every place

    def place(x: int, y: int) -> Tensor:
        maps = torch.zeros(1, 39, 69)
        maps[0, y : y + 9, x : x + 9] = blob
        return decode(maps, decimal, decoder)[0]

    np.testing.assert_allclose(place(dx, dy), place(0, 0) + torch.tensor([dx, dy]), atol=1e-4)


def test_expectation_decodes_targets_close_to_their_points() -> None:
    """The expectation decoder, on target heatmaps, far from the border.

    Its error is smaller than the integer map alone allows. The decimal map is read as logits at temperature 0.1, the
    temperature at which the start weights were trained.
    """
    points = torch.rand(500, 2, generator=torch.Generator().manual_seed(0)) * 40 + 10
    for sigma in (1.0, 1.5):
        integer, decimal, _ = encode(points, (64, 64), 8, sigma)
        got = decode(integer, decimal, Decoder("expectation", radius=4, power=2.0, temperature=0.1))
        assert (got - points).abs().max() < 0.2


# shapes, precisions, devices


@DECODERS
def test_leading_dimensions(decoder: Decoder) -> None:
    points = torch.rand(2, 3, 5, 2) * 20
    whole = encode(points, (18, 25), 4)
    assert whole.integer.shape == (2, 3, 5, 18, 25)
    assert whole.decimal.shape == (2, 3, 5, 4, 4)
    assert whole.mask.shape == (2, 3, 5)
    decoded = decode(whole.integer, whole.decimal, decoder)
    assert decoded.shape == (2, 3, 5, 2)
    for index in np.ndindex(2, 3):
        single = encode(points[index], (18, 25), 4)
        for a, b in zip(single, whole, strict=True):
            assert torch.equal(a, b[index])
        torch.testing.assert_close(decode(single.integer, single.decimal, decoder), decoded[index])
    nobody = encode(torch.zeros(0, 5, 2), (18, 25), 4)
    assert decode(nobody.integer, nobody.decimal, decoder).shape == (0, 5, 2)


def test_a_grid_of_decoders_gives_what_each_decoder_gives() -> None:
    integer, decimal = torch.rand(3, 5, 16, 16), torch.rand(3, 5, 8, 8)
    settings = product(
        ("argmax", "expectation"), (4, None), (2.0, 2.5), (0.3, 1.0), (0.0, 0.5), ((0.0, 0.0), (0.2, 0.1))
    )
    decoders = [Decoder(*one) for one in settings]
    got = decode_each(integer, decimal, decoders)
    assert list(got) == decoders
    assert all(torch.equal(points, decode(integer, decimal, decoder)) for decoder, points in got.items())
    different = {tuple(points.flatten().tolist()) for decoder, points in got.items() if decoder.method == "expectation"}
    assert len(different) == 32


@DECODERS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_decode_computes_in_float32(dtype: torch.dtype, decoder: Decoder) -> None:
    """Coordinates up to 300 lose precision in bfloat16, and squares of small responses in float16."""
    integer, decimal, _ = encode(torch.rand(20, 2) * 200 + 90, (300, 300))
    integer, decimal = (0.01 * integer).to(dtype), decimal.to(dtype)
    got = decode(integer, decimal, decoder)
    assert got.dtype == torch.float32
    assert torch.equal(got, decode(integer.float(), decimal.float(), decoder))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_encode_takes_other_precisions(dtype: torch.dtype) -> None:
    points = torch.tensor([[3.25, 7.5], [12.0, 1.0]]).to(dtype)
    for a, b in zip(encode(points, (16, 16)), encode(points.float(), (16, 16)), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


@DECODERS
@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_decode_of_any_memory_layout(decoder: Decoder, memory: torch.memory_format) -> None:
    integer, decimal, _ = encode(torch.rand(2, 5, 2) * 20, (18, 25), 4)
    got = decode(integer.contiguous(memory_format=memory), decimal.contiguous(memory_format=memory), decoder)
    torch.testing.assert_close(got, decode(integer, decimal, decoder))


@DECODERS
def test_autocast_changes_nothing(decoder: Decoder) -> None:
    """Validation decodes inside autocast to bfloat16, in which 60.3 would become 60.25."""
    points = torch.rand(200, 2) * 63
    expected = encode(points)
    with torch.autocast("cpu", torch.bfloat16):
        got = encode(points)
        decoded = decode(got.integer, got.decimal, decoder)
    assert torch.equal(got.integer, expected.integer)
    assert torch.equal(got.decimal, expected.decimal)
    torch.testing.assert_close(decoded, decode(expected.integer, expected.decimal, decoder))


DEVICES = ["meta", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@DECODERS
def test_everything_stays_on_the_device(device: str, decoder: Decoder) -> None:
    """A tensor of the meta device holds no data.

    So an operation on another device, or a read of a value, raises an error.
    """
    encoded = encode(torch.zeros(2, 5, 2, device=device), (18, 25), 4)
    assert {t.device.type for t in encoded} == {device}
    assert decode(encoded.integer, encoded.decimal, decoder).device.type == device


@DECODERS
def test_no_default_device_is_used(decoder: Decoder) -> None:
    points = torch.rand(5, 2) * 15
    expected = encode(points, (18, 25))
    with torch.device("meta"):
        got = encode(points, (18, 25))
        decoded = decode(got.integer, got.decimal, decoder)
    assert torch.equal(got.integer, expected.integer)
    assert torch.equal(decoded, decode(expected.integer, expected.decimal, decoder))


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the PyTorch operations that are called."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@DECODERS
def test_no_loop_over_landmarks(decoder: Decoder) -> None:
    counts = []
    for k in (1, 60):
        with Operations() as operations:  # type: ignore[no-untyped-call]
            encoded = encode(torch.full((2, k, 2), 3.3), (18, 25))
            decode(encoded.integer, encoded.decimal, decoder)
        counts.append(operations.count)
    assert counts[0] == counts[1] > 0


@EXPECTATIONS
def test_expectation_has_a_gradient(decoder: Decoder) -> None:
    """A loss on coordinates needs the gradient."""
    integer, decimal, _ = encode(torch.tensor([[5.3, 7.6]]), (16, 16))
    integer.requires_grad_()
    decimal.requires_grad_()
    decode(integer, decimal, decoder).sum().backward()  # type: ignore[no-untyped-call]
    for maps in (integer, decimal):
        assert maps.grad is not None
        assert maps.grad.isfinite().all()
        assert maps.grad.any()


def test_stride() -> None:
    """crop = 4 * (integer + decimal / 8), without a half-pixel shift."""
    assert STRIDE == 4


# bad input


@pytest.mark.parametrize("shape", [(2,), (5, 3), (5,), (2, 5, 1)])
def test_encode_refuses_points(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^points has shape"):
        encode(torch.zeros(shape))


@pytest.mark.parametrize("n", [0, 2, 5, 32])
def test_encode_refuses_decimal_size(n: int) -> None:
    with pytest.raises(ValueError, match=rf"^decimal_size is {n}, expected 4, 8 or 16"):
        encode(torch.zeros(3, 2), decimal_size=n)


@pytest.mark.parametrize("sigmas", [(0.0, 1.0), (1.5, -1.0)])
def test_encode_refuses_sigmas(sigmas: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^integer_sigma, decimal_sigma are"):
        encode(torch.zeros(3, 2), (8, 8), 8, *sigmas)


def test_encode_refuses_rounding() -> None:
    with pytest.raises(ValueError, match=r"^rounding is 'ceil'"):
        encode(torch.zeros(3, 2), rounding="ceil")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "shapes", [((5, 64, 64), (4, 8, 8)), ((64, 64), (8, 8)), ((2, 5, 64, 64), (5, 8, 8)), ((5, 64, 64), (8, 8))]
)
def test_decode_refuses_maps_that_do_not_belong_together(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"^integer .* and decimal .* heatmaps"):
        decode(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize("decoder", [Decoder("argmax"), LOCAL, GLOBAL], ids=("argmax", "local", "global"))
def test_a_shift_is_added_to_the_decoded_point(decoder: Decoder) -> None:
    encoded = encode(torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0)) * 60 + 2)
    expected = decode(encoded.integer, encoded.decimal, decoder) + torch.tensor((0.25, -0.125))
    got = decode(encoded.integer, encoded.decimal, replace(decoder, shift=(0.25, -0.125)))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("wrong", [None, 0.5, (1.0,), (0.0, float("nan")), (0.0, 1.0, 2.0)])
def test_a_shift_has_x_and_y(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^shift is .*, expected finite x, y in heatmap pixels"):
        Decoder(shift=wrong)


@pytest.mark.parametrize(
    "wrong", [{"method": "mean"}, {"radius": -1}, {"power": 0.0}, {"temperature": 0.0}, {"temperature": -1.0}]
)
def test_decoder_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^(decode is 'mean'|radius, power, temperature)"):
        Decoder(**wrong)
