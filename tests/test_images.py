"""`images`: each kind of image that a user may have, and each kind of bad image."""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import ImageChops

from hih_align.images import read_image, write_image

RGB = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (8, 12, 3), dtype=np.uint16)
# a smooth image, so that JPEG compression changes it little
RAMP = np.add.outer(np.arange(32) * 5, np.arange(48) * 2)[..., None].repeat(3, 2).astype(np.uint8)


def grey(values: NDArray[Any]) -> NDArray[Any]:
    return np.stack((values, values, values), -1)


def scaled_down(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return np.round(values / 257).astype(np.uint8)


def same(got: NDArray[np.uint8], expected: NDArray[Any]) -> None:
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


def exif(orientation: int, *entries: tuple[int, int, int, bytes]) -> bytes:
    """An EXIF block of literal bytes: (tag, type, count, value) for each entry; tag 0x0112 is the orientation."""
    rows = sorted([(0x0112, 3, 1, struct.pack(">HH", orientation, 0)), *entries])
    body = b"".join(struct.pack(">HHI", *row[:3]) + row[3] for row in rows)
    return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(rows)) + body + b"\0\0\0\0"


def file_bytes(array: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


# paths


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_path(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"ä b.{suffix}"
    PIL.Image.fromarray(RGB).save(path, lossless=True)
    for image in (path, str(path)):
        got = read_image(image)
        same(got, RGB)
        assert got.flags.c_contiguous


def test_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(RAMP).save(path, quality=95)
    assert np.abs(read_image(path).astype(int) - RAMP).max() < 6


@pytest.mark.parametrize("image", ["gone.png", Path("no/such/gone.png")])
def test_missing_path(image: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"^image '.*gone\.png' does not exist$"):
        read_image(image)


def test_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path / "a" / "b.png")


@pytest.mark.parametrize("image", ["https://example.org/a.jpg", "file:///a.jpg", Path("http://example.org/a.jpg")])
def test_url(image: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"image .*URLs are not supported"):
        read_image(image)


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"image '{tmp_path}' cannot be read"):
        read_image(tmp_path)


def test_null_byte_in_path() -> None:
    with pytest.raises(ValueError, match=r"image .* cannot be read: .*null"):
        read_image("a\0.png")


JPEG, PNG, TIFF = file_bytes(RAMP, "JPEG"), file_bytes(RGB, "PNG"), file_bytes(RGB, "TIFF")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        JPEG[:3],
        JPEG[: len(JPEG) // 2],
        JPEG[:-20],
        PNG[:20],
        PNG[:60],
        PNG[:-30],
        PNG.replace(b"IDAT", b"I\xffAT"),  # Pillow raises a SyntaxError
        TIFF[: len(TIFF) // 2],
    ],
)
def test_undecodable(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^image '{path}' cannot be read: .") as caught:
        read_image(path)
    assert caught.value.__cause__ is not None


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images") / "a"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.sampled_from([JPEG, PNG, TIFF, file_bytes(RAMP, "JPEG", exif=exif(6)), file_bytes(RGB, "GIF")]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8),
    end=st.integers(0, 3000),
)
def test_damaged_files_are_read_or_raise_value_error(
    scratch: Path, content: bytes, changes: list[tuple[int, int]], end: int
) -> None:
    damaged = bytearray(content)
    for at, value in changes:
        damaged[at % len(damaged)] = value
    scratch.write_bytes(damaged[:end])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's warnings about corrupt metadata
        try:
            got: NDArray[np.uint8] | str = read_image(scratch)
        except ValueError as error:
            got = str(error)
    if isinstance(got, str):
        assert got.startswith(f"image '{scratch}'")
    else:
        assert (got.ndim, got.shape[-1], got.dtype.name) == (3, 3, "uint8")


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(RGB).save(path)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 40)
    with pytest.raises(ValueError, match=f"image '{path}' cannot be read: .*bomb"):
        read_image(path)


def test_out_of_memory_is_not_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(PIL.Image, "open", exhausted)
    with pytest.raises(MemoryError):
        read_image(tmp_path / "a.png")


# EXIF

