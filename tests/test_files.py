"""`files`: a file is either complete or does not exist."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hih_align import files
from hih_align.files import appending, is_stream, making, replacing, sha256


def test_new_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    with replacing(target) as temporary:
        temporary.write_text("new")
        # the temporary file is in the same folder, because a rename is atomic only within a folder; the target does not
        # exist yet
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


def test_an_old_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    target.write_text("old and longer")
    with target.open() as reader:
        with replacing(target) as temporary:
            temporary.write_text("new")
            assert target.read_text() == "old and longer"
        assert target.read_text() == "new"
        assert reader.read() == "old and longer"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary_file(tmp_path: Path, error: type[BaseException]) -> None:
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
import os, runpy, signal  # runpy, because importing the package would import torch
with runpy.run_path({files.__file__!r})["replacing"]({str(target)!r}) as temporary:
    temporary.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_mode_is_that_of_an_ordinary_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o640
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_the_mode_of_a_replaced_file_stays(tmp_path: Path, mode: int) -> None:
    """A private file stays private, also while it is written, and a group keeps a shared one."""
    target = tmp_path / "a"
    target.touch()
    target.chmod(mode)
    with replacing(target) as temporary:
        assert not temporary.stat().st_mode & ~(mode | stat.S_IWUSR) & 0o777
        temporary.write_text("new")
    assert (stat.S_IMODE(target.stat().st_mode), target.read_text()) == (mode, "new")


def test_an_output_is_checked_before_the_work(tmp_path: Path) -> None:
    files.check_output("out", tmp_path / "a.json")
    files.check_output("out", Path("-"))
    (tmp_path / "link").symlink_to("gone/a.json")
    for path in (tmp_path / "gone" / "a.json", tmp_path / "link"):
        with pytest.raises(FileNotFoundError, match=f"out: {path} is in a folder that does not exist"):
            files.check_output("out", path)
    with pytest.raises(IsADirectoryError, match=f"out: {tmp_path} is a folder, expected the name of a file"):
        files.check_output("out", tmp_path)
    (tmp_path / "a.json").touch()
    with pytest.raises(ValueError, match=r"out: .*a\.json is an input itself, expected another name"):
        files.check_output("out", tmp_path / "a.json", None, tmp_path / "a.json")
    assert not (tmp_path / "gone").exists()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "a.json"):
        pytest.fail("the block must not run")
    assert not os.listdir(tmp_path)


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError), replacing(tmp_path / "a"):
        pytest.fail("the block must not run")
    assert os.listdir(tmp_path) == ["a"]


# long names


@pytest.mark.parametrize("length", [244, 250, 255])
@pytest.mark.parametrize("name", ["{}.json", "{}", "a.{}", ".{}", "ä{}.png"])
def test_names_of_the_greatest_length(tmp_path: Path, name: str, length: int) -> None:
    """The name of the temporary file beside it is not longer."""
    name = name.format("x" * (length - len(name.format("").encode())))
    assert len(name.encode()) == length
    with replacing(tmp_path / name) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert len(temporary.name.encode()) < 100
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_text() == "new"
    (tmp_path / name).unlink()
    with making(tmp_path / name) as folder:
        (folder / "a").touch()
    assert os.listdir(tmp_path / name) == ["a"]


def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path: Path) -> None:
    for writer in (replacing, making, appending):
        with pytest.raises(OSError, match="too long"), writer(tmp_path / ("x" * 256)):
            pytest.fail("the block must not run")
    assert not os.listdir(tmp_path)


# symbolic links


@pytest.mark.parametrize("old", ["old", None])
def test_links_are_followed(tmp_path: Path, old: str | None) -> None:
    """The path leads over several links. One of them contains ".." after a link to another folder."""
    for name in ("here", "there", "there/deep"):
        (tmp_path / name).mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "there" / "deep")
    (tmp_path / "here" / "first").symlink_to("../other/../second")
    (tmp_path / "there" / "second").symlink_to("target.json")
    target = tmp_path / "there" / "target.json"
    if old is not None:
        target.write_text(old)
    with replacing(tmp_path / "here" / "first") as temporary:
        temporary.write_text("new")
        assert temporary.parent == target.parent
        assert target.exists() == (old is not None)
    assert (tmp_path / "here" / "first").is_symlink()
    assert (tmp_path / "there" / "second").is_symlink()
    assert target.read_text() == "new"
    with appending(tmp_path / "here" / "first") as file:
        file.write(" and more")
    assert target.read_text() == "new and more"
    assert sorted(os.listdir(target.parent)) == ["deep", "second", "target.json"]


def test_links_that_form_a_loop(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"), replacing(tmp_path / "a"):
        pytest.fail("the block must not run")


# targets that are not regular files


def test_a_device_is_written_to_and_not_replaced() -> None:
    """/dev/null is still a device afterwards. A process of root could replace it."""
    before = os.stat("/dev/null")
    with replacing("/dev/null") as temporary:
        temporary.write_text("new")
        assert temporary.parent != Path("/dev")
    with appending("/dev/null") as file:
        file.write("more")
    after = os.stat("/dev/null")
    assert stat.S_ISCHR(after.st_mode)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert not temporary.exists()


@pytest.mark.parametrize("link", [False, True])
def test_a_named_pipe_is_written_to(tmp_path: Path, link: bool) -> None:
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    given = path
    if link:
        given = tmp_path / "link"
        given.symlink_to(path)
    for writer in (replacing, appending):
        reader = subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE, text=True)
        with writer(given) as to:
            to.write_text("new\n") if isinstance(to, Path) else to.write("new\n")
            if isinstance(to, Path):
                assert to.suffix == given.suffix
        assert reader.communicate(timeout=60)[0] == "new\n"
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == sorted({"pipe.json", given.name})


def test_a_block_that_fails_writes_nothing_into_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    with pytest.raises(ValueError, match="invalid"), replacing(f"/dev/fd/{write}") as temporary:
        temporary.write_text("half of the n" + str(int("bad")))
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == ""


def test_an_open_descriptor_is_written_to_and_stays_open(tmp_path: Path) -> None:
    """A shell's >(command) and 3>file give such paths. The text is added after the existing text of a file."""
    with (tmp_path / "a").open("w") as file:
        file.write("before\n")
        file.flush()
        for folder in ("/dev/fd", "/proc/self/fd", f"/proc/{os.getpid()}/fd"):
            assert is_stream(f"{folder}/{file.fileno()}")
            with replacing(f"{folder}/{file.fileno()}") as temporary:
                temporary.write_text("new\n")
            with appending(f"{folder}/{file.fileno()}") as lines:
                lines.write("line\n")
        file.write("after\n")
    assert (tmp_path / "a").read_text() == "before\n" + 3 * "new\nline\n" + "after\n"
    assert os.listdir(tmp_path) == ["a"]


