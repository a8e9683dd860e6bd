"""The device that torch computes on."""

from __future__ import annotations

import torch

from onnxprune.errors import OptionError


def device_of(name: str) -> torch.device:
    """The torch device for ``name``.  Raises OptionError if torch sees no such device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device: torch sees no GPU here; leave --device out, or install torch for CUDA")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
