"""`files`: files that are either whole or not there."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hih_align import files
from hih_align.files import replacing, sha256


def test_new_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    with replacing(target) as temporary:
        temporary.write_text("new")
        # beside it, as only a rename within a folder is atomic, and not yet there
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".json"
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("name", ["a.json", "no suffix", ".hidden", "ä b.tar.gz"])
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with replacing(name) as temporary:
        temporary.write_text("new")
    assert os.listdir(tmp_path) == [name]


def test_old_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old and longer")
    with target.open() as reader:
        with replacing(target) as temporary:
            temporary.write_text("new")
            assert target.read_text() == "old and longer"
        assert target.read_text() == "new"
        assert reader.read() == "old and longer"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")

    def write() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old")
    script = f"""
import os, runpy, signal  # runpy: the package would import torch
with runpy.run_path({files.__file__!r})["replacing"]({str(target)!r}) as temporary:
    temporary.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_mode_is_an_ordinary_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "a.json"):
        pytest.fail("the block must not run")
    assert not os.listdir(tmp_path)


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError), replacing(tmp_path / "a") as temporary:  # noqa: PT011  # which one is the system's
        temporary.write_text("new")
    assert os.listdir(tmp_path) == ["a"]


# FIPS 180-2's examples, and more than one block
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"a" * 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
        (bytes(3 << 20), hashlib.sha256(bytes(3 << 20)).hexdigest()),
    ],
    ids=["abc", "empty", "million", "blocks"],
)
def test_sha256(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert sha256(path) == sha256(str(path)) == expected


def test_sha256_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "gone")
