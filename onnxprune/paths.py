"""Files of the user: detect when two paths are the same file, and read ordinary files only.  Temporary files."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from onnxprune.errors import OutputError

_PIECE = 1 << 16


class NotOrdinary(OSError):
    """A pipe, device or socket instead of a file.  Reading it could block forever or have side effects."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(errno.EINVAL, "it is not a regular file but a pipe, device or socket", str(path))


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths are the same file, also through links.  Missing files compare by their resolved paths."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def open_ordinary(path: str | Path, follow: bool = True) -> BinaryIO:
    """Open an ordinary file for reading without blocking.  ``follow``: accept a link as the last part of the path.

    The check also covers the opened file: someone may swap it between the check and the opening.

    Raises:
        OSError: the file is missing or unreadable.
        NotOrdinary: it is a pipe, device or socket.
    """
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except ValueError as error:
        # The path contains a NUL character.
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        # Even opening a device may have an effect, such as rewinding a tape.
        raise NotOrdinary(path)
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    handle = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise NotOrdinary(path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_ordinary(path: str | Path, most: int) -> bytes:
    """All bytes of an ordinary file.

    Raises:
        OSError: see :func:`open_ordinary`; also if the file has more than ``most`` bytes.
    """
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        # ``read`` allocates this many bytes at once.
        data = file.read(min(size, most) + 1)
        # Some system files report no size and never end.
        while len(data) <= most and (more := file.read(_PIECE)):
            data += more
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return data


def part_of(path: Path) -> Path:
    """A new name beside ``path`` for the file that will replace it."""
    # File systems limit names in bytes, and a character may take four.
    return path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:12]}.part")


def create(part: Path, target: Path) -> BinaryIO:
    """Create ``part``, a new file that will replace ``target``, with the permissions of ``target``.

    Raises:
        OSError: the file exists or cannot be created.
    """
    try:
        mode = stat.S_IMODE(os.stat(target).st_mode) & 0o777
    except OSError:
        return open(part, "xb")
    # The file must never be readable by more users than the finished file, not even before fchmod.
    file = open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode & 0o600))  # noqa: SIM115
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), mode)
        return file
    except BaseException:
        file.close()
        part.unlink(missing_ok=True)
        raise


@contextmanager
def temporary_files() -> Iterator[None]:
    """Around everything that writes temporary files.

    Raises:
        OutputError: the system refuses; names the folder and the remedy.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        # Where no folder can be written, even asking for it fails.
        where = f" in {tempfile.tempdir}" if tempfile.tempdir else ""
        raise OutputError(
            f"temporary files cannot be written{where} ({error.strerror or error}); free some space, or set TMPDIR to "
            "another folder"
        ) from error
