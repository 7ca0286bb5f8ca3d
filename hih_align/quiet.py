"""Suppression of the warnings that OpenCV writes to the standard error output."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_lock = threading.Lock()


@contextmanager
def quiet_opencv(level: int = cv2.utils.logging.LOG_LEVEL_ERROR) -> Iterator[None]:
    """Suppress OpenCV's messages below ``level`` within the block.

    OpenCV has one log level per process. Therefore only one thread at a time can be in such a block.
    """
    with _lock:
        before = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(min(before, level))
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(before)
