"""What a running demo leaves behind: nothing. Its folder of uploads and results, and the settings that keep it private.

Without Gradio: the settings have to be made before Gradio is imported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Environment variable: the folder that Gradio keeps uploads in.
FOLDER = "GRADIO_TEMP_DIR"

#: No telemetry, no history of uses in the browser, no server of tools, no second server for pages.
PRIVATE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

#: Seconds after which what was uploaded or made is removed while the demo runs on.
KEPT = 3600

_NAME = "hih-align-demo-"


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for all uploads and results, removed at the end; telemetry is off from here on.

    Folders of demos that were killed are removed, too.
    """
    for old in Path(tempfile.gettempdir()).glob(f"{_NAME}*"):
        if not _alive(old.name[len(_NAME) :].partition("-")[0]):
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
    """A new folder for the files of one result; those of results that are older than `KEPT` are removed."""
    results = Path(os.environ.get(FOLDER) or tempfile.gettempdir(), "results")
    results.mkdir(parents=True, exist_ok=True)
    for old in results.iterdir():
        if old.stat().st_mtime < time.time() - KEPT:
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=results))


def _alive(pid: str) -> bool:
    """Whether a process of that number runs; also where that cannot be known."""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's; or Windows, which has no such question
        return True
    return True
