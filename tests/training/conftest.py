from __future__ import annotations

import pytest

from hih_align.training.journal import Journal


@pytest.fixture(autouse=True)
def _no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curve of the runs of single tests: it takes a fifth of their time. Runs of a module's fixtures have one."""
    monkeypatch.setattr(Journal, "curve", lambda journal: None)
