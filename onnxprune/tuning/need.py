"""Checks for torch before anything runs."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from onnxprune.errors import OptionError

MISSING = "tuning needs torch, which is not installed: pip install 'onnxprune[tune]'"
#: OpenMP threads wait busily by default.  On a shared machine that doubles the processor time.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}


def need_device(name: str) -> None:
    """Raises OptionError early if torch is missing or sees no such device."""
    need_torch()
    if name != "auto":
        from onnxprune.tuning.device import device_of

        device_of(name)


def need_torch() -> None:
    """Raises OptionError if torch is missing.  The message says what to install."""
    if "torch" in sys.modules:
        return
    if find_spec("torch") is None:
        raise OptionError(MISSING)
    # OpenMP reads these once, when torch loads.
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
