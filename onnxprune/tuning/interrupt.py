"""The first Ctrl-C ends the tuning and keeps the best weights so far.  The second ends the run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def once() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed.  A second Ctrl-C raises KeyboardInterrupt.

    Outside the main thread Python gets no signals, so there the first one raises too.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
