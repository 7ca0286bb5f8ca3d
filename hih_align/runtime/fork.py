"""Runtimes in a forked child process.

PyTorch uses several cores by OpenMP. OpenMP keeps a team of threads for each thread that calls it. A fork copies the
calling thread, but not its team. In the child, this thread would wait forever for a team that does not exist. An
operation on one core needs no team, and a new thread in the child gets a new team. PyTorch is not imported here: if it
was not imported before the fork, nothing must be done.

Other runtimes have threads of their own. An object that owns such threads waits for them when it is destroyed. In a
child these threads do not exist, so it would wait forever. Therefore a child does not destroy the objects of its
parent, see `spare`. For ONNX Runtime this is not sufficient, because it destroys threads in an exit handler of C. A
child of a process that used ONNX Runtime must end by ``os._exit``.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_prepared = False
_forked = False
_executor: ThreadPoolExecutor | None = None
_spared: weakref.WeakSet[Any] = weakref.WeakSet()


def prepare() -> None:
    """Make PyTorch work in processes that are forked from this one. A child uses one thread.

    If a child calls ``torch.set_num_threads``, `run` uses this number of threads. `prepare` does nothing on systems
    without fork, or when it is called again.
    """
    global _prepared
    with _lock:
        if not _prepared and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_in_child)
        _prepared = True


def spare(owner: object) -> None:
    """Register an object that owns threads. Processes that are forked from this one never destroy it."""
    _spared.add(owner)
    prepare()


def _in_child() -> None:
    global _forked, _executor, _lock, _spared
    for owner in _spared:
        immortal(owner)
    _spared = weakref.WeakSet()
    _lock = threading.Lock()  # another thread may have held it
    if (torch := sys.modules.get("torch")) is not None:
        _forked, _executor = True, None  # the executor's thread was not copied
        torch.set_num_threads(1)


def immortal(thing: object) -> None:
    """Never destroy an object, not even at the end of the interpreter."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def run(function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function(*arguments)`` in a thread that can use ``torch.get_num_threads()`` cores.

    This is the calling thread, with one exception. In a forked child that has set more than one thread, the main thread
    passes the call to a new thread, because the main thread is the copied one.
    """
    threads = sys.modules["torch"].get_num_threads() if _forked else 1
    if threads == 1 or threading.current_thread() is not threading.main_thread():  # others are new
        return function(*arguments)
    return _helper().submit(_with_threads, threads, function, arguments).result()


def _helper() -> ThreadPoolExecutor:
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(1, "hih-align-child")
        return _executor


def _with_threads(threads: int, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    torch = sys.modules["torch"]
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return function(*arguments)
