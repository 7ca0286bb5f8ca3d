"""Many images: pairing images with boxes, and reading images ahead while the network runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat, zip_longest

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .images import Image, read_image


def pairs(
    images: Iterable[Image], bboxes: Iterable[ArrayLike | None] | None
) -> Iterator[tuple[Image, ArrayLike | None]]:
    for name, given in (("images", images), ("bboxes", repeat(None) if bboxes is None else bboxes)):
        one = isinstance(given, (str, bytes, bytearray, os.PathLike)) or hasattr(given, "read")
        if one or not isinstance(given, Iterable):
            raise TypeError(f"{name} is {type(given).__name__}, expected a list or another iterable")
    # the rows of one image would be taken for images
    if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] in (1, 3, 4):
        raise TypeError(f"images is an array of shape {images.shape}, which is one image, expected a list of images")
    if bboxes is None:
        yield from ((image, None) for image in images)
        return
    missing = object()
    for index, (image, bbox) in enumerate(zip_longest(images, bboxes, fillvalue=missing)):
        if image is missing or bbox is missing:
            kind = "bboxes" if bbox is missing else "images"
            raise ValueError(f"{kind} has {index} entries, expected as many bboxes as images")
        yield image, bbox  # type: ignore[misc]  # neither is the sentinel here


def reading(
    pairs: Iterable[tuple[Image, ArrayLike | None]], ahead: int
) -> Iterator[tuple[Image, ArrayLike | None, Callable[[], NDArray[np.uint8]]]]:
    """Yield each image and its boxes with a function that returns the pixels.

    Meanwhile threads read up to ``ahead`` files or ``bytes``.
    """
    if not ahead:
        yield from ((image, bbox, partial(read_image, image)) for image, bbox in pairs)
        return
    # half of the cores; the network needs the other half
    pool = ThreadPoolExecutor(min(ahead, max(1, (os.cpu_count() or 1) // 2)), "hih-align-read")
    try:
        waiting: deque[tuple[Image, ArrayLike | None, Callable[[], NDArray[np.uint8]]]] = deque()
        for image, bbox in pairs:
            read = pool.submit(read_image, image).result if _encoded(image) else partial(read_image, image)
            waiting.append((image, bbox, read))
            while waiting and (len(waiting) > ahead or not _encoded(waiting[0][0])):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _encoded(image: Image) -> bool:
    """Whether another thread may read the image. An open file belongs to the thread of the caller."""
    return isinstance(image, (str, bytes, os.PathLike))
