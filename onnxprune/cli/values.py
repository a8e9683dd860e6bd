"""Readers for the values of options.  Each raises UsageError with a remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from onnxprune.devices import TARGETS
from onnxprune.errors import BudgetError, OptionError, UsageError
from onnxprune.options import AUGMENTS
from onnxprune.spelling import nearest
from onnxprune.target import Width
from onnxprune.tuning_length import TuningLength, parse_length

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
#: From this number on, a user who should give a fraction probably meant percent; 1.5 is more likely a typo.
_PERCENT = 5
#: Largest count that an option takes; numpy and onnxruntime count in 32 bits in places.
MAX_INTEGER = 2**31 - 1
#: Sizes of files and memory are signed 64-bit numbers.
MAX_BYTES = 2**63
#: More digits than any count has; Python refuses to read thousands of them.
DIGITS = 20
#: Short names of onnxruntime's execution providers.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}


def fraction(text: str) -> float:
    """The fraction kept: ``0.5`` or ``50%``."""
    percent = text.endswith("%")
    value = _number(text[:-1]) / 100 if percent else _number(text)
    if 0 < value <= 1:
        return value
    hint = f"; to keep {value:g} % give {value / 100:g}" if _PERCENT <= value < 100 and not percent else ""
    raise UsageError(f"{text}: the fraction kept must be above 0 and at most 1{hint}")


def size_or_bytes(text: str) -> float:
    """The fraction kept, or a number of bytes such as ``2000000`` or ``2MB``."""
    if text.endswith("%"):
        return fraction(text)
    value = _bytes(text)
    if value <= 0:
        raise UsageError(f"{text}: give a fraction above 0 and up to 1, or a number of bytes")
    return value


def tuning_length(text: str) -> TuningLength:
    """How long to tune: ``10m``, ``90s``, ``20x`` passes over the data, or ``auto``."""
    try:
        return parse_length(text)
    except OptionError as error:
        raise UsageError(str(error).removeprefix("tune: ")) from None


def augmentations(text: str) -> str:
    """``auto``, ``none``, or kinds of augmentation, separated by commas."""
    for part in () if text in ("auto", "none") else text.split(","):
        if part not in AUGMENTS:
            raise UsageError(f"unknown kind '{part}'{nearest(part, AUGMENTS)}; choose from auto, none, {', '.join(AUGMENTS)}")
    return text


def byte_count(text: str) -> int:
    """A number of bytes, ``4000000000``, ``4GB`` or ``4GiB``."""
    value = _bytes(text)
    if value < 1:
        raise UsageError(f"{text}: give at least one byte, such as 4GB")
    if value >= MAX_BYTES:
        raise UsageError(f"{text} is more than any machine has; give a number such as 4GB")
    return int(value)


def largest_drop(text: str) -> float:
    """The largest allowed drop: ``0.01`` or ``1%``."""
    percent = text.endswith("%")
    value = _number(text[:-1]) / 100 if percent else _number(text)
    if value < 0:
        raise UsageError(f"{text}: the allowed drop must be 0 or more, such as 0.01")
    if percent and value > 1:
        raise UsageError(f"{text}: the allowed drop is at most 100 %, such as 1%")
    return value


def output(text: str) -> Path:
    """The name of a file to write."""
    if text in ("", "-"):
        what = "'-' does not stand for stdout here" if text else "an empty name"
        raise UsageError(f"{what}; give the name of a file")
    return Path(text)


def integer(least: int) -> Callable[[str], int]:
    """A whole number, at least ``least`` and at most :data:`MAX_INTEGER`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+", text) or len(text) > DIGITS or int(text) < least:
            raise UsageError(f"'{text}' is not a whole number of {least} or more")
        if int(text) > MAX_INTEGER:
            raise UsageError(f"{text} is too large; give at most {MAX_INTEGER:,}")
        return int(text)

    return parse


