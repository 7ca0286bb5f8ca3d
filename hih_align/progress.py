"""Progress bars and lines between them, on the standard error output."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

#: Seconds between two lines of a bar that is not drawn over.
EVERY = 30.0


def progress_bar(
    iterable: Iterable[Any] | None = None, desc: str | None = None, *, disable: bool = False, **options: Any
) -> Any:
    """A bar of tqdm, ``options`` are tqdm's.

    Where nothing can be drawn over, in a file or a pipe, it is a line every `EVERY` seconds. Without a standard error
    output (``pythonw``, a service, ``2>&-``) there is none.
    """
    stream = sys.stderr
    if stream is None or disable:
        return tqdm(iterable, desc, disable=True, **options)
    if _drawn_over(stream):
        return tqdm(iterable, desc, file=stream, **options)
    return tqdm(iterable, desc, file=_Lines(stream), **options | {"mininterval": EVERY})


def say(text: str) -> None:
    """A line on the standard error output, above the bars that are drawn there."""
    if sys.stderr is not None:
        tqdm.write(text, file=sys.stderr)


def clear() -> None:
    """Wipe the bars off the terminal, before something else is written there; they come again by themselves."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.clear()


def _drawn_over(stream: Any) -> bool:
    """Whether a line can be written anew: a terminal, or a notebook's output."""
    return type(stream).__module__.startswith("ipykernel") or bool(getattr(stream, "isatty", bool)())


class _Lines:
    """What tqdm draws over and over, as lines of their own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = ""

    def write(self, text: str) -> None:
        text = text.replace("\x1b[A", "").strip()  # the way back up to where a line begins
        if text and text != self._last:  # not what clears a line
            self._last = text
            self._stream.write(f"{text}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
