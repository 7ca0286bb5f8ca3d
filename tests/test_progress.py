"""`progress`: a bar on a terminal, lines in a file, and nothing where there is no stream."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from hih_align.progress import progress_bar, say
from hih_align.training.journal import Journal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def count() -> None:
    for number in progress_bar(range(3), "faces", unit="face"):
        say(f"face {number} is done")
        for _ in progress_bar(range(2), "inner", leave=False):
            pass


def test_without_a_stream_there_is_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    count()
    with progress_bar(total=3) as bar:
        bar.update(3)
        bar.set_postfix({"nme": "3.2"})
        bar.write("text", file=None)


def test_a_bar_in_a_file_is_printed_as_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is overwritten, and each message has its own line."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    count()
    text = stream.getvalue()
    assert "\r" not in text
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0].startswith("faces:   0%")
    assert [line for line in lines if line.endswith("done")] == [f"face {number} is done" for number in range(3)]
    assert lines[-1].startswith("faces: 100%")
    assert "3/3" in lines[-1]
    assert all(lines)


def test_a_bar_on_a_terminal_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    count()
    assert "\rfaces: 100%" in stream.getvalue()
    # a message begins at the start of a line
    assert "\rface 1 is done\n" in stream.getvalue()


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar([1, 2], disable=True)) == [1, 2]
    assert stream.getvalue() == ""


def test_brief_bars_leave_no_trace_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar(range(3), "inner", leave=False)) == [0, 1, 2]
    assert list(progress_bar(range(3))) == [0, 1, 2]
    assert stream.getvalue() == ""


def test_a_training_run_works_without_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of a training run works under `pythonw` and in services, which have no standard error."""
    monkeypatch.setattr(sys, "stderr", None)
    with Journal(tmp_path, total=2) as journal:
        journal.advance(1, "epoch 1", {"nme": "3.2"})
        journal.say("epoch 1 is done")
        journal.epoch({"epoch": 1, "nme": 3.2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1, "nme": 3.2}\n'


def test_each_epoch_has_its_own_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Journal(tmp_path, total=2) as journal:
        for epoch in (1, 2):
            journal.advance(1, f"epoch {epoch}", {"nme": "3.2"})
            journal.say(f"epoch {epoch} is done")
    assert stream.getvalue() == "epoch 1 is done\nepoch 2 is done\n"  # the bar is not written again after each
