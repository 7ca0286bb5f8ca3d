"""What PyInstaller asks the package for: where its hook is."""

from __future__ import annotations

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Folders of PyInstaller hooks; the entry point ``pyinstaller40`` in pyproject.toml names this function."""
    return [str(Path(__file__).parent)]
