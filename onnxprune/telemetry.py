"""Keep onnxruntime's telemetry off, unless the user turns it on.

From version 1.32 on, importing onnxruntime creates a database of events below ``~/.cache/Microsoft``: device, system,
path of the interpreter, contents of models.  A process that runs for more than about ten seconds tries to send it.  Only
an environment variable, set before the import, prevents that.
"""

from __future__ import annotations

import os
from functools import lru_cache

#: onnxruntime's own switch.  ``0`` leaves its telemetry on.
SWITCH = "ORT_DISABLE_TELEMETRY"
_LEFT_ON = ("", "0", "false")


def turn_off() -> None:
    """Call before importing onnxruntime.  Child processes inherit the setting.  Keeps a value that the user has set."""
    os.environ.setdefault(SWITCH, "1")


@lru_cache(maxsize=1)
def stop() -> None:
    """Call before the first session.  Also works if other code imported onnxruntime before this package."""
    import onnxruntime

    if os.environ.get(SWITCH, "").lower() not in _LEFT_ON:
        onnxruntime.disable_telemetry_events()
