"""How results look in a notebook and at a Python prompt.  Importing this module registers the displays."""

from __future__ import annotations

from onnxprune.report.html import frame, render, render_comparison, render_inspection, render_tuned
from onnxprune.report.wording import gain, verdict
from onnxprune.result import Comparison, Inspection, Report, Result, Tuned, page, summary


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


@page.register
def _(value: Tuned) -> str:
    return frame(render_tuned(value))


@summary.register
def _(value: Result) -> str:
    return f"<onnxprune.Result {verdict(value.report)}>"


@summary.register
def _(value: Tuned) -> str:
    return f"<onnxprune.Tuned {gain(value.tuning)}>"
