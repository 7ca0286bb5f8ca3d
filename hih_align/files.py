"""Writing results atomically: a file is complete or does not exist. Devices, pipes and standard output are supported.

Every output path that a user gives is written by this module. Symbolic links are followed. A device, a pipe, an open
descriptor (``/dev/stdout``, the shell's ``>(command)``) and ``-`` (standard output) are written to and not replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

#: The path that means standard output.
STANDARD_OUTPUT = "-"

#: Number of bytes that a temporary name takes from the target's name. File systems allow 255 bytes, some only 143.
_STEM, _SUFFIX = 40, 32

#: The folder that ext4 makes at the top of a volume.
_RESCUED = "lost+found"

#: The path of an open descriptor, after the links of its folder are resolved.
_DESCRIPTOR = re.compile(r"/(?:dev/fd|proc/(?:self|thread-self|(\d+)(?:/task/\d+)?)/fd)/(\d+)")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path, whose content replaces ``path`` if the block succeeds. If it raises, ``path`` is unchanged.

    Symbolic links of ``path`` are resolved. The temporary file lies beside the resolved file, so that one step replaces
    that file, whose mode stays. It has the same suffix, because some writers choose the format by the suffix. A stream
    (see `is_stream`) is not replaced: the content is written to it at the end, and the temporary file lies in the
    system's temporary folder.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: ``path`` is a folder.
        OSError: the name is too long, the links form a circle, or the place is not writable.
    """
    target, mode = _behind_links(path), None
    stream = isinstance(target, int) or target is None or not _replaceable(target)
    if stream:
        handle, name = tempfile.mkstemp(suffix=_short_suffix(Path(path)))
        os.close(handle)
        temporary = Path(name)
    else:
        assert isinstance(target, Path)
        temporary = _beside(target)
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        # created with the mode of the result: the system applies the umask, which cannot be read without changing it
        early = 0o666 if mode is None else mode & 0o777 | stat.S_IWUSR
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, early))
    try:
        yield temporary
        if stream:
            with temporary.open("rb") as source, _opened(target) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        else:
            if mode is not None:
                with suppress(OSError):  # a file system without modes
                    temporary.chmod(mode)
            _replace(temporary, target)  # type: ignore[arg-type]  # it is a Path
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary: Path, target: Path) -> None:
    try:
        os.replace(temporary, target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        shutil.copyfile(temporary, target)  # a mount point: a container shares files one by one in this way


@contextmanager
def making(folder: str | os.PathLike[str], last: str | None = None) -> Iterator[Path]:
    """A temporary folder. If the block succeeds, ``folder`` has its content; otherwise the temporary folder is removed.

    ``folder`` must not exist yet, or must be empty (`holds`). A new folder appears in one step. An empty folder stays
    the same folder, with its mode and owner, so it may be a mount point or the working directory. Its parent need not
    be writable. The temporary folder then lies in it. At the end the content moves up, each file in one step.

    Args:
        folder: the folder to write.
        last: name of the file that moves last into an empty folder. Without this file nobody takes the folder for a
            complete result.

    Raises:
        FileNotFoundError: the parent folder does not exist.
        FileExistsError: ``folder`` is a file, or a folder that is not empty, before the block or after it.
        OSError: the name is too long, or the place is not writable.
    """
    target = _behind_links(folder)
    if not isinstance(target, Path):
        raise FileExistsError(errno.EEXIST, "is a stream, expected the name of a new folder", os.fspath(folder))
    there = False
    with suppress(FileNotFoundError):
        there = stat.S_ISDIR(os.lstat(target).st_mode)
        if not there or holds(target):
            raise FileExistsError(errno.EEXIST, "exists, expected the name of a new folder", os.fspath(folder))
    temporary = _beside(target / "new" if there else target)
    temporary.mkdir()
    try:
        yield temporary
        if there:
            _move_up(temporary, last)
        else:
            os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def holds(folder: Path, besides: str = _RESCUED) -> str | None:
    """The first entry of a folder, besides the given one and the ``lost+found`` of a volume. None: it is empty."""
    return next((name for name in sorted(os.listdir(folder)) if name not in (besides, _RESCUED)), None)


def _move_up(temporary: Path, last: str | None) -> None:
    """Move the content of a folder into its parent, which holds nothing else. ``last`` moves last. All or nothing."""
    target = temporary.parent
    if other := holds(target, temporary.name):  # a rename would replace it
        raise FileExistsError(errno.EEXIST, f"now holds {other!r}, expected an empty folder", os.fspath(target))
    names = sorted(os.listdir(temporary), key=lambda name: (name == last, name))
    try:
        for name in names:
            os.rename(temporary / name, target / name)
    except BaseException:
        for name in reversed(names):
            with suppress(FileNotFoundError):  # it has not moved
                os.rename(target / name, temporary / name)
        raise


@contextmanager
def appending(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a UTF-8 file for appending, or a stream (see `is_stream`), which gets the text at once."""
    target = _behind_links(path)
    if isinstance(target, Path) and _replaceable(target):
        with target.open("a", encoding="utf-8") as file:
            yield file
        return
    with _opened(target) as sink:
        yield _Utf8(sink)  # type: ignore[misc]  # the part of TextIO that writing lines needs


@contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise an OSError in place of the RuntimeError with which PyTorch and OpenVINO report a full disk."""
    try:
        yield
    except RuntimeError as error:
        reason, _, _ = str(error).partition("\n")
        raise OSError(f"{os.fspath(path)} cannot be written: {reason}") from error


def not_over(name: str, path: Path, *inputs: Path | None) -> None:
    """Raise a ValueError if the output ``path`` would overwrite an input.

    Args:
        name: the argument that holds the path, for the message.
        path: the output, a file or a stream.
        inputs: files that are read; None is left out.
    """
    if any(_is_entry(path, one) for one in inputs if one is not None) and not is_stream(path):
        raise ValueError(f"{name}: {path} is an input itself, expected another name")


def check_output(name: str, path: Path, *inputs: Path | None) -> None:
    """Raise the error that writing a file would raise, before the work whose result it is to hold.

    Args:
        name, path, inputs: as in `not_over`.

    Raises:
        ValueError: ``path`` is one of the inputs.
        FileNotFoundError: the folder of ``path`` does not exist.
        IsADirectoryError: ``path`` is a folder.
    """
    not_over(name, path, *inputs)
    target = _behind_links(path)
    if not isinstance(target, Path):
        return
    if target.is_dir():
        raise IsADirectoryError(f"{name}: {path} is a folder, expected the name of a file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{name}: {path} is in a folder that does not exist")


def _is_entry(path: Path, other: Path) -> bool:
    """Whether two paths are the same entry of a folder. Some file systems ignore the case of letters in names."""
    path, other = path.resolve(), other.resolve()
    if path == other:
        return True
    try:
        return path.name.casefold() == other.name.casefold() and path.samefile(other)
    except OSError:  # one of them does not exist
        return False


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a stream: text written to it is passed on and not kept in a file of that name.

    Streams are ``-`` (standard output), devices, pipes, sockets and open descriptors.
    """
    target = _behind_links(path)
    return not isinstance(target, Path) or (target.exists() and not target.is_file() and not target.is_dir())


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _behind_links(path: str | os.PathLike[str]) -> Path | int | None:
    """The target of symbolic links: a path that is no link, the number of an open descriptor, or None (stdout)."""
    name = os.fspath(path)
    if name == STANDARD_OUTPUT:
        return None
    at = os.path.join(os.getcwd(), name)
    for _ in range(40):  # the limit of Linux
        folder, last = os.path.split(at.rstrip(os.sep))
        at = os.path.realpath(at) if last in ("", ".", "..") else os.path.join(os.path.realpath(folder), last)
        found = _DESCRIPTOR.fullmatch(at)
        if found is not None and found[1] in (None, str(os.getpid())):
            return int(found[2])
        try:
            if not stat.S_ISLNK(os.lstat(at).st_mode):
                return Path(at)
        except FileNotFoundError:
            return Path(at)
        at = os.path.join(os.path.dirname(at), os.readlink(at))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)


def _replaceable(target: Path) -> bool:
    """Whether a file can replace ``target``: ``target`` is a file or does not exist."""
    try:
        mode = os.lstat(target).st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            raise FileNotFoundError(f"{target} is in a folder that does not exist") from None
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(target))
    return stat.S_ISREG(mode)


def _beside(target: Path) -> Path:
    """An unused name in the folder of ``target``. It is not longer than the name of ``target`` allows."""
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target} is in a folder that does not exist")
    stem = os.fsencode(target.stem)[:_STEM].decode("utf-8", "ignore").lstrip(".")
    return target.parent / f".{stem}-{secrets.token_hex(4)}{_short_suffix(target)}"


def _short_suffix(path: Path) -> str:
    return path.suffix if len(os.fsencode(path.suffix)) <= _SUFFIX else ""


@contextmanager
def _opened(target: Path | int | None) -> Iterator[BinaryIO]:
    """Open a stream for writing bytes."""
    if isinstance(target, Path):
        with target.open("wb") as sink:
            yield sink
        return
    if sys.stdout is not None and target in (None, 1):
        sys.stdout.flush()  # keep the order: earlier output comes first
    if target is None:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "there is no standard output", STANDARD_OUTPUT)
        yield getattr(sys.stdout, "buffer", None) or _Text(sys.stdout)  # type: ignore[misc]
        sys.stdout.flush()
        return
    # a duplicate: the descriptor itself stays open and keeps its position in the file
    with os.fdopen(os.dup(target), "wb") as sink:
        yield sink


class _Text:
    """Writes bytes to a text stream that has no byte stream below it, such as the standard output of a notebook."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        try:
            self._stream.write(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise OSError(errno.EINVAL, "this standard output takes only text", STANDARD_OUTPUT) from error
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


class _Utf8:
    """Writes text to a stream of bytes."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def write(self, text: str) -> int:
        self._sink.write(text.encode("utf-8"))
        return len(text)

    def flush(self) -> None:
        self._sink.flush()
