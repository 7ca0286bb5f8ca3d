"""Writing results: a file is whole or does not exist; devices, pipes and the standard output are written to.

Every path to write that a user gives comes through here. A symbolic link is followed. A device, a pipe, an open
descriptor (``/dev/stdout``, the shell's ``>(command)``) and ``-``, the standard output, are written to and stay what
they are.
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

#: The path that means the standard output.
STANDARD_OUTPUT = "-"

#: Bytes of a temporary name that come from the target's own. File systems take names of 255 bytes, some 143.
_STEM, _SUFFIX = 40, 32

#: Paths of open descriptors, after the links of their folder are followed.
_DESCRIPTOR = re.compile(r"/(?:dev/fd|proc/(?:self|thread-self|(\d+)(?:/task/\d+)?)/fd)/(\d+)")


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path whose content takes the place of ``path`` when the block ends well.

    If the block raises, ``path`` is left as it was. The temporary file lies beside the file that ``path`` names, behind
    all symbolic links, so that it can take that file's place in one step; it has the same suffix, so that writers which
    go by the suffix work. What is no file (see `is_stream`) is not replaced: it gets the content at the end, and the
    temporary file then lies in the system's folder for temporary files.

    Raises:
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: ``path`` is a folder.
        OSError: the name is too long, links lead round in a circle, or nothing can be written there.
    """
    target = _behind_links(path)
    stream = isinstance(target, int) or target is None or not _replaceable(target)
    if stream:
        handle, name = tempfile.mkstemp(suffix=_short_suffix(Path(path)))
        os.close(handle)
        temporary = Path(name)
    else:
        assert isinstance(target, Path)
        temporary = _beside(target)
        # with the mode of the result, from which the system takes the umask: to ask for the umask is to change it
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        if stream:
            with temporary.open("rb") as source, _opened(target) as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        else:
            os.replace(temporary, target)  # type: ignore[arg-type]  # it is a Path
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def making(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` when the block ends well, and is removed otherwise.

    ``folder`` does not exist yet, or is empty.

    Raises:
        FileNotFoundError: the folder's own folder does not exist.
        FileExistsError: there is a file, or a folder that holds something.
        OSError: the name is too long.
    """
    target = _behind_links(folder)
    if not isinstance(target, Path):
        raise FileExistsError(errno.EEXIST, "is a stream, expected the name of a new folder", os.fspath(folder))
    with suppress(FileNotFoundError):
        if not stat.S_ISDIR(os.lstat(target).st_mode) or any(target.iterdir()):
            raise FileExistsError(errno.EEXIST, "exists, expected the name of a new folder", os.fspath(folder))
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        with suppress(FileNotFoundError):
            target.rmdir()
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def appending(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """UTF-8 text that is added at the end of a file, made if need be, or goes to a stream (see `is_stream`) at once."""
    target = _behind_links(path)
    if isinstance(target, Path) and _replaceable(target):
        with target.open("a", encoding="utf-8") as file:
            yield file
        return
    with _opened(target) as sink:
        yield _Utf8(sink)  # type: ignore[misc]  # as much of a TextIO as lines need


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether what is written to ``path`` is passed on instead of kept in a file of that name.

    So it is for ``-`` (the standard output), devices, pipes, sockets and open descriptors.
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
    """Where symbolic links lead: a path that is no link, the number of an open descriptor, or None: standard output."""
    name = os.fspath(path)
    if name == STANDARD_OUTPUT:
        return None
    at = os.path.join(os.getcwd(), name)
    for _ in range(40):  # Linux follows as many
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
    """Whether a file can take the place of ``target``: a file does, or nothing is there."""
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
    """A name that nothing has in the folder of ``target``, and that every file system takes which takes its own."""
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target} is in a folder that does not exist")
    stem = os.fsencode(target.stem)[:_STEM].decode("utf-8", "ignore").lstrip(".")
    return target.parent / f".{stem}-{secrets.token_hex(4)}{_short_suffix(target)}"


def _short_suffix(path: Path) -> str:
    return path.suffix if len(os.fsencode(path.suffix)) <= _SUFFIX else ""


@contextmanager
def _opened(target: Path | int | None) -> Iterator[BinaryIO]:
    """What is no file, to write bytes to."""
    if isinstance(target, Path):
        with target.open("wb") as sink:
            yield sink
        return
    if sys.stdout is not None and target in (None, 1):
        sys.stdout.flush()  # what was printed before comes before
    if target is None:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "there is no standard output", STANDARD_OUTPUT)
        yield getattr(sys.stdout, "buffer", None) or _Text(sys.stdout)  # type: ignore[misc]
        sys.stdout.flush()
        return
    # a copy: the descriptor itself stays open, and its place in a file that it leads to is kept
    with os.fdopen(os.dup(target), "wb") as sink:
        yield sink


class _Text:
    """Bytes to a text stream that has none below it, such as a notebook's standard output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> int:
        try:
            self._stream.write(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise OSError(errno.EINVAL, "this standard output takes text alone", STANDARD_OUTPUT) from error
        return len(data)

    def flush(self) -> None:
        self._stream.flush()


class _Utf8:
    """Text to a stream of bytes."""

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def write(self, text: str) -> int:
        self._sink.write(text.encode("utf-8"))
        return len(text)

    def flush(self) -> None:
        self._sink.flush()
