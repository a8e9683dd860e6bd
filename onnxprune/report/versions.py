"""What it takes to get the same result again."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("onnxprune", "onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Name and version of everything that decides about the bytes of the result."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
