"""From ``sys.argv`` to an exit code: choose the command, and report failures."""

from __future__ import annotations

import argparse
import errno
import gc
import logging
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

from onnxprune.cli import apply, compare, completion, help, inspect, prune, tune, why
from onnxprune.cli.command import Command, Invocation
from onnxprune.cli.option import HELP_FLAGS
from onnxprune.cli.parser import HelpAsked, UsageError, nearest
from onnxprune.cli.streams import Ended, ResultsLost, guarded
from onnxprune.errors import OnnxPruneError, VerificationError
from onnxprune.memory import bounded
from onnxprune.pipeline.stopwatch import Stopwatch, process_seconds
from onnxprune.shown import one_line

HELP = """\
onnxprune MODEL.onnx [options]    make an ONNX network smaller, without training

commands
  prune MODEL          the main job; 'onnxprune MODEL' is the same
  inspect MODEL        where the MACs are, what is prunable, what is locked, why
  why MODEL NAME       what ties or locks one tensor or node
  compare A B          two models side by side: size, speed, outputs, accuracy
  apply MODEL PLAN     replay a plan: the same channels, no refit
  tune MODEL           recover accuracy by training on the original's outputs
  completion SHELL     completions for bash, zsh or fish
  help [TOPIC]         the guides, in the terminal

'onnxprune COMMAND --help' lists the options of a command. Start with
'onnxprune prune --help'.

  -h, --help       -V, --version       -v, --verbose  more output, tracebacks

examples
  onnxprune net.onnx                     works without data
  onnxprune net.onnx --data photos/      better: with real samples
  onnxprune net.onnx --data photos/ --macs 0.5 --report report.html
  onnxprune inspect net.onnx

exit codes: 0 done, 1 the result failed verification and was not written,
2 bad usage or input, or a budget that cannot be met
"""

_MODULES = (prune, inspect, why, compare, apply, tune, completion)
COMMANDS: dict[str, Command] = {module.COMMAND.name: module.COMMAND for module in _MODULES}
CPU = "CPUExecutionProvider"
#: Messages of the library loader and of Python's threads when memory runs out.
_REFUSED = ("failed to map segment", "annot allocate memory", "can't start new thread", "bad_alloc", "Failed to allocate memory")
_FLAGS = ("-q", "--quiet", "-v", "--verbose", "--json")


def main(argv: list[str] | None = None) -> int:
    """Run one command, print at most one line of error, and return the exit code.

    0: done.  1: the result failed verification.  2: bad usage, bad input or unexpected failure.  130: interrupted.
    129 and 143: ended by SIGHUP and SIGTERM.  141: the reader of stdout left too early, and no file has the results.
    """
    # In a process of its own, count the start of the interpreter and the imports: the user waits for them too.
    stopwatch = Stopwatch(process_seconds() if argv is None else 0.0)
    given = list(sys.argv[1:] if argv is None else argv)
    with guarded(), _without_warnings():
        try:
            return _run(given, stopwatch)
        except BaseException as error:
            if not isinstance(error, Exception | KeyboardInterrupt):
                raise
            return _failed(error, "-v" in given or "--verbose" in given)
        finally:
            if argv is None:
                # The interpreter's last garbage collection took a tenth of a short run, after the report had shown its time.
                gc.freeze()


def _run(given: list[str], stopwatch: Stopwatch) -> int:
    try:
        code = _dispatch(given, stopwatch)
    except HelpAsked as asked:
        print(asked.args[0], end="")
        code = 0
    # Errors of stdout must show up here, not in the last flush of the interpreter.
    sys.stdout.flush()
    return code


def _failed(error: BaseException, verbose: bool) -> int:
    """Print one line about the error; returns the exit code."""
    if isinstance(error, Ended):
        _complain(f"ended by {error}")
        return error.code
    if isinstance(error, KeyboardInterrupt):
        _complain("interrupted")
        return 130
    if isinstance(error, ResultsLost) and error.gone:
        # The reader (head, a pager) has closed the pipe, so nobody would see an error.
        return 141
    if isinstance(error, OnnxPruneError) and not _lacks_memory(error):
        _complain(f"error: {error}")
        return 1 if isinstance(error, VerificationError) else 2
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        _complain(f"error: the disk is full{_where(error)}; free some space")
        return 2
    if verbose:
        traceback.print_exception(error)
    if _lacks_memory(error):
        _complain(f"error: out of memory{_brief(error)}; give fewer --samples, smaller data, or more memory")
        return 2
    _complain(f"error: unexpected {type(error).__name__}{_brief(error)} (please report; run with -v for the traceback)")
    return 2


def _lacks_memory(error: BaseException) -> bool:
    """Whether the system refused memory, to Python, to a library that is loaded, or for the stack of a thread."""
    if isinstance(error, ImportError | RuntimeError | OnnxPruneError):
        return any(words in str(error) for words in _REFUSED)
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide warnings of libraries: they are for programmers, who can set PYTHONWARNINGS."""
    logger = logging.getLogger("PIL")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _dispatch(given: Sequence[str], stopwatch: Stopwatch) -> int:
    lead = 0
    while lead < len(given) and given[lead] in _FLAGS:
        lead += 1
    flags, rest = list(given[:lead]), list(given[lead:])
    if not rest:
        print(HELP, end="", file=sys.stderr)
        return 2
    if rest[0] in HELP_FLAGS:
        raise HelpAsked(HELP)
    if rest[0] in ("-V", "--version"):
        print(f"onnxprune {_version()}")
        return 0
    if rest[0] == "help":
        help.show(rest[1:], HELP, COMMANDS)
        return 0
    name = rest.pop(0) if rest[0] in COMMANDS else _implied(rest[0])
    command = COMMANDS[name]
    arguments = command.parser().read([*rest, *flags])
    with _bounded(arguments):
        return command.run(arguments, Invocation(shlex.join(["onnxprune", *given]), stopwatch))


def _bounded(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    providers = getattr(arguments, "providers", None) or (CPU,)
    memory = getattr(arguments, "memory", None)
    # Drivers of accelerators reserve far more address space than they use.
    return bounded(memory) if memory is not None or providers == (CPU,) else nullcontext()


def _implied(first: str) -> str:
    """``prune``, unless the first word looks like a misspelt command or option."""
    hint = nearest(first, (*COMMANDS["prune"].parser().options(), "--version"))
    if first.startswith("--") and hint == nearest(first, ("--version",)) != "":
        raise UsageError(f"unknown option {first}{hint}; see onnxprune --help")
    if not first.startswith("-") and not os.path.exists(first) and "." not in first and os.sep not in first:
        hint = nearest(first, (*COMMANDS, "help"))
        raise UsageError(f"no command or file '{first}'{hint}; see onnxprune --help")
    return "prune"


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("onnxprune")
    except PackageNotFoundError:
        return "(not installed as a package)"


def _where(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _brief(error: BaseException) -> str:
    text = str(error)
    return f": {text}" if text else ""


def _complain(text: str) -> None:
    print(f"onnxprune: {one_line(text)}", file=sys.stderr)
