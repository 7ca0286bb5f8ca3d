from __future__ import annotations

import pytest

from hih_align.training.journal import Journal


@pytest.fixture(autouse=True)
def _no_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no curve of the runs of single tests, which would take a fifth of their time; runs of fixtures draw one."""
    monkeypatch.setattr(Journal, "curve", lambda journal: None)
