"""`FILE.py:FUNCTION` and `package.module:FUNCTION`: the user's code as a data source."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from onnxprune.errors import DataError

DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class FunctionRef:
    """A reference to a function: `module` is a path that ends in .py, or a dotted name."""

    module: str
    function: str

    @property
    def is_file(self) -> bool:
        """True for FILE.py, False for an importable module."""
        return self.module.lower().endswith(".py")


def parse_ref(text: str) -> FunctionRef | None:
    """`FILE.py:FUNCTION` or `package.module:FUNCTION`; None if the text is neither."""
    module, colon, function = text.rpartition(":")
    if not colon or not function.isidentifier():
        return None
    ref = FunctionRef(module, function)
    return ref if ref.is_file or DOTTED.fullmatch(module) else None


@contextmanager
def importing(ref: FunctionRef) -> Iterator[Callable[..., object]]:
    """Context with the function. Its folder (for a module, the working folder) is importable inside.

    It runs the user's module. Raises DataError if the module is missing, fails, or lacks the function.
    """
    folder = str(Path(ref.module).resolve().parent) if ref.is_file else os.getcwd()
    sys.path.insert(0, folder)
    try:
        module = _load(ref)
        function = getattr(module, ref.function, None)
        if not callable(function):
            raise DataError(f"{ref.module} has no function '{ref.function}'{_near(module, ref.function)}")
        yield function
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def call(function: Callable[..., object], name: str) -> object:
    """Call the function without arguments. Raises DataError if it raises."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        remedy = "give a function without parameters" if _innermost(error)[0] == __file__ else "fix the function"
        raise DataError(f"{name}() raised {describe(error)}; {remedy}") from error


def describe(error: BaseException) -> str:
    """`ValueError: message (file.py, line 12)`, with the innermost line."""
    # Our errors are one line, even if the user's message has several.
    message = f"{type(error).__name__}: {' '.join(str(error).split())}"
    file, line = _innermost(error)
    # The user cannot look at a line of Python's import machinery, and need not look at one of this module.
    return message if file.startswith("<") or file in ("", __file__) else f"{message} ({Path(file).name}, line {line})"


def _innermost(error: BaseException) -> tuple[str, int]:
    """The file and line that raised ``error``; an empty name if it was never raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return ("", 0) if trace is None else (trace.tb_frame.f_code.co_filename, trace.tb_lineno)


def _load(ref: FunctionRef) -> ModuleType:
    if ref.is_file and not Path(ref.module).is_file():
        raise DataError(f"{ref.module} does not exist; check the path in FILE.py:FUNCTION")
    try:
        if not ref.is_file:
            return importlib.import_module(ref.module)
        name = f"onnxprune_user_{Path(ref.module).stem}"
        spec = importlib.util.spec_from_file_location(name, ref.module)
        if spec is None or spec.loader is None:
            raise ImportError("it is not a Python source file")
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickle look up the module by name.
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        raise DataError(f"cannot import {ref.module}: {describe(error)}; fix it or check the name") from error


def _near(module: ModuleType, name: str) -> str:
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    near = difflib.get_close_matches(name, functions, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; it has {', '.join(functions)}" if functions else "; it defines none"
