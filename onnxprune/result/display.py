"""How a result looks in a notebook and at a Python prompt.  :mod:`onnxprune.report.notebook` registers the displays."""

from __future__ import annotations

from functools import singledispatch


@singledispatch
def page(value: object) -> str | None:
    """``value`` as HTML for a notebook, which :mod:`onnxprune.report.notebook` registers; else None: the notebook shows
    the text."""
    return None


@singledispatch
def summary(value: object) -> str:
    """``value`` in one line, for a Python prompt, which :mod:`onnxprune.report.notebook` registers; else its type."""
    return object.__repr__(value)
