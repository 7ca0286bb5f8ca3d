"""The clock of a run that ends after a number of seconds instead of a number of epochs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from .run_folder import Progress


class Clock:
    """Measures the time of a run. If a run is resumed, the time of all sessions is added up in `Progress`.

    Args:
        seconds: time for training and validation together, see `Recipe.seconds`. None: the run ends with its epochs.
        at: the state of the run. The clock sets its ``spent``, ``opening`` and ``validating``.
    """

    def __init__(self, seconds: float | None, at: Progress) -> None:
        self._seconds, self._at = seconds, at
        self.start()

    def start(self) -> None:
        """Start a session."""
        self._origin = perf_counter() - self._at.spent

    def tick(self) -> float:
        """Record the end of a step. Returns the seconds since the last tick."""
        at, before = self._at, self._at.spent
        at.spent = perf_counter() - self._origin
        if at.steps == 1 and not at.opening:
            at.opening = at.spent
        return at.spent - before

    @contextmanager
    def validation(self) -> Iterator[None]:
        """Measure a validation, which runs in the block. The same time is reserved for the last one of the run."""
        begun = perf_counter()
        yield
        self._at.validating = perf_counter() - begun

    @property
    def share(self) -> float | None:
        """The share of the time for steps that is over, in [0, 1]. None without ``seconds``.

        The time for steps starts after the first step, in which the network may be compiled. It ends before the last
        validation.
        """
        if self._seconds is None:
            return None
        left = self._seconds - self._at.opening - self._at.validating
        return min(1.0, max(0.0, self._at.spent - self._at.opening) / max(left, 1e-9))

    @property
    def over(self) -> bool:
        """Whether it is time for the last validation."""
        return self._seconds is not None and self._at.spent + self._at.validating >= self._seconds
