"""What is said about one option of the command line, in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """How one option is written, read, explained and completed.

    ``name``: the parsed command line keeps the value under it; where :class:`onnxprune.options.Options` has a field of
    that name, the option fills it.  ``flags``: every spelling.  ``commands``: those that take it.

    ``read``: from text to value; None for a switch, whose value is then ``on``.  ``default``: the value where the
    option is not given, unless Options says so.  ``collect``: makes one value of an option that is given several times.

    ``may_follow``: a pattern of what is a value where one need not be given; without one the option is a switch.

    ``shows``: stands for the value in the help.  ``choices``: all that the value may be.  ``words``: what a shell
    completes where any other value may stand, too.  ``help``: in a few words; options without share a line.
    ``unsaid``: what the default means, for the help.  ``group``: a heading in the help.
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
        """What the help says beside it; empty where its name says it all."""
        listed = f"{', '.join(self.choices[:-1])} or {self.choices[-1]}" if self.choices else ""
        return ": ".join(part for part in (listed, self.help) if part)