# The meaning of each orientation (EXIF 2.3, 4.6.4 A): where row 0 and column 0 of the stored image belong.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],  # row 0 at the top, column 0 at the right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda a: a.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    expected = UPRIGHT[orientation](RGB)
    path = tmp_path / "a.png"
    path.write_bytes(file_bytes(RGB, "PNG", exif=exif(orientation)))
    same(read_image(path), expected)
    with PIL.Image.open(path) as opened:
        same(read_image(opened), expected)
        same(read_image(opened), expected)  # the caller's image is not rotated
        assert opened.getexif()[0x0112] == orientation
        assert opened.size == (12, 8)
    jpeg = tmp_path / "a.jpg"
    jpeg.write_bytes(file_bytes(RAMP, "JPEG", quality=95, exif=exif(orientation)))
    assert np.abs(read_image(jpeg).astype(int) - UPRIGHT[orientation](RAMP)).max() < 6
    tiff = tmp_path / "a.tif"
    PIL.Image.fromarray(RGB).save(tiff, tiffinfo={0x0112: orientation})
    same(read_image(tiff), expected)
    deep = PIL.Image.fromarray(DEEP[..., 0])
    deep.getexif()[0x0112] = orientation
    deep.info["exif"] = deep.getexif().tobytes()
    same(read_image(deep), grey(scaled_down(UPRIGHT[orientation](DEEP[..., 0]))))


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (b"Exif\0\0garbage", RGB),  # not a TIFF header
        (exif(0), RGB),
        (exif(9), RGB),
        (exif(6, (0x0100, 2, 4, b"abc\0")), UPRIGHT[6](RGB)),  # the width is a text: Pillow cannot write it back
        (exif(6, (0x011A, 2, 4, b"abc\0")), UPRIGHT[6](RGB)),
    ],
)
def test_invalid_exif_does_not_prevent_reading(tmp_path: Path, block: bytes, expected: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(file_bytes(RGB, "PNG", exif=block))
    same(read_image(path), expected)


# PIL images

PICTURE = PIL.Image.fromarray(RGB)
LUMA = np.asarray(PICTURE.convert("L"))


def with_alpha(mode: str) -> PIL.Image.Image:
    image = PICTURE.convert(mode)
    image.putalpha(PIL.Image.fromarray(RGB[..., 0]))
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (PICTURE, RGB),
        (PICTURE.convert("RGBX"), RGB),
        (with_alpha("RGB"), RGB),
        (with_alpha("L"), grey(LUMA)),
        (PICTURE.convert("L"), grey(LUMA)),
        (PIL.Image.fromarray(LUMA > 99), grey((LUMA > 99) * 255)),
        (ImageChops.invert(PICTURE).convert("RGB").convert("CMYK"), 255 - RGB),
    ],
    ids=lambda v: v.mode if isinstance(v, PIL.Image.Image) else "",
)
def test_modes(image: PIL.Image.Image, expected: NDArray[np.uint8]) -> None:
    before = image.tobytes()
    got = read_image(image)
    same(got, expected)
    assert got.flags.c_contiguous
    assert got.flags.writeable
    got[:] = 7
    assert image.tobytes() == before


