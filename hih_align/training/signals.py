"""SIGINT and SIGTERM as a request to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """Whether a signal has asked the loop to stop.

    Attributes:
        made: True from the first SIGINT or SIGTERM on that came while `listening`.
    """

    def __init__(self) -> None:
        self.made = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGINT and SIGTERM make the request; the second of a kind does what it did before.

        In another thread than the main one, which gets no signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}

        def ask(number: int, frame: object) -> None:
            self.made = True
            signal.signal(number, before[number])

        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[number] = signal.getsignal(number)
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
