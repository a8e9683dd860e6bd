"""The help of a command, generated from the table of options."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from onnxprune.cli.option import Option
from onnxprune.cli.table import default_of

WIDTH, INDENT = 80, 22
#: The headings of groups of options, for commands with several groups.
HEADINGS: Mapping[str, str] = {
    "data": "data",
    "budget": (
        "budgets (all must hold; R is the fraction KEPT; default: --max-drop 0.01; 0.02 for embeddings; 0.05 for "
        "detectors, masks, poses and regression)"
    ),
    "how": "how",
    "tuning": "tuning",
    "output": "output",
}


def usage(options: Sequence[Option], head: str, examples: str) -> str:
    """The help text: ``head``, the ``options``, and ``examples``."""
    return "\n".join([head.rstrip(), "", *_listed(options), "", "examples", examples.rstrip(), ""])


def _listed(options: Sequence[Option]) -> Iterator[str]:
    groups = tuple(dict.fromkeys(option.group for option in options))
    for group in groups:
        if group and len(groups) > 1:
            yield from textwrap.wrap(HEADINGS[group], WIDTH, subsequent_indent=" " * 4)
        own = [option for option in options if option.group == group]
        for explained, several in groupby(own, key=lambda option: bool(option.explained)):
            if explained:
                for option in several:
                    yield from _explained(option)
            else:
                yield from _in_a_row(tuple(several))


def _explained(option: Option) -> list[str]:
    """The lines of an option with its help beside it."""
    start = f"  {option.spelt}".ljust(INDENT - 1) + " "
    text = f"{option.explained}{_default(option, 'default: ')}"
    return textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=" " * INDENT, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def _in_a_row(options: Sequence[Option]) -> list[str]:
    """The lines of options without a help text."""
    # Non-breaking blanks keep an option and its value on one line.
    cells = [f"{option.spelt}{_default(option)}".replace(" ", "\0") for option in options]
    lines = textwrap.wrap("\0 ".join(cells), WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\0", " ").rstrip() for line in lines]


def _default(option: Option, label: str = "") -> str:
    default = default_of(option)
    text = option.unsaid or (default if option.choices and default is not None else "")
    return f" ({label}{text})" if text else ""
