"""Reading an image of any kind as an RGB array, and writing an RGB array to a file.

Pixel values are not changed: there is no colour management, and alpha is dropped without blending.
"""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
import PIL
import PIL.Image
from numpy.typing import NDArray
from PIL import ExifTags, ImageOps

from .files import is_stream, replacing
from .tensors import is_tensor

if TYPE_CHECKING:
    import torch

#: The kinds of image that `read_image` accepts.
Image: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes] | PIL.Image.Image | NDArray[Any] | torch.Tensor"

_ARRAY = "an RGB array (H, W, 3), (H, W), (H, W, 1) or (H, W, 4)"
_TENSOR = "an RGB tensor (3, H, W) or (1, H, W)"
_ENCODED = "image (an encoded picture)"
_DTYPES = ("uint8", "uint16", "float16", "float32", "float64")

#: Possible numbers of used bits in integers of more than 8 bits: those of cameras, and 8.
_BITS = (8, 10, 12, 14, 16)


def read_image(image: Image) -> NDArray[np.uint8]:
    """Read an image of any kind as (H, W, 3) uint8 RGB.

    Args:
        image: one of

            - a path of a file that Pillow can read; of several frames the first is read.
            - an encoded picture: ``bytes``, ``BytesIO``, or a file that is open for reading in binary mode. A seekable
              file is read from its start and stays open.
            - a PIL image of any mode: grey, palette, alpha, CMYK, 16-bit ("I;16" and, in 0..65535, "I"), float ("F").
            - an RGB array (H, W, 3), (H, W), (H, W, 1) or (H, W, 4), uint8, uint16 or float16, float32, float64 in
              [0, 1].
            - an RGB tensor (3, H, W) or (1, H, W) on any device, of the same dtypes or bfloat16.

            EXIF orientation is applied to files and PIL images. A float x becomes round(255 x).

            Integers of more than 8 bits (uint16, modes "I;16" and "I") do not say which value is white: cameras use
            10, 12 or 14 of 16 bits. So the range is the smallest of 8, 10, 12, 14 and 16 bits that holds the highest
            value of the picture. With b bits a value x becomes round(255 x / (2^b - 1)). To fix the range yourself,
            pass floats: ``image / 4095``. For 16-bit colour files Pillow gives the high byte.

    Returns:
        C-contiguous array. Only for a uint8 array the result is a view of it, without a copy: it has the order of the
        array, and is read-only for you.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the path is a directory; the file cannot be decoded, is truncated or exceeds Pillow's
            decompression-bomb limit; the image is empty or has another shape; it holds NaN, values out of range or
            masked pixels; or the tensor has no values (meta device).
        TypeError: another type or dtype, such as int32 arrays, whose range is unknown; or a file in text mode.
    """
    if isinstance(image, np.ndarray):
        if np.ma.is_masked(image):
            raise ValueError("image is a masked array with masked pixels: fill them first, such as image.filled(0)")
        return _from_array(np.asarray(image), "image")
    if is_tensor(image):
        return _from_tensor(image)
    if isinstance(image, PIL.Image.Image):
        return _from_array(_decode(image, "image"), "image")
    if isinstance(image, (str, os.PathLike)):
        name = f"image {os.fspath(image)!r}"
        return _from_array(_decode(image, name), name)
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _from_array(_decode(io.BytesIO(image), _ENCODED), _ENCODED)
    if callable(read := getattr(image, "read", None)):
        if isinstance(image, io.TextIOBase):  # type: ignore[unreachable]  # a caller without mypy has one
            raise TypeError("image is a file that is open in text mode, expected binary mode: open(path, 'rb')")
        if getattr(image, "closed", False):
            raise ValueError("image is a closed file, expected an open one")
        seekable = getattr(image, "seekable", None)
        whole = image if seekable is None or seekable() else io.BytesIO(read())  # Pillow reads from the start
        return _from_array(_decode(whole, _ENCODED), _ENCODED)
    raise TypeError(
        f"image is {type(image).__name__}, expected a path, an encoded picture (bytes or an open binary file), "
        f"a PIL image, {_ARRAY} or {_TENSOR}"
    )


def write_image(path: str | os.PathLike[str], array: NDArray[np.uint8]) -> None:
    """Write an RGB array to a file, atomically.

    Args:
        path: the file. Its suffix gives the format (".png", ".jpg", ...). Lossy formats get quality 95. A stream
            (`files.is_stream`) without a suffix, such as ``-``, gets a PNG.
        array: (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: the folder of ``path`` does not exist.
        ValueError: the suffix names no format, or a format that cannot hold this array; or the array is empty or has
            another shape.
        TypeError: the array has another dtype.
    """
    check_picture(array, "array")
    kind = format_of(path)
    try:
        with replacing(path) as temporary:
            # Pillow's own level of PNG takes three times as long, for a file that is a tenth smaller
            PIL.Image.fromarray(array).save(temporary, kind, quality=95, compress_level=1)
    except OSError as error:
        if error.errno is not None:  # an error of the disk; Pillow's own errors have no number
            raise
        raise ValueError(f"path {str(path)!r} cannot hold an array of shape {array.shape}: {error}") from error


def format_of(path: str | os.PathLike[str]) -> str:
    """Pillow's name of the format in which `write_image` writes a file. Raises its errors of the path."""
    target = Path(path)
    kind = _kind(target.suffix or (".png" if is_stream(path) else ""))
    if kind is None:
        raise ValueError(f"path {str(path)!r} has the suffix {target.suffix!r}, expected an image's, such as '.png'")
    if not is_stream(path) and not target.parent.is_dir():
        raise FileNotFoundError(f"path {str(path)!r} is in a folder that does not exist")
    return kind


