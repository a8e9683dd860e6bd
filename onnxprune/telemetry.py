"""onnxruntime's telemetry stays off, unless the user turns it on.

From version 1.32 on, importing onnxruntime begins a database of events below ``~/.cache/Microsoft`` (device, system,
path of the interpreter, what models consist of), which a process of more than some ten seconds tries to send.  Only the
environment variable, set before the import, keeps it from that; the import itself has no other switch.
"""

from __future__ import annotations

import os
from functools import lru_cache

#: onnxruntime's own switch; ``0`` leaves its telemetry on.
SWITCH = "ORT_DISABLE_TELEMETRY"
_LEFT_ON = ("", "0", "false")


def turn_off() -> None:
    """Before onnxruntime is imported; child processes inherit it.  A value that the user has set stays."""
    os.environ.setdefault(SWITCH, "1")


@lru_cache(maxsize=1)
def stop() -> None:
    """Before the first session: also where somebody else had imported onnxruntime before this package."""
    import onnxruntime

    if os.environ.get(SWITCH, "").lower() not in _LEFT_ON:
        onnxruntime.disable_telemetry_events()
