"""Progress bars, lines of text between them, and warnings, on standard error."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

_PACKAGE = os.path.dirname(__file__) + os.sep

#: Seconds between two lines of a progress bar that cannot be redrawn.
EVERY = 30.0


def progress_bar(
    iterable: Iterable[Any] | None = None, desc: str | None = None, *, disable: bool = False, **options: Any
) -> Any:
    """A progress bar of tqdm; ``options`` are passed to tqdm.

    If standard error is a file or a pipe, a line is written every `EVERY` seconds instead; for a bar that has no
    description or does not stay (``leave=False``) only if it takes longer than that. If there is no standard error
    (``pythonw``, a service, ``2>&-``), nothing is shown.
    """
    stream = sys.stderr
    if stream is None or disable:
        return tqdm(iterable, desc, disable=True, **options)
    if _drawn_over(stream):
        return tqdm(iterable, desc, file=stream, **options)
    brief = desc is None or options.get("leave") is False
    return tqdm(iterable, desc, file=_Lines(stream), **options | {"mininterval": EVERY, "delay": EVERY * brief})


def say(text: str) -> None:
    """Write a line to standard error, above the progress bars."""
    if sys.stderr is not None:
        tqdm.write(text, file=sys.stderr)


def warn(text: str) -> None:
    """Warn with the user's line that called the package. Python shows this line, and shows a warning once for each."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _inside(frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=level)


def _inside(file: str) -> bool:
    """Whether a file is of this package, or of the decorators and contexts around its functions."""
    return file.startswith(_PACKAGE) or os.path.basename(file) in ("_contextlib.py", "contextlib.py")


def clear() -> None:
    """Remove the progress bars from the terminal before other output. They are drawn again at the next update."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.clear()


def _drawn_over(stream: Any) -> bool:
    """Whether a line can be redrawn: on a terminal, or in the output of a notebook."""
    return type(stream).__module__.startswith("ipykernel") or bool(getattr(stream, "isatty", bool)())


class _Lines:
    """Writes each state of a tqdm bar as a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        text = text.replace("\x1b[A", "").strip()  # remove the escape code that moves the cursor up
        if text and text != self._last:  # leave out text that only clears a line
            self._last = text
            self._stream.write(f"{text}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
