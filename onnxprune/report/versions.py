"""The versions that reproduce a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("onnxprune", "onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "scipy")


def versions() -> dict[str, str]:
    """Name -> version of everything that the bytes of the result depend on."""
    known = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            known[name] = version(name)
        except PackageNotFoundError:
            known[name] = "not installed as a package"
    return known
