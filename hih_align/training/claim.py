"""The claim of a process to the folder of a run, so that no two runs write there."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar


class Claim:
    """The claim of a process to the folder of a run. It ends with `release`, with this object, or with the process.

    A trainer that was made and not run gives way to another one of the same process.

    Args:
        out: the folder. It is made if it does not exist.

    Raises:
        ValueError: another process trains in the folder, or another trainer of this process.
    """

    _here: ClassVar[weakref.WeakValueDictionary[Path, Claim]] = weakref.WeakValueDictionary()

    def __init__(self, out: Path) -> None:
        self._out, self._running, self._made = out, False, not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        older = self._here.get(out.resolve())
        if older is not None and older._running:
            raise ValueError(f"out: a run of this process goes on in {out}, expected another folder")
        if older is not None:
            older.release()
        descriptor = os.open(out, os.O_RDONLY) if os.name == "posix" else None
        self._end = weakref.finalize(self, _unlock, descriptor, os.getpid())
        if descriptor is not None:
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.release()
                raise ValueError(f"out: another process trains in {out}, expected another folder, or its end") from None
            except OSError:  # a file system without locks
                pass
        self._here[out.resolve()] = self

    def begin(self) -> None:
        """The run begins. Raises a ValueError if this claim has given way to a later one."""
        if self._here.get(self._out.resolve()) is not self:
            raise ValueError(f"out: another trainer of this process has {self._out}")
        self._running = True

    def release(self) -> None:
        """Let other processes use the folder."""
        self._running = False
        self._end()

    @contextmanager
    def unless_it_fails(self) -> Iterator[None]:
        """Release the claim if the block, which prepares the run, fails. A folder that the claim made is removed."""
        try:
            yield
        except BaseException:
            self.release()
            if self._made:
                with suppress(OSError):  # it is not empty
                    self._out.rmdir()
            raise


def _unlock(descriptor: int | None, owner: int) -> None:
    if descriptor is None:
        return
    if os.getpid() == owner:  # a forked child has a copy of the descriptor, which would hold the lock
        import fcntl

        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
