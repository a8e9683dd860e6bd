"""An argument parser whose help is written by hand and whose refusals are one line, with a suggestion."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import NoReturn

from onnxprune.errors import OnnxPruneError


class UsageError(OnnxPruneError):
    """The command line itself is wrong."""


class HelpAsked(Exception):
    """``-h`` was given; holds the text to print."""


class Parser(argparse.ArgumentParser):
    """``text``: the whole help, as printed."""

    def __init__(self, command: str, text: str) -> None:
        super().__init__(prog=f"onnxprune {command}", add_help=False, allow_abbrev=False)
        self.text = text
        self.add_argument("-h", "--help", action="store_true")

    def error(self, message: str) -> NoReturn:
        missing = "the following arguments are required: "
        if message.startswith(missing):
            names = message.removeprefix(missing)
            raise UsageError(f"{names} missing; '{self.prog} --help' shows examples")
        if message.endswith(": expected one argument"):
            option = message.removeprefix("argument ").removesuffix(": expected one argument")
            raise UsageError(f"{option} needs a value; '{self.prog} --help' shows examples")
        if ": ignored explicit argument " in message:
            option = message.removeprefix("argument ").partition(": ")[0]
            raise UsageError(f"{option} takes no value")
        raise UsageError(message.removeprefix("argument "))

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse.

        Raises:
            HelpAsked: before anything else is judged.
            UsageError: in one line, with the nearest spelling where an option is unknown.
        """
        tokens = list(argv)
        before_dashes = tokens[: tokens.index("--")] if "--" in tokens else tokens
        if "-h" in before_dashes or "--help" in before_dashes:
            raise HelpAsked(self.text)
        # A misspelt option would otherwise surface as whatever its value was mistaken for.
        for token in before_dashes:
            self._check_known(token)
        arguments, extra = self.parse_known_args(tokens)
        if extra:
            raise UsageError(f"unexpected argument '{extra[0]}'; '{self.prog} --help' shows what it takes")
        return arguments

    def options(self) -> tuple[str, ...]:
        """Every spelling of every option."""
        return tuple(self._option_string_actions)

    def _check_known(self, token: str) -> None:
        name = token.split("=", 1)[0]
        if name in self._option_string_actions or not re.match(r"--|-[A-Za-z]", name):
            return
        if not name.startswith("--") and name[:2] in self._option_string_actions:
            return  # -qv, -oFILE
        # One letter is as near to any other.
        hint = nearest(name, self.options()) if name.startswith("--") else ""
        raise UsageError(f"no option {name}{hint}; '{self.prog} --help' lists them")


def nearest(word: str, known: Sequence[str]) -> str:
    """``: did you mean 'x'?``, or nothing where nothing is near."""
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f": did you mean '{near[0]}'?" if near else ""
