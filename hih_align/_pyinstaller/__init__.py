"""The entry point of PyInstaller: the folder of this package's hook."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Folders of PyInstaller hooks. The entry point ``pyinstaller40`` in pyproject.toml names this function."""
    return [str(Path(__file__).parent)]
