"""Run a function in a new process that has already loaded PyTorch.

The process is forked from a server process, which has only loaded PyTorch and other packages. Loading PyTorch takes
seconds. This module is for tests of what a process does; tests of how a process starts must start a real one.

A process has the environment of its caller. But what PyTorch reads from it once, it has read in the server.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_server: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
# without hih_align, because the server does not know the checkout's folder and could import another installation
_server.set_forkserver_preload(["torch", "cv2", "skimage.data", "skimage.io", "huggingface_hub", "typer", "pydantic"])


@dataclass(frozen=True)
class Done:
    """The result of a process, with the fields of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def run(
    function: Callable[..., Any],
    *arguments: Any,
    env: Mapping[str, str] | None = None,
    meanwhile: Callable[[BaseProcess], None] | None = None,
    timeout: float = 600,
) -> Done:
    """Call a function of a module in a new process, with arguments that can be pickled.

    Args:
        env: the environment of the process; None: that of the caller.
        meanwhile: called with the process as soon as it runs, such as to send it a signal.

    Raises:
        TimeoutError: the function took longer than ``timeout`` seconds; its process was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = [Path(folder, name) for name in ("stdout", "stderr")]
        environment = dict(os.environ if env is None else env)
        process = _server.Process(target=_captured, args=(written, environment, function, arguments))
        process.start()
        try:
            if meanwhile is not None:
                meanwhile(process)
            process.join(timeout)
            if process.exitcode is None:
                raise TimeoutError(f"{function.__qualname__}{arguments} took longer than {timeout} s")
        finally:
            process.kill()
            process.join()
        return Done(process.exitcode, *(path.read_text("utf-8") if path.exists() else "" for path in written))


def program(*words: object, **options: Any) -> Done:
    """Run `hih-align` in a new process. ``options`` are those of `run`."""
    return run(_program, [str(word) for word in words], **options)


def _program(words: list[str]) -> None:
    from hih_align.cli.app import app

    app(words)


def _captured(
    written: list[Path], environment: dict[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in enumerate(written, 1):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, descriptor)
        os.close(target)
    function(*arguments)
