"""Reading of uploaded files within limits, and errors as messages on the page."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ..images import read_image
from .session import KEPT

#: Largest photograph, in megapixels.
MEGAPIXELS = 50

#: Largest file, in the notation of Gradio.
FILE_SIZE = "500mb"

Function = TypeVar("Function", bound=Callable[..., Any])


def photo_input(**options: Any) -> Any:
    """Gradio's image input. Its value is the path of the unchanged uploaded file, which `read_photo` reads.

    It is not a subclass, because Gradio writes a file beside the module of a subclass.
    """
    component = gr.Image(type="filepath", image_mode=None, **options)
    its_own = component.preprocess

    def as_it_is(payload: Any) -> str | None:
        if payload is None or (payload.url or "").startswith("data:") or payload.path is None:
            read: str | None = its_own(payload)  # a snapshot may be a data URI
            return read
        return str(payload.path)

    component.preprocess = as_it_is
    return component


def there(path: str | os.PathLike[str]) -> Path:
    """The path of an uploaded file. Raises a ValueError if the file was deleted, as all are after `KEPT` seconds."""
    found = Path(path)
    if not found.is_file():
        raise ValueError(
            f"{found.name} is no longer on the server: uploads are deleted after {KEPT // 60} minutes. Choose the file "
            "again"
        )
    return found


def read_photo(path: str | os.PathLike[str], megapixels: float = MEGAPIXELS) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an uploaded file.

    Raises:
        ValueError: the file is not a picture, has more than ``megapixels``, or was deleted.
    """
    name = there(path).name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(path) as opened:
                width, height = opened.size
    except PIL.Image.DecompressionBombError:
        raise ValueError(
            f"{name} is too large: this page takes pictures of at most {megapixels:g} megapixels"
        ) from None
    except PIL.UnidentifiedImageError:
        raise ValueError(f"{name} is no picture, or of a format that Pillow does not know") from None
    except Exception as error:  # Pillow's decoders raise many kinds, as `read_image` knows
        raise ValueError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if width * height > megapixels * 1e6:
        raise ValueError(
            f"{name} has {width} x {height} pixels, {width * height / 1e6:.1f} megapixels: this page takes at most "
            f"{megapixels:g}. Make the picture smaller; the library itself has no such limit"
        )
    try:
        return read_image(path)
    except (ValueError, OSError) as error:  # a visitor must not see where the server keeps its files
        raise ValueError(str(error).replace(os.fspath(path), name)) from error


@contextmanager
def told(uploaded: Path | None = None) -> Iterator[None]:
    """Show errors of bad input as messages on the page.

    Args:
        uploaded: an uploaded file. The messages name it without its folder, which is the demo's.
    """
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        text = " ".join(str(error).split())
        text = text if uploaded is None else text.replace(str(uploaded), uploaded.name)
        raise gr.Error(text, print_exception=False) from error


def telling(function: Function) -> Function:
    """A decorator that shows errors of bad input as messages on the page."""

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with told():
            return function(*args, **options)

    return wrapped  # type: ignore[return-value]
