"""Signals reach Python, although a runtime changes the stack on which signals are handled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hih_align
from hih_align.signals import StopRequest

SCRIPT = """
import gc, signal, sys, threading
from hih_align import FaceAligner

signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore the signal
first, second = (FaceAligner.from_pretrained(sys.argv[2], device="cpu", backend=sys.argv[1]) for _ in range(2))
del first
gc.collect()
kept = [second]
del second
other = threading.Thread(target=lambda: (kept.clear(), gc.collect()))
other.start()
other.join()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_ctrl_c_reaches_python_after_aligners_were_deleted(backend: str, converted_nano: Callable[..., str]) -> None:
    """OpenVINO's plugin gives a thread a signal stack and unmaps it; see `hih_align.runtime.openvino.core`."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, backend, converted_nano(backend, weights=False)],
        env=os.environ | {"PYTHONPATH": str(Path(hih_align.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr  # -11 is SIGSEGV
    assert done.stdout == "interrupted\n"


def test_handlers_of_a_program_that_embeds_python_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python does not know them (`signal.getsignal` returns None), and so could not restore them."""
    handled = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: handled.append(number))
    with StopRequest().listening():
        pass
    assert handled == []
