"""Files from outside: whether two paths lead to one, and reading what is an ordinary file and nothing else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 16


class NotOrdinary(OSError):
    """A pipe, device or socket where a file was expected: reading it may never end, or set something off."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(errno.EINVAL, "it is no ordinary file, but a pipe, device or socket", str(path))


def same_file(one: Path, other: Path) -> bool:
    """Links included; of files that are not there, by where they would be."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def open_ordinary(path: str | Path, follow: bool = True) -> BinaryIO:
    """Open an ordinary file for reading, and wait for nobody; ``follow``: also where the last part is a link.

    What is opened is checked, not only what was there before: a file may be swapped in between.

    Raises:
        OSError: where there is none, or it cannot be read; :class:`NotOrdinary` for pipes, devices and sockets.
    """
    try:
        mode = os.stat(path, follow_symlinks=follow).st_mode
    except ValueError as error:
        # A NUL, which no path can hold.
        raise OSError(errno.EINVAL, str(error), str(path)) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
        # Opening a device may already do something, such as rewind a tape.
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
        OSError: see :func:`open_ordinary`; also where it has more than ``most`` bytes.
    """
    with open_ordinary(path) as file:
        size = os.fstat(file.fileno()).st_size
        # A buffer of as many bytes is made at once.
        data = file.read(min(size, most) + 1)
        # Some files of the system state no size, and go on for ever.
        while len(data) <= most and (more := file.read(_PIECE)):
            data += more
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return data


def create(part: Path, target: Path) -> BinaryIO:
    """Create the new file ``part``, which will take the place of ``target``, readable for whom that is now.

    Raises:
        OSError: where it cannot be created, or is there.
    """
    try:
        mode = stat.S_IMODE(os.stat(target).st_mode) & 0o777
    except OSError:
        return open(part, "xb")
    # Never readable for more than the finished file, not even before it has its mode.
    file = open(part, "xb", opener=lambda name, flags: os.open(name, flags, mode & 0o600))  # noqa: SIM115
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), mode)
        return file
    except BaseException:
        file.close()
        part.unlink(missing_ok=True)
        raise
