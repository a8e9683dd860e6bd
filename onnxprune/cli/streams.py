"""stdout carries only data.  Losing stderr is harmless.  Signals end a run like Ctrl-C."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, Any

from onnxprune.errors import OutputError


class Ended(KeyboardInterrupt):
    """A signal other than Ctrl-C ended the run; ``code`` is the matching exit code."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number


class ResultsLost(OutputError):
    """stdout cannot take the results; ``gone``: its reader has left, so nobody would see an error."""

    def __init__(self, reason: str, gone: bool) -> None:
        super().__init__(reason)
        self.gone = gone


class _Guarded:
    """A text stream that may break; ``_failed`` handles the error."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._failed(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        # Buffered text would fail again when the interpreter exits, and change the exit code.
        with suppress(OSError, ValueError):
            _to_devnull(self._stream.fileno())
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Results(_Guarded):
    """stdout: raises :class:`ResultsLost` on a write error."""

    def _failed(self, error: OSError) -> None:
        super()._failed(error)
        reason = "it is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        raise ResultsLost(
            f"cannot write to stdout: {reason}; send it elsewhere", isinstance(error, BrokenPipeError)
        ) from error


class _Notes(_Guarded):
    """stderr: on a write error it drops the text, and the run continues."""


@contextmanager
def guarded() -> Iterator[None]:
    """Set up streams and signals for a command (see the module), and restore them on exit."""
    # Otherwise a file opened later could get the number of a closed stream, and native code would print into it.
    for number in (0, 1, 2):
        _open_missing(number)
    streams = sys.stdout, sys.stderr
    out: Any = sys.stdout or os.fdopen(1, "w", closefd=False)
    err: Any = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (out, err):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A terminal that lacks a character shows '?'; the program must not fail.
            reconfigure(errors="replace")
    sys.stdout, sys.stderr = _Results(out), _Notes(err)
    before = _end_on_signals()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.stderr.flush()
        sys.stdout, sys.stderr = streams


def _open_missing(number: int) -> None:
    """Open ``/dev/null`` for a closed standard stream.  stdout is opened for reading, so lost results raise an error."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR if number == 2 else os.O_RDONLY)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)


def _end_on_signals() -> dict[int, Any]:
    """SIGTERM and SIGHUP raise :class:`Ended`, unless the caller has changed their handling (nohup)."""
    previous: dict[int, Any] = {}
    if threading.current_thread() is not threading.main_thread():
        return previous
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            previous[number] = signal.signal(number, _end)
    return previous


def _end(number: int, _: object) -> None:
    # A second signal must not interrupt the cleanup.
    signal.signal(number, signal.SIG_IGN)
    raise Ended(number)


def _to_devnull(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send everything written to stdout to stderr: by Python, native code and child processes."""
    sys.stdout.flush()
    with _descriptor_to_stderr(), redirect_stdout(sys.stderr):
        yield


@contextmanager
def _descriptor_to_stderr() -> Iterator[None]:
    try:
        out, err = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):
        # Captured streams (tests, notebooks) have no descriptor; Python's own prints are still redirected.
        yield
        return
    saved = os.dup(out)
    try:
        os.dup2(err, out)
        yield
    finally:
        os.dup2(saved, out)
        os.close(saved)
