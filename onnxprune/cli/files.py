"""Side files of a run (plan, report): checked early, and written completely or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from onnxprune.errors import OutputError
from onnxprune.paths import create, part_of, same_file


def check_side_file(path: Path | None, flag: str, taken: Sequence[Path]) -> None:
    """Raise OutputError if ``path`` is not writable or is one of the ``taken`` files."""
    if path is None:
        return
    # These functions return False, rather than raise, if the system cannot access the path.
    if os.path.isdir(path):
        raise OutputError(f"{flag} {path} is a folder; give the name of a file in it")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{flag} {path}: folder {path.parent} does not exist; create it or choose another")
    there = os.path.exists(path)
    if there and not os.path.isfile(path):
        # Replacing a device by a file would remove the device for everybody.
        raise OutputError(f"{flag} {path} is not a regular file; choose another name")
    if not os.access(path if there else path.parent, os.W_OK):
        raise OutputError(f"{flag} {path} cannot be written; check its permissions or choose another")
    _check_name(path, flag)
    if any(same_file(path, other) for other in taken):
        raise OutputError(f"{flag} {path} is another file of this run; choose another name")
    _check_creates(path, flag)


def check_report(path: Path | None, taken: Sequence[Path]) -> None:
    """Like :func:`check_side_file`.  Also refuse a name that promises a format other than HTML."""
    check_side_file(path, "--report", taken)
    if path is not None and path.suffix.lower() not in ("", ".html", ".htm"):
        raise OutputError(f"--report {path}: the report is HTML; name it {path.with_suffix('.html')}")


def model_files(model: Path, targets: Iterable[Path | None]) -> tuple[Path, ...]:
    """The files of the model that one of the ``targets`` could overwrite."""
    usual = model, weights_beside(model)
    if not any(target is not None and os.path.isfile(target) for target in targets):
        # New files overwrite nothing.  Then we save a slow import.
        return usual
    from onnxprune.graph.external import data_files

    return (*usual, *data_files(model))


def weights_beside(model: Path) -> Path:
    """The usual name of a model's external weights, beside the model."""
    return model.with_name(model.name + ".data")


def given_files(*sources: object) -> tuple[Path, ...]:
    """The files with the user's data and functions, given as ``FILE`` or ``FILE.py:FUNCTION``; folders do not count."""
    texts = [os.fspath(source) for source in sources if isinstance(source, str | os.PathLike)]
    files = [Path(part).expanduser() for text in texts for part in (text, text.rpartition(":")[0]) if part]
    return tuple(file for file in files if os.path.isfile(file))


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, completely or not at all, even after Ctrl-C.

    Raises:
        OutputError: the file cannot be written; the message names it.
    """
    part = part_of(path)
    try:
        with create(part, path) as file:
            file.write(text.encode("utf-8"))
        os.replace(part, path)
    except OSError as error:
        remedy = "free some space" if error.errno == errno.ENOSPC else "choose another place"
        raise OutputError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error
    finally:
        # If removing fails, writing failed for the same reason, and that error is already reported.
        with suppress(OSError):
            part.unlink()


def _check_creates(path: Path, flag: str) -> None:
    """Create and remove an empty file beside ``path``.  Permissions prove nothing: /proc grants them, but takes no file."""
    part = part_of(path)
    try:
        create(part, path).close()
    except OSError as error:
        raise OutputError(
            f"{flag} {path} cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def _check_name(path: Path, flag: str) -> None:
    """Ask the system whether it accepts this file name."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(f"{flag} {path}: {error.strerror or error}; choose another name") from None