# a bar of one colour in the mode's own values, and the RGB value that it must become
@pytest.mark.parametrize(
    ("mode", "value", "rgb", "tolerance"),
    [
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), 0),
        ("YCbCr", (76, 85, 255), (255, 0, 0), 2),
        ("HSV", (85, 255, 200), (0, 200, 0), 2),
        ("LAB", (255, 128, 128), (255, 255, 255), 2),
        ("RGBa", (50, 20, 10, 128), (100, 40, 20), 1),  # premultiplied
        ("La", (50, 128), (100, 100, 100), 1),
    ],
)
def test_colour_spaces(mode: str, value: tuple[int, ...], rgb: tuple[int, ...], tolerance: int) -> None:
    got = read_image(PIL.Image.new(mode, (3, 2), value))
    assert got.shape == (2, 3, 3)
    assert np.abs(got.astype(int) - rgb).max() <= tolerance


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 16))])
def test_palette(tmp_path: Path, transparency: int | bytes | None) -> None:
    image = PICTURE.quantize(16)
    palette = np.array(image.getpalette()).reshape(-1, 3)
    expected = palette[np.asarray(image)]
    path = tmp_path / "a.png"
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    image.save(path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(read_image(path), expected)
        with PIL.Image.open(path) as opened:
            assert opened.mode == "P"
            assert ("transparency" in opened.info) == (transparency is not None)
            same(read_image(opened), expected)
            same(read_image(opened.convert("PA")), expected)


def test_transparent_colour_of_grey_and_rgb(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PICTURE.save(path, transparency=tuple(int(v) for v in RGB[0, 0]))
    same(read_image(path), RGB)
    PICTURE.convert("L").save(path, transparency=int(LUMA[0, 0]))
    same(read_image(path), grey(LUMA))


def test_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    PICTURE.save(path, save_all=True, append_images=[PIL.Image.new("RGB", (12, 8))])
    same(read_image(path), RGB)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N", "I"])
def test_16_bit_modes(mode: str) -> None:
    values = DEEP[..., 0]
    dtype = {"I;16B": ">u2", "I": "=i4"}.get(mode, "<u2")
    image = PIL.Image.frombytes(mode, (12, 8), values.astype(dtype).tobytes())
    same(read_image(image), grey(scaled_down(values)))


@pytest.mark.parametrize("value", [-1, 65536])
def test_mode_i_out_of_range(value: int) -> None:
    with pytest.raises(ValueError, match=f"image cannot be read: .*{value}.*65535"):
        read_image(PIL.Image.new("I", (3, 2), value))


def test_mode_f(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 96, dtype=np.float32).reshape(8, 12)
    same(read_image(PIL.Image.fromarray(values)), grey(np.round(values * 255)))
    path = tmp_path / "a.tif"
    PIL.Image.fromarray(values * 255).save(path)
    with pytest.raises(ValueError, match=rf"image '{path}' holds 0 to 255, expected floats in \[0, 1\].*/ 255"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bit_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(cv2.imencode(suffix, DEEP[..., 0])[1].tobytes())
    same(read_image(path), grey(scaled_down(DEEP[..., 0])))
    path.write_bytes(cv2.imencode(suffix, DEEP[..., ::-1])[1].tobytes())
    assert np.abs(read_image(path).astype(int) - scaled_down(DEEP)).max() <= 1


def test_lazy_truncated_pil_image() -> None:
    image = PIL.Image.open(io.BytesIO(JPEG[:-20]))  # opening works, because the header is complete
    with pytest.raises(ValueError, match=r"^image cannot be read: .*truncated"):
        read_image(image)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I", "F", "I;16"])
def test_empty_pil_image(mode: str) -> None:
    with pytest.raises(ValueError, match=r"image .*empty"):
        read_image(PIL.Image.new(mode, (0, 5)))


# arrays


@pytest.mark.parametrize("view", [RGB, RGB[:, :, ::-1], RGB[::-1, 2:5], RGB.transpose(1, 0, 2)])
def test_uint8_array_is_not_copied(view: NDArray[np.uint8]) -> None:
    before = view.copy()
    got = read_image(view)
    same(got, before)
    assert np.shares_memory(got, view)
    assert got.strides == view.strides


def test_alpha_is_dropped() -> None:
    rgba = np.dstack((RGB, LUMA))
    same(read_image(rgba), RGB)
    broken = np.dstack((RGB / 255, np.full((8, 12), np.nan)))
    same(read_image(broken), RGB)


def test_grey_array() -> None:
    got = read_image(LUMA)
    same(got, grey(LUMA))
    assert got.flags.c_contiguous
    assert not np.shares_memory(got, LUMA)
    same(read_image(LUMA / 255), grey(LUMA))


def test_ndarray_subclass() -> None:
    got = read_image(np.ma.masked_array(RGB, False))
    assert type(got) is np.ndarray
    same(got, RGB)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_every_uint16_value(dtype: str) -> None:
    values = np.arange(65536).astype(dtype).reshape(256, 256)
    same(read_image(values), grey(np.round(np.arange(65536) / 257).reshape(256, 256)))


@given(
    hnp.arrays(
        st.sampled_from(["<f2", "<f4", "<f8", ">f4"]),
        st.sampled_from([(2, 3), (2, 3, 3), (1, 1, 4)]),
        elements=st.floats(0, 1, width=16),
    )
)
def test_float_arrays(values: NDArray[Any]) -> None:
    before = values.copy()
    expected = np.round(values.astype(np.float64) * 255)  # exact for 16-bit values
    got = read_image(values)
    same(got, grey(expected) if values.ndim == 2 else expected[..., :3])
    assert got.flags.c_contiguous
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_uint8_value_survives_a_float(dtype: type) -> None:
    values = np.arange(256).reshape(16, 16)
    same(read_image((values / 255).astype(dtype)), grey(values))


def test_planar_views_come_out_contiguous() -> None:
    for planar in (RGB.transpose(2, 0, 1).copy() / 255, DEEP.transpose(2, 0, 1).copy()):
        assert read_image(planar.transpose(1, 2, 0)).flags.c_contiguous


@pytest.mark.parametrize(
    ("values", "message", "hinted"),
    [
        ([0.0, np.nan], "NaN", False),
        ([0.0, 255.0], "0 to 255", True),
        ([0.0, 2.0], "0 to 2", True),
        ([0.0, 1.01], "0 to 1.01", False),
        ([0.0, 65535.0], "0 to 65535", False),
        ([-1.0, 1.0], "-1 to 1", False),
        ([-1.0, 200.0], "-1 to 200", False),
        ([0.0, np.inf], "0 to inf", False),
        ([-np.inf, 0.0], "-inf to 0", False),
    ],
)
@pytest.mark.parametrize("tensor", [False, True])
def test_floats_out_of_range(values: list[float], message: str, hinted: bool, tensor: bool) -> None:
    planar = np.array(values, np.float32)[None, None].repeat(3, 0)
    with pytest.raises(ValueError, match=rf"^image holds {message}, expected floats in \[0, 1\]") as caught:
        read_image(torch.from_numpy(planar) if tensor else planar.transpose(1, 2, 0))
    assert ("/ 255" in str(caught.value)) == hinted


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.int16, np.uint32, np.longdouble, np.complex64, object, "U1"])
def test_wrong_dtype(dtype: Any) -> None:
    with pytest.raises(TypeError, match=r"image has dtype .*expected uint8, uint16 or float.*astype\(np.uint8\)"):
        read_image(np.zeros((4, 5, 3), dtype))


def test_bool_is_told_to_scale() -> None:
    with pytest.raises(TypeError, match=r"image has dtype bool.*astype\(np.uint8\) \* 255"):
        read_image(LUMA > 99)
    with pytest.raises(TypeError, match=r"image has dtype bool.*to\(torch.uint8\) \* 255"):
        read_image(torch.zeros(3, 4, 5, dtype=torch.bool))


@pytest.mark.parametrize("shape", [(), (5,), (4, 5, 2), (4, 5, 5), (1, 4, 5, 3)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^image has shape \(.*expected an RGB array \(H, W, 3\)") as caught:
        read_image(np.zeros(shape, np.uint8))
    assert str(shape) in str(caught.value)
    assert "transpose" not in str(caught.value)


def test_planar_array_is_told_to_transpose() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\).*arrays are \(H, W, 3\): use image.transpose\(1, 2, 0\)"):
        read_image(np.zeros((3, 4, 5), np.uint8))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (0, 5, 3), (4, 0, 3), (0, 0, 4), (4, 5, 0)])
def test_empty_array(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^image is empty: it has shape"):
        read_image(np.zeros(shape, np.uint8))


# tensors


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32, torch.float64])
def test_tensor(dtype: torch.dtype) -> None:
    planar = torch.from_numpy(RGB.transpose(2, 0, 1).copy())
    if dtype == torch.uint16:
        values = torch.from_numpy(RGB.transpose(2, 0, 1).astype(np.uint16) * 257)
    else:
        values = (planar / 255).to(dtype) if dtype.is_floating_point else planar
    before = values.clone()
    got = read_image(values)
    same(got, RGB)
    assert got.flags.c_contiguous
    assert torch.equal(values, before)