def check_picture(array: Any, name: str) -> None:
    """Check an array that is written. ``name`` is the argument that errors name.

    Raises:
        ValueError: the array is empty or has another shape than (H, W, 3).
        TypeError: it is no array, or its dtype is not uint8.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        raise TypeError(f"{name} is {getattr(array, 'dtype', type(array).__name__)}, expected a uint8 array (H, W, 3)")
    if array.ndim != 3 or array.shape[2] != 3 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}, expected (H, W, 3)")


def can_write(path: str | os.PathLike[str]) -> bool:
    """Whether `write_image` knows the suffix of a path. Pillow reads some formats that it cannot write, such as PSD."""
    return _kind(Path(path).suffix) is not None


def _kind(suffix: str) -> str | None:
    """Pillow's name of the format that a suffix stands for, if Pillow can write it."""
    kind = PIL.Image.registered_extensions().get(suffix.lower())
    return kind if kind in PIL.Image.SAVE else None


def _decode(image: str | os.PathLike[str] | IO[bytes] | PIL.Image.Image, name: str) -> NDArray[Any]:
    """The pixels of a file or PIL image: (H, W, 3) uint8, or (H, W) uint16 or float32 if it has more than 8 bits."""
    try:
        if isinstance(image, PIL.Image.Image):
            return _pixels(image)
        with PIL.Image.open(image) as opened:
            return _pixels(opened)
    except (FileNotFoundError, NotADirectoryError) as error:
        url = re.match(r"\w{2,}:/", os.fsdecode(image)) if isinstance(image, (str, os.PathLike)) else None
        hint = "; URLs are not supported, download the file first" if url else ""
        raise FileNotFoundError(f"{name} does not exist{hint}") from error
    except MemoryError:
        raise
    except PIL.UnidentifiedImageError as error:  # its own text names an object by its address
        raise ValueError(f"{name} cannot be read: Pillow does not know its format") from error
    except Exception as error:  # Pillow's decoders raise many kinds: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{name} cannot be read: {error}") from error


def _pixels(image: PIL.Image.Image) -> NDArray[Any]:
    image.load()
    orientation = 1
    with suppress(Exception):  # the EXIF data may be invalid; the pixels are still good
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    image = image.copy()
    # exif_transpose rewrites all metadata and fails on unusual tags; a transparent colour counts as alpha
    image.info.clear()
    image.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "I":
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise ValueError(f"it holds {values.min()} to {values.max()}, expected 0 to 65535 in mode I")
        return values.astype(np.uint16)
    if image.mode.startswith(("I;16", "F")):
        return np.asarray(image)
    if image.mode == "La":  # premultiplied grey: Pillow converts it only through straight alpha
        image = image.convert("LA")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _from_tensor(tensor: torch.Tensor) -> NDArray[np.uint8]:
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    if tensor.is_meta:
        raise ValueError(f"image is a tensor of shape {shape} on the meta device, which holds no values")
    if len(shape) != 3 or shape[0] not in (1, 3) or tensor.numel() == 0:
        hint = "; tensors are (3, H, W): use image.permute(2, 0, 1)" if len(shape) == 3 and shape[2] == 3 else ""
        what = "has" if tensor.numel() else "is empty: it has"
        raise ValueError(f"image {what} shape {shape}, expected {_TENSOR}{hint}")
    if dtype not in (*_DTYPES, "bfloat16"):
        raise TypeError(_wrong_dtype("image", dtype, "image.to(torch.uint8)"))
    if dtype == "bfloat16":  # NumPy has no bfloat16
        tensor = tensor.float()
    return np.ascontiguousarray(_from_array(tensor.permute(1, 2, 0).numpy(force=True), "image"))


def _from_array(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    shape = array.shape
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (1, 3, 4))):
        hint = "; arrays are (H, W, 3): use image.transpose(1, 2, 0)" if array.ndim == 3 and shape[0] == 3 else ""
        what = "has" if array.size else "is empty: it has"
        raise ValueError(f"{name} {what} shape {shape}, expected {_ARRAY}{hint}")
    if array.dtype.name not in _DTYPES:
        raise TypeError(_wrong_dtype(name, array.dtype.name, "image.astype(np.uint8)"))
    if array.ndim == 3:
        array = array[..., 0] if shape[2] == 1 else array[..., :3]
    rgb = _to_uint8(array, name)
    return rgb if rgb.ndim == 3 else np.repeat(rgb[..., None], 3, axis=2)


def _wrong_dtype(name: str, dtype: str, convert: str) -> str:
    how = f"{convert} * 255" if dtype == "bool" else f"{convert} if its values are 0 to 255, else divide by white"
    return f"{name} has dtype {dtype}, expected uint8, uint16 or float in [0, 1]: convert it, {how}"


def _to_uint8(values: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Convert values of a dtype in `_DTYPES`, in either byte order, to 8 bits."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind == "u":
        white = next(full for full in (2**bits - 1 for bits in _BITS) if values.max() <= full)
        return ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8, order="C")
    low, high = float(values.min()), float(values.max())  # NaN if a value is NaN
    if not (low >= 0 and high <= 1):
        if np.isnan(low):
            raise ValueError(f"{name} holds NaN, expected floats in [0, 1]")
        hint = "; if its values are 0 to 255, then pass image / 255" if low >= 0 and 2 <= high <= 255 else ""
        raise ValueError(f"{name} holds {low:g} to {high:g}, expected floats in [0, 1]{hint}")
    scaled: NDArray[Any] = np.multiply(values, 255, dtype=np.float64 if values.dtype.itemsize == 8 else np.float32)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8, order="C")
