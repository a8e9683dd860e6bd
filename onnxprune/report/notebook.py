"""How results look in a notebook and at a Python prompt.  Importing this module registers the displays."""

from __future__ import annotations

from onnxprune.report.html import frame, render, render_comparison, render_inspection
from onnxprune.report.wording import verdict
from onnxprune.result import Comparison, Inspection, Report, Result, page, summary


@page.register
def _(value: Report) -> str:
    return frame(render(value, None))


@page.register
def _(value: Result) -> str:
    return frame(render(value.report, value.plan.to_json()))


@page.register
def _(value: Inspection) -> str:
    return frame(render_inspection(value))


@page.register
def _(value: Comparison) -> str:
    return frame(render_comparison(value), "24rem")


@summary.register
def _(value: Result) -> str:
    return f"<onnxprune.Result {verdict(value.report)}>"
