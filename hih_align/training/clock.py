"""The time of a run that is given seconds in place of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from .run_folder import Progress


class Clock:
    """How much of a run's time is over. Sittings add up: `Progress` keeps what earlier ones spent.

    Args:
        seconds: of training and validation together, see `Recipe.seconds`; None: the run ends with its epochs.
        at: where the run stands; its ``spent``, ``opening`` and ``validating`` are this clock's.
    """

    def __init__(self, seconds: float | None, at: Progress) -> None:
        self._seconds, self._at = seconds, at
        self.start()

    def start(self) -> None:
        """A sitting begins."""
        self._origin = perf_counter() - self._at.spent

    def tick(self) -> float:
        """After a step; returns the seconds since the last tick."""
        at, before = self._at, self._at.spent
        at.spent = perf_counter() - self._origin
        if at.steps == 1 and not at.opening:
            at.opening = at.spent
        return at.spent - before

    @contextmanager
    def validation(self) -> Iterator[None]:
        """What is inside is a validation; the last one's time is kept free at the run's end."""
        begun = perf_counter()
        yield
        self._at.validating = perf_counter() - begun

    @property
    def share(self) -> float | None:
        """How much of the time for steps is over, 0 to 1; None without ``seconds``. It starts after the first step, in
        which the network may be compiled, and leaves out the last validation."""
        if self._seconds is None:
            return None
        left = self._seconds - self._at.opening - self._at.validating
        return min(1.0, max(0.0, self._at.spent - self._at.opening) / max(left, 1e-9))

    @property
    def over(self) -> bool:
        """Whether it is time for the last validation."""
        return self._seconds is not None and self._at.spent + self._at.validating >= self._seconds
