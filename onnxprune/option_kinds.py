"""What kind of value an option takes.  The command line parses text, but a caller in Python may give anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike

from onnxprune.errors import OptionError
from onnxprune.spelling import nearest


@dataclass(frozen=True)
class OptionKind:
    """``said`` follows "must be" in a message.  ``holds`` says whether a value is of this kind."""

    said: str
    holds: Callable[[object], bool]

    def check(self, name: str, value: object) -> None:
        """Raise OptionError if the option ``name`` cannot have ``value``."""
        if not self.holds(value):
            shown = repr(value)
            raise OptionError(f"{name} must be {self.said}, got {shown if len(shown) < 80 else type(value).__name__}")

    def or_none(self) -> OptionKind:
        return OptionKind(f"{self.said}, or None", lambda value: value is None or self.holds(value))


def _whole(value: object) -> bool:
    # True is 1 in Python; as a count it is a mistake.
    return isinstance(value, Integral) and not isinstance(value, bool)


def _texts(value: object) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(one, str) for one in value)


def _providers(value: object) -> bool:
    # onnxruntime takes options of a provider beside its name.
    return isinstance(value, (tuple, list)) and all(
        isinstance(one, str) or (isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str)) for one in value
    )


def _sizes(value: object) -> bool:
    return isinstance(value, (tuple, list)) and all(_whole(size) for size in value)


def _amount(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


INTEGER = OptionKind("a whole number", _whole)
NUMBER = OptionKind("a number", _amount)
TEXT = OptionKind("text", lambda value: isinstance(value, str))
PATH = OptionKind("a path", lambda value: isinstance(value, (str, PathLike)))
TEXTS = OptionKind("a tuple of texts", _texts)
PROVIDERS = OptionKind('a tuple of providers, as in ("CPUExecutionProvider",)', _providers)
SHAPES = OptionKind(
    'input names with their shapes, as in {"images": (1, 3, 640, 640)}',
    lambda value: (
        isinstance(value, Mapping) and all(isinstance(name, str) and _sizes(shape) for name, shape in value.items())
    ),
)
WIDTHS = OptionKind(
    'globs with channel counts or shares, as in {"backbone.*": 0.75}',
    lambda value: (
        isinstance(value, Mapping) and all(isinstance(glob, str) and _amount(amount) for glob, amount in value.items())
    ),
)


def one_of(name: str, value: object, known: Sequence[str]) -> None:
    """Raise OptionError if the option ``name`` is none of the ``known`` words."""
    if value not in known:
        hint = nearest(str(value), known)
        raise OptionError(f"{name}: unknown value {value!r}{hint}; choose from {', '.join(known)}")


#: Options of a single kind, by name.
KINDS: Mapping[str, OptionKind] = {
    **dict.fromkeys(("threads", "seed", "pictures", "workers"), INTEGER),
    **dict.fromkeys(("samples", "round_to", "block", "memory"), INTEGER.or_none()),
    **dict.fromkeys(("select", "refit", "rules", "effort", "augment", "device", "task", "layout"), TEXT),
    **dict.fromkeys(("target", "cluster"), TEXT.or_none()),
    **dict.fromkeys(("exclude", "only"), TEXTS),
    "providers": PROVIDERS,
    "shapes": SHAPES,
}