def test_bfloat16_tensor() -> None:
    values = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    same(read_image(values), np.round(values.float().permute(1, 2, 0).numpy() * 255))


def test_tensor_that_needs_grad() -> None:
    same(read_image(torch.full((3, 4, 5), 0.2, requires_grad=True)), np.full((4, 5, 3), 51))


@pytest.mark.cuda
def test_tensor_on_cuda() -> None:
    same(read_image(torch.from_numpy(RGB.transpose(2, 0, 1).copy()).cuda()), RGB)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5), (4, 4, 5), (1, 3, 4, 5), ()])
def test_wrong_tensor_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=r"^image has shape \(.*expected an RGB tensor \(3, H, W\) or \(1, H, W\)$"
    ) as caught:
        read_image(torch.zeros(shape))
    assert str(shape) in str(caught.value)


def test_interleaved_tensor_is_told_to_permute() -> None:
    with pytest.raises(ValueError, match=r"shape \(4, 5, 3\).*tensors are \(3, H, W\): use image.permute\(2, 0, 1\)"):
        read_image(torch.zeros(4, 5, 3))


def test_empty_tensor() -> None:
    with pytest.raises(ValueError, match=r"^image is empty: it has shape \(3, 0, 5\)"):
        read_image(torch.zeros(3, 0, 5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.complex64, torch.float8_e5m2])
def test_wrong_tensor_dtype(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=r"image has dtype .*expected uint8, uint16 or float.*to\(torch.uint8\)"):
        read_image(torch.zeros(3, 4, 5).to(dtype))


# anything else


@pytest.mark.parametrize("image", [None, 3, 0.5, [[0]], RGB.tolist(), np.float32(1)])
def test_wrong_type(image: Any) -> None:
    with pytest.raises(
        TypeError, match=f"^image is {type(image).__name__}, expected a path, an encoded picture .*, a PIL image"
    ):
        read_image(image)


# encoded images


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_an_encoded_image(kind: Any) -> None:
    same(read_image(kind(PNG)), RGB)


