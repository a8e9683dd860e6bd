"""Options from a TOML file: ``macs = 0.5`` stands for ``--macs 0.5``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

from onnxprune.cli.option import Option
from onnxprune.errors import UsageError
from onnxprune.paths import read_ordinary
from onnxprune.spelling import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Maximum bytes of an option file.
_MAX_BYTES = 1 << 20


def tokens_of(path: str, options: Sequence[Option]) -> tuple[str, ...]:
    """The options of the file, as command-line tokens.

    A key is the long name of an option without its dashes.  ``true`` turns a switch on.  A list repeats a repeatable
    option; for other options it becomes one value, joined by commas.

    Raises:
        UsageError: the file is unreadable or not TOML, or no option takes a key or value.
    """
    try:
        document = tomllib.loads(read_ordinary(path, _MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror}; check its path") from error
    except RecursionError:
        raise UsageError(f"--config {path}: not TOML: nested too deeply") from None
    except ValueError as error:
        # Wrong syntax, wrong UTF-8, or a number of thousands of digits.
        raise UsageError(f"--config {path}: not TOML: {error}") from error
    known = {flag.removeprefix("--"): option for option in options for flag in option.flags if flag.startswith("--")}
    return tuple(token for key, value in document.items() for token in _tokens(path, key, value, known))


def _tokens(path: str, key: str, value: object, known: Mapping[str, Option]) -> Iterator[str]:
    option = known.get(key)
    if option is None or key in ("config", "help"):
        hint = nearest(key, tuple(known))
        raise UsageError(f"--config {path}: unknown option '{key}'{hint}; 'onnxprune prune --help' lists the options")
    if not option.takes_value:
        if not isinstance(value, bool):
            raise UsageError(f"--config {path}: '{key}' is a switch; give true or false")
        if value:
            yield f"--{key}"
        return
    several = value if isinstance(value, list) else [value]
    if not several or not all(isinstance(v, str | int | float) and not isinstance(v, bool) for v in several):
        raise UsageError(f"--config {path}: '{key}' must be a number, a string, or a list of these")
    for text in several if option.collect is not None else [",".join(map(str, several))]:
        yield f"--{key}={text}"
