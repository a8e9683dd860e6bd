"""The definition of one command-line option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: The words that ask for help anywhere: of the tool, of a command, of ``help`` itself.
HELP_FLAGS = ("-h", "--help")


@dataclass(frozen=True)
class Option:
    """The spelling, parsing, help and completion of one option.

    ``name``: key of the value in the parsed command line.  If :class:`onnxprune.options.Options` has a field of this
    name, the option fills it.  ``flags``: all spellings.  ``commands``: the commands that take it.

    ``read``: converts the text to the value.  Without ``read`` the option is a switch, with the value ``on``.
    ``default``: the value if the option is not given; a default of Options takes precedence.
    ``collect``: combines the values of a repeated option.
    ``may_follow``: makes the value optional.  The next word is the value only if it matches this pattern; otherwise the
    value is ``on``.

    ``shows``: placeholder for the value in the help.  ``choices``: all allowed values.  ``words``: values that a shell
    completes, if others are allowed too.  ``help``: a few words; options without help share a line.
    ``unsaid``: description of the default in the help.  ``group``: heading in the help.
    """

    name: str
    flags: tuple[str, ...]
    commands: tuple[str, ...]
    read: Callable[[str], object] | None = None
    shows: str = ""
    help: str = ""
    group: str = ""
    unsaid: str = ""
    choices: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    default: object = None
    collect: Callable[[Sequence[object]], object] | None = None
    on: object = True
    may_follow: str = ""

    @property
    def takes_value(self) -> bool:
        return self.read is not None or bool(self.choices)

    @property
    def spelt(self) -> str:
        """``-o, --output FILE``."""
        return " ".join([", ".join(self.flags), *([self.shows] if self.shows else [])])

    @property
    def explained(self) -> str:
        """The help text beside the option; empty if the name is enough."""
        listed = f"{', '.join(self.choices[:-1])} or {self.choices[-1]}" if self.choices else ""
        return ": ".join(part for part in (listed, self.help) if part)