def test_an_open_file_is_read_from_its_start_and_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    with (tmp_path / "a.png").open("rb") as file:
        file.read(5)
        for _ in range(2):
            same(read_image(file), RGB)
        assert not file.closed


def test_a_stream_that_cannot_seek() -> None:
    reading, writing = os.pipe()
    os.write(writing, PNG)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        same(read_image(pipe), RGB)


@pytest.mark.parametrize("data", [b"", b"a.png", PNG[:60]])
def test_encoded_data_that_is_not_an_image(data: bytes) -> None:
    for image in (data, io.BytesIO(data)):
        with pytest.raises(ValueError, match=r"^image \(an encoded picture\) cannot be read"):
            read_image(image)


def test_files_that_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    with (tmp_path / "a.png").open(encoding="latin-1") as text, pytest.raises(TypeError, match=r"text mode.*'rb'"):
        read_image(text)  # type: ignore[arg-type]
    closed = io.BytesIO(PNG)
    closed.close()
    with pytest.raises(ValueError, match=r"image is a closed file"):
        read_image(closed)


# integers of unknown range


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["I;16", "I", "array", "tensor", "tiff"])
def test_white_is_255_for_each_number_of_bits(tmp_path: Path, bits: int, kind: str) -> None:
    """An image from black to white with 8 to 16 bits per value, in a wider type, is read as values from 0 to 255."""
    values = np.linspace(0, 2**bits - 1, 96).round().astype(np.uint16).reshape(8, 12)
    image: Any = values
    if kind == "tensor":
        image = torch.from_numpy(np.stack([values] * 3))
    elif kind == "I;16":
        image = PIL.Image.fromarray(values)
    elif kind != "array":
        image = PIL.Image.fromarray(values.astype(np.int32))
        assert image.mode == "I"
    if kind == "tiff":
        image.save(tmp_path / "a.tif")
        image = tmp_path / "a.tif"
    expected = np.floor(values / (2**bits - 1) * 255 + 0.5)
    same(read_image(image), grey(expected))


def test_32_bit_integers_are_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"image has dtype int32.*0 to 255, else divide by white"):
        read_image(np.full((4, 5, 3), 200, np.int32))


# objects without values


def test_meta_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"image is a tensor .*on the meta device, which holds no values"):
        read_image(torch.zeros(3, 4, 5, device="meta"))


def test_masked_arrays() -> None:
    same(read_image(np.ma.array(RGB, mask=False)), RGB)
    with pytest.raises(ValueError, match="image is a masked array"):
        read_image(np.ma.array(RGB, mask=RGB > 99))


def test_one_channel() -> None:
    same(read_image(LUMA[..., None]), grey(LUMA))
    same(read_image(torch.from_numpy(LUMA.copy())[None]), grey(LUMA))


# writing


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.tif"])
def test_written_file_reads_back(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / name, RGB[:, ::-1])
    write_image(str(tmp_path / name), RGB)  # over the first file
    same(read_image(tmp_path / name), RGB)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_written_jpeg_and_webp_are_near(tmp_path: Path, name: str) -> None:
    noise = grey(RGB[..., 0])
    write_image(tmp_path / name, noise)
    with PIL.Image.open(tmp_path / name) as opened:
        assert opened.format == {"a.jpg": "JPEG", "a.webp": "WEBP"}[name]
    # with Pillow's default quality the difference is 14 or more
    assert np.abs(read_image(tmp_path / name).astype(int) - noise).max() < 8


def test_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_image(tmp_path / "a.png", RGB)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["a", "a.txt", "a.jpgg", "a.psd", ""])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"^path .* has the suffix .*\.png"):
        write_image(tmp_path / name, RGB)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.xbm"  # this format takes only black and white
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=f"^path '{path}' cannot hold an array"):
        write_image(path, RGB)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.xbm"]


def test_write_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError):
        write_image(tmp_path / "a.png", RGB)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_write_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^path .*folder that does not exist"):
        write_image(tmp_path / "gone" / "a.png", RGB)


@pytest.mark.parametrize("array", [LUMA, np.dstack((RGB, LUMA)), RGB[:0]])
def test_write_wrong_shape(tmp_path: Path, array: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"^array has shape"):
        write_image(tmp_path / "a.png", array)


@pytest.mark.parametrize("array", [RGB / 255, RGB.tolist(), PICTURE])
def test_write_wrong_type(tmp_path: Path, array: Any) -> None:
    with pytest.raises(TypeError, match=r"^array is (float64|list|Image), expected a uint8 array"):
        write_image(tmp_path / "a.png", array)
