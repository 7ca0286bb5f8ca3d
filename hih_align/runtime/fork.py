"""Runtimes in a forked child process. PyTorch is not imported here: where it was not before a fork, it needs nothing.

PyTorch spreads an operation over the cores with OpenMP. OpenMP keeps a team of threads for each thread that calls it. A
fork copies the calling thread, but not its team: in the child, that thread would wait without end for a team that does
not exist. An operation on one core needs no team, and a new thread in the child gets a new team.

Other runtimes keep threads of their own. What owns such threads waits for them when it is destroyed: in the child
without end, for there they do not exist. So a child does not destroy what its parent made, see `spare`. Of ONNX Runtime
this is not all: it destroys threads in an exit handler of C, so a child must leave by ``os._exit``.
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
    """Let PyTorch compute in processes that are forked from this one, with one thread there.

    A child that calls ``torch.set_num_threads`` gets that many threads for what it does by `run`. Does nothing on
    systems without fork, or when called again.
    """
    global _prepared
    with _lock:
        if not _prepared and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_in_child)
        _prepared = True


def spare(owner: object) -> None:
    """Never destroy an object that owns threads in processes that are forked from this one."""
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
    """Keep an object until the process is gone: the interpreter does not destroy it at its end, either."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def run(function: Callable[..., T], *arguments: Any) -> T:
    """``function(*arguments)``, by a thread that may use as many cores as ``torch.get_num_threads()`` says.

    That is the calling thread, except in a forked child that has set more than one thread: there the thread that the
    fork copied hands the call to a new one.
    """
    threads = sys.modules["torch"].get_num_threads() if _forked else 1
    if threads == 1 or threading.current_thread() is not threading.main_thread():  # after a fork, main is the copy
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
