"""Handling of SIGINT and SIGTERM: a signal requests a stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class StopRequest:
    """A request to stop, which a signal makes.

    Attributes:
        made: True after the first SIGINT or SIGTERM that arrived while `listening`.
    """

    def __init__(self) -> None:
        self.made = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM make the request. The second signal of a kind has its former effect.

        Only the main thread gets signals. In another thread this does nothing. A handler that is not of Python stays,
        because Python could not restore it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[int, Any] = {}

        def ask(number: int, frame: object) -> None:
            self.made = True
            signal.signal(number, before[number])

        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            if (handler := signal.getsignal(number)) is not None:  # None: of a program in C that runs Python
                before[number] = handler
                signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