def test_the_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> None:
    monkeypatch.chdir(tmp_path)
    print("before")
    with replacing("-") as temporary:
        temporary.write_bytes(b"\xff new\n")
    with appending(Path("-")) as file:
        file.write("line\n")
    print("after")
    assert capsysbinary.readouterr().out == b"before\n\xff new\nline\nafter\n"
    assert not os.listdir(tmp_path)


def test_a_standard_output_that_takes_only_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with replacing("-") as temporary:
        temporary.write_text("ä\n", "utf-8")
    assert stream.getvalue() == "ä\n"
    with pytest.raises(OSError, match="only text"), replacing("-") as temporary:
        temporary.write_bytes(b"\xff")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="no standard output"), replacing("-") as temporary:
        temporary.write_text("new")


def test_which_paths_are_streams(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    streams = ["-", "/dev/null", "/dev/stdout", "/dev/fd/1", tmp_path / "null", tmp_path / "pipe"]
    others = [tmp_path, tmp_path / "file", tmp_path / "link", tmp_path / "new", tmp_path / "no" / "new"]
    assert [is_stream(path) for path in streams + others] == [True] * len(streams) + [False] * len(others)


# folders


def test_a_folder_is_complete_or_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with making(tmp_path / name) as folder:
            (folder / "a").touch()
            assert folder.parent == (tmp_path if name == "new" else tmp_path / "old")
        assert os.listdir(tmp_path / name) == ["a"]
        with pytest.raises(FileExistsError, match="expected the name of a new folder"), making(tmp_path / name):
            pytest.fail("the block must not run")
    with pytest.raises(FileNotFoundError), making(tmp_path / "bad") as folder:
        (folder / "no" / "a").touch()
    with pytest.raises(FileNotFoundError), making(tmp_path / "no" / "new"):
        pytest.fail("the block must not run")
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


@pytest.mark.parametrize("given", ["{}", ".", "link"])
def test_an_empty_folder_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """Its mode, group and owner stay. A shell whose working directory it is sees the files."""
    folder = tmp_path / "old"
    folder.mkdir()
    folder.chmod(0o2770)
    (tmp_path / "link").symlink_to("old")
    before = folder.stat()
    monkeypatch.chdir(tmp_path if given == "link" else folder)
    with making(given.format(folder)) as temporary:
        (temporary / "a").touch()
        (temporary / "sub").mkdir()
        (temporary / "sub" / "b").touch()
    after = folder.stat()
    assert (after.st_ino, after.st_mode, after.st_gid) == (before.st_ino, before.st_mode, before.st_gid)
    assert sorted(path.name for path in folder.rglob("*")) == ["a", "b", "sub"]
    assert sorted(os.listdir(tmp_path)) == ["link", "old"]
    if given == ".":
        assert sorted(os.listdir(".")) == ["a", "sub"]


def test_a_new_volume_is_empty(tmp_path: Path) -> None:
    """ext4 makes a folder at its top."""
    (tmp_path / "lost+found").mkdir()
    with making(tmp_path) as folder:
        (folder / "a").touch()
    assert sorted(os.listdir(tmp_path)) == ["a", "lost+found"]
    with pytest.raises(FileExistsError, match="exists"), making(tmp_path):
        pytest.fail("the block must not run")


def test_a_mount_point_is_filled(tmp_path: Path) -> None:
    script = f"""
import runpy
with runpy.run_path({files.__file__!r})["making"]("here") as folder:
    (folder / "a").touch()
"""
    (tmp_path / "here").mkdir()
    inside = 'mount -t tmpfs none here || exit 77; "$@" && ls -A here'
    command = ["unshare", "-rm", "bash", "-c", inside, "bash", sys.executable, "-c", script]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"mounting is not allowed here: {done.stderr}")
    assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr


