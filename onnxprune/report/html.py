"""One self-contained HTML file: no script, no network.  Plots are SVG in the reader's colour scheme.

We use no plotting library, for these reasons.  For a network of 53 convolutions this page takes 0.1 MB and loads in
0.06-0.18 s (headless Chromium, two busy cores).  The same bars alone take 4.8 MB and 1.4-2.1 s with plotly inlined, and
0.9 MB of script with Altair, which also installs 90 MB.  Mail, artifact viewers and untrusted notebooks block scripts.
The static SVG of these libraries ignores the reader's colour scheme and is illegible on a phone.  Only the geometry of
four plots would remain for a library; Jinja2 does the rest.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from onnxprune.report import plots, rows, wording
from onnxprune.report.lanes import Lanes, lanes
from onnxprune.report.learning import Learning, learning_curve
from onnxprune.report.names import shortened
from onnxprune.report.versions import versions
from onnxprune.result import Comparison, GroupRow, Inspection, Report, SearchStep, Tuned
from onnxprune.shown import in_json, shown

_PANELS_SHOWN = 12
_GROUPS_SHOWN = 20
#: Maximum characters of a name in a table: three lines on a phone.
_NAME = 60
#: The search plot needs at least this many candidates.
_MIN_STEPS = 3


@dataclass(frozen=True)
class _Plots:
    """Each plot for both widths; None if there is nothing to draw."""

    channels: tuple[plots.Bars, plots.Bars] | None
    search: tuple[plots.LinePlot, plots.LinePlot] | None
    panels: tuple[plots.Panel, ...]
    graph: Lanes | None
    learning: tuple[Learning, Learning] | None = None


def render(report: Report, plan: str | None, command: str | None = None) -> str:
    """The report as an HTML document.

    ``plan`` is the plan's JSON text.  ``command`` is the command line that reproduces the run.  None omits either.
    The document takes a few kB per group.  The same values and versions give the same text.
    """
    free = [row for row in report.groups if row.locked is None]
    locked = [row for row in report.groups if row.locked is not None]
    return _page(
        "report.html.j2",
        {
            "report": report,
            "verdict": wording.verdict(report),
            "summary": rows.summary_rows(report),
            "checks": wording.checks(report.verify),
            "estimates": wording.estimates(report.verify) if report.verify.estimates else "",
            "free": free,
            "biggest": rows.biggest(free, _GROUPS_SHOWN),
            "locked": sorted(locked, key=lambda row: -row.macs_share),
            "locks": rows.locks(locked),
            "plots": _plots(report),
            "pictures": [{"caption": p.caption, "data": b64encode(p.image).decode()} for p in report.pictures],
            "panels_shown": _PANELS_SHOWN,
            "plan": None if plan is None else _compact(plan),
            "command": command,
            "rounded": None if report.rounding is None else wording.rounding_text(report.rounding),
        },
    )


def render_inspection(inspection: Inspection) -> str:
    """An inspection as an HTML document."""
    free = [row for row in inspection.groups if row.locked is None]
    locked = [row for row in inspection.groups if row.locked is not None]
    return _page(
        "inspection.html.j2",
        {
            "inspection": inspection,
            "sentence": wording.prunable(inspection),
            "facts": (
                ("inputs", ", ".join(inspection.inputs)),
                ("size", wording.size_text(inspection)),
                *([("MACs in", wording.operators(inspection))] if inspection.operators else []),
            ),
            "free": free,
            "biggest": rows.biggest(free, _GROUPS_SHOWN),
            "locked": locked,
            "locks": rows.locks(locked),
            "graph": lanes(inspection.layers) if inspection.layers else None,
        },
    )


def render_comparison(comparison: Comparison) -> str:
    """A comparison as an HTML document."""
    return _page("comparison.html.j2", {"comparison": comparison, "summary": rows.summary_rows(comparison)})


def render_tuned(tuned: Tuned, student: str | None = None, command: str | None = None) -> str:
    """What tuning did, as an HTML document.

    ``student``: the name of the model before.  ``command``: the command line that reproduces the run.  None omits either.
    """
    tuning = tuned.tuning
    files = (student, None if tuned.path is None else str(tuned.path))
    return _page(
        "tuned.html.j2",
        {
            "verdict": wording.gain(tuning),
            "names": [name for name in files if name is not None],
            "tuning": tuning,
            "curve": (learning_curve(tuning, plots.NARROW), learning_curve(tuning, plots.WIDE)),
            "command": command,
        },
    )


def frame(page: str, height: str = "40rem") -> str:
    """A document as a frame for a notebook cell.  The frame isolates its styles from the notebook's."""
    style = Markup('<iframe srcdoc="{}" style="width:100%;height:{};border:0"></iframe>')
    return style.format(page, height)


