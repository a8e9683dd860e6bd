"""Whether torch is there; asked before anything runs."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from onnxprune.errors import OptionError

MISSING = "tuning needs torch, which is not installed: pip install 'onnxprune[tune]'"
#: Threads that wait busily, OpenMP's default, double the processor time on a machine that others use, too.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def need_device(name: str) -> None:
    """Raises OptionError, before anything takes long, where torch is missing or sees no such device."""
    need_torch()
    if name != "auto":
        from onnxprune.tuning.device import device_of

        device_of(name)


def need_torch() -> None:
    """Raises OptionError, naming what to install, where torch is missing."""
    if "torch" in sys.modules:
        return
    if find_spec("torch") is None:
        raise OptionError(MISSING)
    # Read once, when torch loads its threads.
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