def test_a_mounted_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a container shares cannot be replaced (`rename(2)`: EBUSY)."""
    target = tmp_path / "a.json"
    target.write_text("old and longer")
    before = target.stat().st_ino

    def busy(source: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(target))

    monkeypatch.setattr(os, "replace", busy)
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert (target.read_text(), target.stat().st_ino, os.listdir(tmp_path)) == ("new", before, ["a.json"])


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("at", range(3))
def test_a_move_that_is_interrupted_leaves_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, error: type[BaseException]
) -> None:
    """The named file moves last, so a killed process leaves nothing that looks complete."""
    moved: list[str] = []
    real = os.rename

    def rename(old: Path, new: Path) -> None:
        if new.parent == tmp_path and len(moved) == at:
            assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] != ".") == moved
            raise error
        real(old, new)
        moved.append(new.name)

    def write() -> None:
        with making(tmp_path, last="config.json") as folder:
            for name in ("config.json", "model.bin", "model.xml"):
                (folder / name).touch()

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(error):
        write()
    assert moved[:at] == ["model.bin", "model.xml"][:at]
    assert list(tmp_path.iterdir()) == []


def test_files_that_came_meanwhile_are_kept(tmp_path: Path) -> None:
    def write() -> None:
        with making(tmp_path) as folder:
            (folder / "a").write_text("mine")
            (tmp_path / "a").write_text("of somebody else")

    with pytest.raises(FileExistsError, match="now holds 'a', expected an empty folder"):
        write()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "of somebody else")]


# the examples of FIPS 180-2, and data longer than one block
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


def test_sha256_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "gone")


def test_the_umask_of_the_process_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The umask belongs to all threads, and a process can only read it by changing it for a moment.

    Files that other threads create in this moment would be open to all users.
    """
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail(f"umask({mask})"))
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("a")
    with making(tmp_path / "b"):
        pass


def test_a_name_in_other_letters_may_be_an_input(tmp_path: Path) -> None:
    """File systems of macOS and Windows ignore the case of letters. Here two links stand for one file there."""
    photo, other = tmp_path / "photo.jpg", tmp_path / "Photo.JPG"
    photo.write_text("pixels")
    files.not_over("out", other, photo)  # there is no such file
    other.hardlink_to(photo)
    with pytest.raises(ValueError, match=r"out: .*Photo\.JPG is an input itself"):
        files.not_over("out", other, photo)
    other.unlink()
    other.write_text("another picture")
    files.not_over("out", other, photo)
