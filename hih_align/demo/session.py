"""Privacy of a running demo: the folder of uploads and results, which is deleted at the end, and settings of Gradio.

This module does not import Gradio, because the settings must be made before Gradio is imported.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Environment variable that names the folder for Gradio's uploads.
FOLDER = "GRADIO_TEMP_DIR"

#: Settings: no telemetry, no history of runs in the browser, no MCP server, no server-side rendering.
PRIVATE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

#: Seconds after which uploads and results are deleted while the demo is still running.
KEPT = 3600

#: Seconds after which an unchanged folder counts as that of a killed demo, where processes cannot be asked.
FORGOTTEN = 24 * KEPT

#: Begins the names of the folders. Machines may share the folder of temporary files, and do not see each other's
#: processes.
_NAME = f"hih-align-demo-{re.sub(r'[^A-Za-z0-9.]', '', platform.node())}-"

_lock = threading.Lock()
_in_use: set[Path] = set()  # folders of results on which somebody works


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create a folder for all uploads and results, and delete it at the end of the block. Turn telemetry off.

    Folders of demos that were killed are deleted, too. On Windows this happens a day later: there, no question to a
    process is harmless (signal 0 is Ctrl-C, which would end another demo of this console), so the age decides.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{_NAME}*"):
        if not _running(old):
            shutil.rmtree(old, ignore_errors=True)
    os.environ.update(PRIVATE)
    folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}{os.getpid()}-"))
    before = os.environ.get(FOLDER)
    os.environ[FOLDER] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            os.environ.pop(FOLDER, None)
        else:
            os.environ[FOLDER] = before
        shutil.rmtree(folder, ignore_errors=True)


def result_folder() -> Path:
    """Create a folder for the files of one result. Folders that are older than `KEPT` and not in use are deleted."""
    results = Path(os.environ.get(FOLDER) or tempfile.gettempdir(), "results")
    results.mkdir(parents=True, exist_ok=True)
    with _lock:
        for old in set(results.iterdir()) - _in_use:
            with suppress(FileNotFoundError):  # deleted from outside
                if old.stat().st_mtime < time.time() - KEPT:
                    shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=results))


@contextmanager
def working_folder() -> Iterator[Path]:
    """A `result_folder` that is not deleted during the block, however long it takes. `KEPT` begins at the end."""
    folder = result_folder()
    with _lock:
        _in_use.add(folder)
    try:
        yield folder
    finally:
        with _lock:
            with suppress(FileNotFoundError):
                os.utime(folder)
            _in_use.discard(folder)


def _alive(folder: Path) -> bool:
    """Whether the process in the name of a folder runs. True if this cannot be determined."""
    pid = folder.name[len(_NAME) :].partition("-")[0]
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # the process of another user
        return True
    return True


def _recent(folder: Path) -> bool:
    """Whether anything in a folder has changed within `FORGOTTEN`. A running demo keeps no file for longer."""
    newest = 0.0
    for path in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # its demo has just deleted it
            newest = max(newest, path.lstat().st_mtime)
    return newest > time.time() - FORGOTTEN


_running = _alive if os.name == "posix" else _recent
