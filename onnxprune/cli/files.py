"""Side files of a run (plan, report): refused early, written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from onnxprune.errors import OutputError


def check_side_file(path: Path | None, flag: str, taken: tuple[Path, ...]) -> None:
    """Raise OutputError where ``path`` could not be written later, or is one of the ``taken`` files."""
    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"{flag} {path} is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{flag} {path}: there is no folder {path.parent}; create it or choose another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{flag} {path} cannot be written; check its permissions or choose another")
    if path.resolve() in {other.resolve() for other in taken}:
        raise OutputError(f"{flag} {path} is another file of this run; choose another name")


def write_text(path: Path, text: str) -> None:
    """UTF-8.

    Raises:
        OutputError: naming the file; nothing is left half-written, Ctrl-C included.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose another place"
        raise OutputError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error
    finally:
        part.unlink(missing_ok=True)
