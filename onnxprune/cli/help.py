"""``onnxprune help``: a command's options, or a guide."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from onnxprune import guide
from onnxprune.cli.command import Command
from onnxprune.cli.parser import HelpAsked, UsageError, nearest

#: Longer lines are hard to read.
WIDEST = 100


def show(words: list[str], general: str, commands: Mapping[str, Command]) -> None:
    """Print what ``onnxprune help WORDS`` asks for: ``general`` help and the guides, a command's help, or a guide.

    Raises:
        UsageError: where no command and no guide has that name.
        HelpAsked: with the text of a command, or the general one.
    """
    topics = guide.topics()
    if not words:
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
    """A line for each guide."""
    return "".join(f"  {name:<14} {title}\n" for name, title in topics.items())


def _print(page: str) -> None:
    """Rendered on a terminal; the Markdown itself where something else reads it."""
    if not sys.stdout.isatty():
        sys.stdout.write(page)
        return
    from rich.markdown import Markdown

    from onnxprune.report.terminal import console_for

    console = console_for(sys.stdout)
    plain = re.sub(r"</?(details|summary)>|<!--.*?-->\n?", "", page)
    console.print(Markdown(plain), width=min(console.width, WIDEST))
