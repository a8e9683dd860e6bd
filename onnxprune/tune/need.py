"""Whether torch is there; asked before anything runs."""

from __future__ import annotations

from importlib.util import find_spec

from onnxprune.errors import OptionError

MISSING = "tuning needs torch, which is not installed: pip install 'onnxprune[tune]'"


def need_torch() -> None:
    """Raises OptionError, naming what to install, where torch is missing."""
    if find_spec("torch") is None:
        raise OptionError(MISSING)
