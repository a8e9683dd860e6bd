"""``onnxprune completion``: a completion script for the shell, generated from the parsers."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence

from onnxprune.cli import apply, compare, inspect, prune, tune, why
from onnxprune.cli.command import Command, Invocation, parser_of
from onnxprune.cli.parser import Parser, UsageError, nearest
from onnxprune.cli.table import OPTIONS

HEAD = """\
onnxprune completion SHELL          completions for bash, zsh or fish, on stdout
"""
EXAMPLES = """\
  eval "$(onnxprune completion bash)"      in ~/.bashrc; zsh: ~/.zshrc
  onnxprune completion fish > ~/.config/fish/completions/onnxprune.fish
"""

_COMPLETED = (prune.COMMAND, inspect.COMMAND, why.COMMAND, compare.COMMAND, apply.COMMAND, tune.COMMAND)

#: zsh runs bash's script through its own compatibility layer.
_ZSH = "autoload -Uz +X compinit && compinit -u\nautoload -Uz +X bashcompinit && bashcompinit\n"

_BASH = """\
_onnxprune() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=prune choices
  COMPREPLY=()
  case "${{COMP_WORDS[1]}} " in {commands_or}) command=${{COMP_WORDS[1]}} ;; esac
  case "$before" in
{values}
  esac
  if [[ $word == -* ]]; then
    case "$command" in
{options}
    esac
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
  elif [[ $COMP_CWORD -eq 1 ]]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word"; compgen -f -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _onnxprune onnxprune
"""


def bash(options: Mapping[str, Sequence[str]], choices: Mapping[str, Sequence[str]]) -> str:
    """The script for bash: ``options`` of each command; ``choices`` for the value of an option that is not a file."""
    return _BASH.format(
        commands=" ".join([*options, "completion"]),
        commands_or=" | ".join(rf"{name}\ " for name in options),
        values="\n".join(
            f'    {name}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")); return ;;'
            for name, words in choices.items()
        ),
        options="\n".join(f'      {name}) choices="{" ".join(own)}" ;;' for name, own in options.items()),
    )


def zsh(options: Mapping[str, Sequence[str]], choices: Mapping[str, Sequence[str]]) -> str:
    return _ZSH + bash(options, choices)


def fish(options: Mapping[str, Sequence[str]], choices: Mapping[str, Sequence[str]]) -> str:
    names = " ".join([*options, "completion"])
    lines = [f"complete -c onnxprune -n __fish_use_subcommand -a {shlex.quote(names)}"]
    for command, own in options.items():
        others = " ".join(name for name in options if name != command)
        seen = f"__fish_seen_subcommand_from {command}"
        # A model without a command means prune.
        when = f"not __fish_seen_subcommand_from {others}" if command == "prune" else seen
        for option in own:
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            words = f" -x -a {shlex.quote(' '.join(choices[option]))}" if option in choices else ""
            lines.append(f"complete -c onnxprune -n {shlex.quote(when)} {flag}{words}")
    return "\n".join(lines) + "\n"


SHELLS: Mapping[str, Callable[[Mapping[str, Sequence[str]], Mapping[str, Sequence[str]]], str]] = {
    "bash": bash,
    "zsh": zsh,
    "fish": fish,
}


def parser() -> Parser:
    return parser_of("completion", (("SHELL", _shell),), HEAD, EXAMPLES)


def _shell(text: str) -> str:
    if text not in SHELLS:
        raise UsageError(f"unknown shell '{text}'{nearest(text, tuple(SHELLS))}; choose from {', '.join(SHELLS)}")
    return text


def run(arguments: argparse.Namespace, call: Invocation) -> int:
    choices = {
        flag: option.choices or option.words
        for option in OPTIONS
        for flag in option.flags
        if option.choices or option.words
    }
    print(SHELLS[arguments.SHELL]({c.name: c.parser().options() for c in _COMPLETED}, choices), end="")
    return 0


COMMAND = Command("completion", parser, run)
