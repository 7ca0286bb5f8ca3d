"""`progress`: bars where something can be drawn, lines where it cannot, nothing where there is no stream."""

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


def test_in_a_file_a_bar_is_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written over, and no line is cut in two."""
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


def test_on_a_terminal_a_bar_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    count()
    assert "\rfaces: 100%" in stream.getvalue()
    # what is said begins at the beginning of a line
    assert "\rface 1 is done\n" in stream.getvalue()


def test_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress_bar([1, 2], disable=True)) == [1, 2]
    assert stream.getvalue() == ""


def test_a_run_tells_without_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of a training run: `pythonw` and services train, too."""
    monkeypatch.setattr(sys, "stderr", None)
    with Journal(tmp_path, total=2) as journal:
        journal.advance(1, "epoch 1", {"nme": "3.2"})
        journal.say("epoch 1 is done")
        journal.epoch({"epoch": 1, "nme": 3.2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"epoch": 1, "nme": 3.2}\n'


def test_epochs_are_lines_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Journal(tmp_path, total=2) as journal:
        for epoch in (1, 2):
            journal.advance(1, f"epoch {epoch}", {"nme": "3.2"})
            journal.say(f"epoch {epoch} is done")
    lines = stream.getvalue().splitlines()
    assert [line for line in lines if "is done" in line] == ["epoch 1 is done", "epoch 2 is done"]
    assert "\r" not in stream.getvalue()
