"""A command, and what all commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.cli.parser import Parser, Word
from onnxprune.cli.table import default_of, options_of
from onnxprune.cli.usage import usage
from onnxprune.pipeline.stopwatch import Stopwatch

if TYPE_CHECKING:
    from onnxprune.report.terminal import View


@dataclass(frozen=True)
class Invocation:
    """One invocation of a command: ``line`` is the command line as typed; ``stopwatch`` runs since the start of the process."""

    line: str
    stopwatch: Stopwatch


@dataclass(frozen=True)
class Command:
    """One command; ``run`` returns the exit code."""

    name: str
    parser: Callable[[], Parser]
    run: Callable[[argparse.Namespace, Invocation], int]


def parser_of(name: str, words: Sequence[Word], head: str, examples: str) -> Parser:
    """The parser of a command: its options from the table, and the positional ``words``."""
    options = options_of(name)
    return Parser(name, options, [default_of(option) for option in options], words, usage(options, head, examples))


def view_of(arguments: argparse.Namespace, seen: tuple[str, ...] = ()) -> View:
    """How much the terminal report shows; ``-v`` shows everything."""
    from onnxprune.report.terminal import View

    return View(None, None, seen) if arguments.verbose else View(seen=seen)


def print_json(document: dict[str, object]) -> None:
    from onnxprune.report.document import to_text

    sys.stdout.write(to_text(document))
