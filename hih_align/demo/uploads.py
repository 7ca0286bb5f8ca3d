"""What is uploaded, read with limits; and errors that the page shows as a sentence."""

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

#: Largest photograph, megapixels.
MEGAPIXELS = 50

#: Largest file, as Gradio takes it.
FILE_SIZE = "500mb"

Function = TypeVar("Function", bound=Callable[..., Any])


def photo_input(**options: Any) -> Any:
    """Gradio's image input, which hands on the path of the uploaded file as it is: reading it is ours.

    Not a subclass: beside the module of one, Gradio writes a file.
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


def read_photo(path: str | os.PathLike[str], megapixels: float = MEGAPIXELS) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an uploaded file.

    Raises:
        ValueError: no picture, or one of more than ``megapixels``.
    """
    name = Path(path).name
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
    except OSError as error:
        raise ValueError(f"{name} cannot be read: {error}") from error
    if width * height > megapixels * 1e6:
        raise ValueError(
            f"{name} has {width} x {height} pixels, {width * height / 1e6:.1f} megapixels: this page takes at most "
            f"{megapixels:g}. Make the picture smaller; the library itself has no such limit"
        )
    return read_image(path)


@contextmanager
def told() -> Iterator[None]:
    """Errors of bad input become a message on the page."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise gr.Error(" ".join(str(error).split()), print_exception=False) from error


def telling(function: Function) -> Function:
    """A function whose errors of bad input become a message on the page."""

    @functools.wraps(function)
    def wrapped(*args: Any, **options: Any) -> Any:
        with told():
            return function(*args, **options)

    return wrapped  # type: ignore[return-value]
