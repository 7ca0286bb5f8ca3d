"""Many images: pairs of images and boxes, and images that are read while the network runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import zip_longest

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .images import Image, read_image


def pairs(images: Iterable[Image], bboxes: Iterable[ArrayLike]) -> Iterator[tuple[Image, ArrayLike]]:
    for name, given in (("images", images), ("bboxes", bboxes)):
        if isinstance(given, (str, os.PathLike)) or not isinstance(given, Iterable):
            raise TypeError(f"{name} is {type(given).__name__}, expected a list, or another iterable")
    missing = object()
    for index, (image, bbox) in enumerate(zip_longest(images, bboxes, fillvalue=missing)):
        if image is missing or bbox is missing:
            kind = "bboxes" if bbox is missing else "images"
            raise ValueError(f"{kind} has {index} entries and the other one more, expected one of bboxes per image")
        yield image, bbox  # type: ignore[misc]  # the sentinel is gone


def reading(
    pairs: Iterable[tuple[Image, ArrayLike]], ahead: int
) -> Iterator[tuple[Image, ArrayLike, Callable[[], NDArray[np.uint8]]]]:
    """Images and boxes with what gives the pixels; up to ``ahead`` files are being read meanwhile."""
    if not ahead:
        yield from ((image, bbox, partial(read_image, image)) for image, bbox in pairs)
        return
    # half of the cores: the network needs the others
    pool = ThreadPoolExecutor(min(ahead, max(1, (os.cpu_count() or 1) // 2)), "hih-align-read")
    try:
        waiting: deque[tuple[Image, ArrayLike, Callable[[], NDArray[np.uint8]]]] = deque()
        for image, bbox in pairs:
            file = isinstance(image, (str, os.PathLike))
            waiting.append((image, bbox, pool.submit(read_image, image).result if file else partial(read_image, image)))
            while waiting and (len(waiting) > ahead or not isinstance(waiting[0][0], (str, os.PathLike))):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