def _page(template: str, values: Mapping[str, object]) -> str:
    environment = Environment(
        loader=PackageLoader("onnxprune", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=wording.percent,
        decimals=wording.decimals,
        duration=wording.duration,
        byte_text=wording.byte_text,
        drop_value=wording.drop_value,
        gain=wording.gain,
        effort_of=wording.effort_of,
        stage=wording.stage,
        named=_named,
        breakable=_breakable,
        options=_options,
    )
    # Names may contain hidden characters; nothing else on a page can.
    return shown(environment.get_template(template).render(values, versions=versions()))


def _named(rows: Sequence[GroupRow]) -> list[tuple[GroupRow, str]]:
    return list(zip(rows, shortened([row.name for row in rows], _NAME), strict=True))


def _breakable(name: str) -> Markup:
    """``name`` with line breaks allowed between its parts, not inside a word."""
    return Markup("/<wbr>").join(Markup.escape(part) for part in name.split("/"))


def _options(note: str) -> Markup:
    """A browser breaks a line after the dashes of ``--layout``; this keeps an option whole."""
    unbroken = r'<span class="option">\1</span>'
    return Markup(re.sub(r"(?<![\w-])(--[a-z][a-z-]*)", unbroken, str(Markup.escape(note))))


def _plots(report: Report) -> _Plots:
    channels = search = None
    if report.groups:
        channels = (
            plots.channel_bars(report.groups, plots.NARROW),
            plots.channel_bars(report.groups, plots.WIDE),
        )
    if len({step.macs_ratio for step in report.search}) >= _MIN_STEPS:
        drop = report.drop
        chosen = None if drop is None or not isfinite(drop.value) else SearchStep(report.macs.ratio, drop.value)
        in_percent = drop is not None and drop.metric in wording.SHARES
        limit = next((budget.value for budget in report.budgets if budget.kind == "max_drop"), None)
        # Every search starts at the original: all MACs, no drop.
        path = (SearchStep(1.0, 0.0), *report.search)
        search = (
            plots.search_curve(path, chosen, limit, in_percent, plots.NARROW),
            plots.search_curve(path, chosen, limit, in_percent, plots.WIDE),
        )
    panels = plots.sensitivity_panels(report.curves, report.groups)
    learning = None
    if report.tuning is not None:
        learning = learning_curve(report.tuning, plots.NARROW), learning_curve(report.tuning, plots.WIDE)
    return _Plots(channels, search, panels, lanes(report.layers) if report.layers else None, learning)


def _compact(plan: str) -> str:
    """The plan with one line per group.  One line per channel would be tens of thousands."""
    document = json.loads(plan)
    groups = document.get("groups") if isinstance(document, dict) else None
    if not isinstance(groups, list):
        return plan
    head = {key: value for key, value in document.items() if key != "groups"}
    lines = ",\n  ".join(json.dumps(group, ensure_ascii=False) for group in groups)
    return in_json(f'{json.dumps(head, ensure_ascii=False)[:-1]}{", " if head else ""}"groups": [\n  {lines}\n]}}')
