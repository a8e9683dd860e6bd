"""``onnxprune help``: the options of a command, or a guide."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from onnxprune import guide
from onnxprune.cli.command import Command
from onnxprune.cli.option import HELP_FLAGS
from onnxprune.cli.parser import HelpAsked, UsageError, nearest

#: Maximum columns of a guide: longer lines are hard to read.
WIDEST = 100


def show(words: list[str], general: str, commands: Mapping[str, Command]) -> None:
    """Answer ``onnxprune help WORDS``: print a guide, the help of a command, or the ``general`` help.

    Raises:
        UsageError: no command or guide has that name.
        HelpAsked: holds the help of a command, or the general help with a list of guides.
    """
    topics = guide.topics()
    if not words or words[0] in HELP_FLAGS:
        raise HelpAsked(f"{general}\nguides: onnxprune help TOPIC\n{listed(topics)}")
    name = words[0]
    if len(words) > 1:
        raise UsageError(f"help: unexpected argument '{words[1]}'; give one command or topic")
    if name in commands and name in topics:
        sys.stdout.write(f"{commands[name].parser().text}\n")
    elif name in commands:
        raise HelpAsked(commands[name].parser().text)
    if name not in topics:
        raise UsageError(
            f"no command or guide '{name}'{nearest(name, (*commands, *topics))}; 'onnxprune help' lists them"
        )
    _print(guide.text(name))


def listed(topics: Mapping[str, str]) -> str:
    """One line per guide."""
    return "".join(f"  {name:<14} {title}\n" for name, title in topics.items())


def _print(page: str) -> None:
    """Print a guide: rendered on a terminal, as plain Markdown in a pipe."""
    if not sys.stdout.isatty():
        sys.stdout.write(page)
        return
    from rich.markdown import Markdown

    from onnxprune.report.terminal import console_for

    console = console_for(sys.stdout)
    plain = re.sub(r"</?(details|summary)>|<!--.*?-->\n?", "", page)
    console.print(Markdown(plain), width=min(console.width, WIDEST))
