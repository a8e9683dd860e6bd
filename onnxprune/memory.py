"""How much memory there is, and a bound on what this process takes.

The bound is the system's own (``RLIMIT_DATA``): whatever asks for more, Python or native code, is refused, and the
run ends with an error instead of taking the machine with it.  Systems without it have no bound.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnxprune.errors import OptionError

#: Threads reserve a stack that they hardly use; as many sessions are open at once with one thread per core.
SESSIONS = 16
#: Address space of onnx, onnxruntime, numpy and scipy: 300 MB are measured with one thread, and 80 MB more for another.
LIBRARIES = 400_000_000
#: Bytes of a stack where the system states none.
STACK = 8 << 20
#: What a control group without a limit states is larger than any machine.
_NO_LIMIT = 1 << 60
_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine() -> int:
    """Bytes of the machine, or of the container; a large number where nothing tells."""
    found = [_NO_LIMIT]
    with suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in _GROUPS:
        try:
            found.append(int(Path(name).read_text()))
        except (OSError, ValueError):
            continue
    return min(size for size in found if size > 0)


def used() -> int:
    """Bytes that this process holds now; 0 where the system does not tell."""
    return _status("VmRSS")


def room() -> int:
    """Bytes that this process may still take."""
    left = machine() - used()
    if sys.platform == "linux":
        import resource

        soft = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if soft != resource.RLIM_INFINITY:
            left = min(left, soft - _status("VmData") - _stacks())
    return max(left, 0)


@contextmanager
def bounded(total: int | None) -> Iterator[None]:
    """Meanwhile the process takes at most ``total`` bytes, as far as the system bounds it; None: what there is.

    What threads reserve for their stacks comes on top.

    Raises:
        OptionError: where it takes more already.
    """
    _check_limit()
    now = used()
    if total is not None and total <= now:
        raise OptionError(f"--memory {total:,}: the program itself takes {now:,} bytes; give several times as much")
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    most = (machine() if total is None else total) - now + _status("VmData") + _stacks()
    if before[0] != resource.RLIM_INFINITY:
        most = min(most, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _check_limit() -> None:
    """Raise MemoryError where the system allows the process less address space than its libraries take.

    Where they find no room while they are loaded, some end the process, and some try for ever.
    """
    if sys.platform != "linux":
        return
    import resource

    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY and soft - _status("VmSize") < LIBRARIES:
        raise MemoryError(
            f"the system allows {soft:,} bytes of address space (ulimit -v), and the libraries alone take {LIBRARIES:,}"
        )


def _stacks() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    each = STACK if stack == resource.RLIM_INFINITY else min(stack, 64 << 20)
    return (os.cpu_count() or 1) * each * SESSIONS


def _status(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:")), 0)
