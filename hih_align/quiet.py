"""Suppression of the warnings that OpenCV writes to the standard error output."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

#: Levels of OpenCV's log. They have names only in OpenCV 5.
SILENT, ERROR = 0, 2

_lock = threading.Lock()
_log = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 4 has the functions at the top


@contextmanager
def quiet_opencv(level: int = ERROR) -> Iterator[None]:
    """Suppress OpenCV's messages of less weight than ``level`` within the block.

    OpenCV has one log level per process. Therefore only one thread at a time can be in such a block.
    """
    with _lock:
        before = _log.getLogLevel()
        _log.setLogLevel(min(before, level))
        try:
            yield
        finally:
            _log.setLogLevel(before)
