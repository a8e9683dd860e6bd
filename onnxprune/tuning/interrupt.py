"""Ctrl-C once ends the tuning, and keeps the best so far; twice it ends the run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def once() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed meanwhile.  A second one raises KeyboardInterrupt; so does the first outside the main
    thread, where Python hears no signals."""
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
