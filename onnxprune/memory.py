"""How much memory is available, and a limit for this process.

The limit is the system's own (``RLIMIT_DATA``).  It refuses further memory to Python and to native code, so the run ends
with an error instead of exhausting the machine.  Systems without it have no limit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onnxprune.errors import OptionError

#: Sessions that may be open at once, with one thread per core.  Threads reserve a stack and hardly use it.
SESSIONS = 16
#: Address space of onnx, onnxruntime, numpy and scipy: 300 MB are measured with one thread, and 80 MB more for another.
LIBRARIES = 400_000_000
#: Bytes of a stack if the system states none.
STACK = 8 << 20
#: More than any machine has.  A control group without a limit states a number of this size.
_NO_LIMIT = 1 << 60
_GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def machine() -> int:
    """Bytes of the machine or of the container; a large number if neither is known."""
    sizes = [_NO_LIMIT]
    with suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in _GROUPS:
        try:
            sizes.append(int(Path(name).read_text()))
        except (OSError, ValueError):
            continue
    return min(size for size in sizes if size > 0)


def used() -> int:
    """Bytes that this process holds now; 0 if the system does not say."""
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
    """Context in which the process takes at most ``total`` bytes, if the system can limit it.  None: the machine's size.

    The stacks of threads do not count.

    Raises:
        OptionError: if the process already takes more.
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
    """Raise MemoryError if the system allows the process less address space than its libraries take.

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
