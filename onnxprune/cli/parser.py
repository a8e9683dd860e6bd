"""Reads a command line according to the table of options.  Every error is one line with a suggestion."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence

from onnxprune.cli.config import tokens_of
from onnxprune.cli.option import HELP_FLAGS, Option
from onnxprune.errors import UsageError as UsageError
from onnxprune.spelling import nearest as nearest


class HelpAsked(Exception):
    """The user asked for help; holds the text to print."""


#: A positional argument: its name in the help, and its reader.
Word = tuple[str, Callable[[str], object]]


class Parser:
    """The command line of one command.

    ``options`` are the command's options, with ``defaults`` in the same order.  ``words`` are its positional arguments,
    all required.  ``text`` is the help.
    """

    def __init__(
        self, command: str, options: Sequence[Option], defaults: Sequence[object], words: Sequence[Word], text: str
    ) -> None:
        self.command = f"onnxprune {command}"
        self.text = text
        self._options = tuple(options)
        self._defaults = {option.name: value for option, value in zip(options, defaults, strict=True)}
        self._words = tuple(words)
        self._flags = {flag: option for option in options for flag in option.flags}

    def options(self) -> tuple[str, ...]:
        """Every spelling of every option."""
        return tuple(self._flags)

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse ``argv``.

        Raises:
            HelpAsked: ``-h`` was given; this takes precedence over any error.
            UsageError: one line; for an unknown option it suggests the nearest spelling.
        """
        configured = tuple(self._configured(argv))
        tokens = [*configured, *argv]
        dashes = tokens.index("--") if "--" in tokens else len(tokens)
        if set(HELP_FLAGS) & set(tokens[:dashes]):
            raise HelpAsked(self.text)
        # The command line may take another side than the file.
        self._check_alternatives(configured)
        self._check_alternatives(tokens[len(configured) : dashes])
        given: dict[str, list[object]] = {}
        words: list[str] = []
        bare = ""
        for flag, text in self._split(tokens[:dashes]):
            if flag is None:
                if bare and len(words) >= len(self._words):
                    # The word was meant for the option, but does not look like its value.
                    _value(self._flags[bare], text)
                words.append(text or "")
                bare = ""
            else:
                option = self._flags[flag]
                bare = flag if text is None and option.may_follow else ""
                given.setdefault(option.name, []).append(_value(option, text))
        if "help" in given:
            raise HelpAsked(self.text)
        values = dict(self._defaults)
        for option in self._options:
            if option.name in given:
                several = given[option.name]
                values[option.name] = option.collect(several) if option.collect is not None else several[-1]
        return argparse.Namespace(**values, **self._read_words([*words, *tokens[dashes + 1 :]]))

    def _configured(self, argv: Sequence[str]) -> Iterator[str]:
        """The tokens from ``--config`` files.  They come first, so that the command line wins."""
        before = list(argv[: argv.index("--")] if "--" in argv else argv)
        if "--config" not in self._flags or set(HELP_FLAGS) & set(before):
            return
        for flag, text in self._split(before):
            if flag == "--config" and text is not None:
                tokens = tokens_of(text, self._options)
                self._check_values(tokens, text)
                yield from tokens

    def _check_values(self, tokens: Sequence[str], file: str) -> None:
        """Raise UsageError, with the name of the file, if a value from an option file cannot be read."""
        try:
            for flag, text in self._split(tokens):
                if flag is not None:
                    _value(self._flags[flag], text)
        except UsageError as error:
            raise UsageError(f"--config {file}: {error}") from None

    def _check_alternatives(self, tokens: Sequence[str]) -> None:
        """Raise UsageError if ``tokens`` hold two switches of one choice, such as --letterbox and --stretch."""
        given: dict[str, str] = {}
        for flag, _ in self._split(tokens):
            if flag is None or self._flags[flag].takes_value:
                continue
            one = given.setdefault(self._flags[flag].name, flag)
            if self._flags[one].on != self._flags[flag].on:
                raise UsageError(f"{one} and {flag} contradict each other; give one of them")

    def _read_words(self, words: Sequence[str]) -> dict[str, object]:
        if len(words) > len(self._words):
            raise UsageError(
                f"unexpected argument '{words[len(self._words)]}'; '{self.command} --help' shows the usage"
            )
        if len(words) < len(self._words):
            names = ", ".join(name for name, _ in self._words[len(words) :])
            line = " ".join([self.command, *(name for name, _ in self._words)])
            verb = "is" if len(self._words) - len(words) == 1 else "are"
            raise UsageError(f"{names} {verb} missing in '{line}'; '{self.command} --help' shows examples")
        return {name: _read(name, read, text) for (name, read), text in zip(self._words, words, strict=True)}

    def _split(self, tokens: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
        """(flag, its text or None) or (None, word) for each argument, in order."""
        rest = list(tokens)
        # Check all options first: otherwise the value of a misspelt option would cause a confusing error.
        for token in rest:
            if _is_option(token):
                self._known(token)
        while rest:
            token = rest.pop(0)
            if not _is_option(token):
                yield None, token
                continue
            flag, text = self._known(token)
            if self._flags[flag].takes_value:
                pattern = self._flags[flag].may_follow
                if text is None and pattern:
                    text = rest.pop(0) if rest and re.fullmatch(pattern, rest[0]) else None
                elif text is None:
                    if not rest or _is_option(rest[0]):
                        raise UsageError(f"{flag} needs a value; '{self.command} --help' shows examples")
                    text = rest.pop(0)
            elif text is not None and token.startswith("--"):
                raise UsageError(f"{flag} takes no value")
            elif text is not None:
                # -qv: the first letter is a switch, so the next letters are options too.
                rest.insert(0, f"-{text}")
                text = None
            yield flag, text

    def _known(self, token: str) -> tuple[str, str | None]:
        """Split a token into its flag and its text: ``--macs=0.5``, ``-oFILE``."""
        name, equals, text = token.partition("=")
        if name in self._flags:
            return name, text if equals else None
        if not name.startswith("--") and token[:2] in self._flags:
            return token[:2], token[2:]
        # Suggestions make no sense for single letters.
        hint = nearest(name, self.options()) if name.startswith("--") else ""
        raise UsageError(f"unknown option {name}{hint}; '{self.command} --help' lists the options")


def _is_option(token: str) -> bool:
    """Whether a token is an option; negative numbers are not."""
    return re.match(r"--|-[A-Za-z]", token) is not None


def _value(option: Option, text: str | None) -> object:
    if not option.takes_value or text is None:
        return option.on
    if option.choices and text not in option.choices:
        raise UsageError(
            f"{'/'.join(option.flags)}: unknown value '{text}'{nearest(text, option.choices)}; choose from "
            f"{', '.join(option.choices)}"
        )
    return text if option.read is None else _read("/".join(option.flags), option.read, text)


def _read(name: str, read: Callable[[str], object], text: str) -> object:
    try:
        return read(text)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None
