"""OpenCV without the warnings that it writes to the standard error output by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_lock = threading.Lock()


@contextmanager
def quiet_opencv(level: int = cv2.utils.logging.LOG_LEVEL_ERROR) -> Iterator[None]:
    """Nothing below ``level`` is written within the block; one thread at a time, because the level is the process's."""
    with _lock:
        before = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(min(before, level))
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(before)