def rounding(text: str) -> tuple[int | None, int | None]:
    """(multiple, block) of ``auto``, ``auto:BLOCK`` or a multiple; None means that the machine decides."""
    if text == "auto":
        return None, None
    number = text.removeprefix("auto:")
    if _count(number) is None:
        raise UsageError(f"'{text}' is not a multiple of channels; give auto, a number such as 8, or auto:8")
    return (None, int(number)) if text.startswith("auto:") else (int(number), None)


def target(text: str) -> str:
    """The name of a device."""
    if text not in TARGETS:
        raise UsageError(f"unknown device '{text}'{nearest(text, tuple(TARGETS))}; choose from {', '.join(TARGETS)}")
    return text


def numbers(text: str) -> tuple[float, ...]:
    """``0.5`` or ``0.485,0.456,0.406``."""
    return tuple(_number(part) for part in text.split(","))


def crop(text: str) -> tuple[int, int]:
    """``224`` or ``HxW``."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(_count(part) for part in parts):
        raise UsageError(f"'{text}' is not a size in pixels, such as 224 or 480x640")
    return int(parts[0]), int(parts[-1])


def width(text: str) -> Width:
    """``GLOB=0.75``, ``GLOB=75%`` (a share) or ``GLOB=48`` (channels)."""
    glob, equals, amount = text.rpartition("=")
    if not equals or not glob or not amount:
        raise UsageError(f"'{text}' is not GLOB=SHARE or GLOB=CHANNELS, such as 'backbone.*=0.75' or 'head.conv1=48'")
    try:
        return Width(glob, integer(1)(amount) if amount.isdecimal() else fraction(amount))
    except BudgetError as error:
        raise UsageError(str(error)) from error


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """``NAME=1x3x224x224``: an input and its shape."""
    name, equals, dims = text.rpartition("=")
    parts = re.split("[x,]", dims.lower()) if dims else []
    if not equals or not name or not all(_count(part) for part in parts):
        raise UsageError(f"'{text}' is not NAME=DIMS, such as input=1x3x224x224")
    return name, tuple(int(part) for part in parts)


def shapes_by_name(pairs: Sequence[object]) -> dict[str, tuple[int, ...]]:
    """The values of several ``--shape``."""
    return dict(pairs)  # type: ignore[arg-type]  # what shape() returned


def providers(text: str) -> tuple[str, ...]:
    """``cpu``, ``cuda,cpu``, or onnxruntime's full names.

    It rejects unavailable providers, which onnxruntime would silently replace by the CPU.
    """
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UsageError("name at least one, such as cpu or cuda,cpu")
    import onnxruntime

    asked = tuple(PROVIDERS.get(name.lower(), name) for name in names)
    available: list[str] = onnxruntime.get_available_providers()
    for name in asked:
        if name not in available:
            # A known provider that this package lacks is not a misspelling.
            near = "" if name in PROVIDERS.values() else nearest(name, (*PROVIDERS, *available))
            short = {full: word for word, full in PROVIDERS.items()}
            raise UsageError(
                f"this onnxruntime has no {name}{near}; it has {', '.join(short.get(one, one) for one in available)}; "
                "other packages have more, such as onnxruntime-gpu"
            )
    return asked


def _count(text: str) -> int | None:
    """A whole number from 1 to :data:`MAX_INTEGER`; None for any other text."""
    plain = re.fullmatch(r"[0-9]+", text) is not None and len(text) <= DIGITS
    return int(text) if plain and 1 <= int(text) <= MAX_INTEGER else None


def _bytes(text: str) -> float:
    parts = re.fullmatch(r"([0-9.eE+-]+?)\s*([kmg]i?)?b?", text.strip(), flags=re.IGNORECASE)
    if parts is None:
        raise UsageError(f"'{text}' is not a number of bytes, such as 2000000, 2MB or 2MiB")
    return _number(parts[1]) * _UNITS[(parts[2] or "").lower()]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"'{text}' is not a number, such as 0.5")
    return value
