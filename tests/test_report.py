"""The three reports, made from made-up values."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import made_up
import onnx
import pytest

from onnxprune.report import document, html, notebook, plots, rows, terminal, wording
from onnxprune.report.learning import learning_curve
from onnxprune.result import Change, Drop, GroupCurve, Report, SearchStep, Stage, Tuned, Tuning, TuningPoint

#: Registers the pages of results, whatever ran before.
assert notebook
COMMAND = "onnxprune models/resnet50.onnx --data 'my photos/' --max-drop 0.01"


LOADING = ("src", "href", "srcset", "xlink:href")


class Page(HTMLParser):
    """Balanced tags, what is loaded from elsewhere, and the visible text."""

    VOID = ("meta", "link", "br", "img", "wbr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in LOADING]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def in_terminal(show: object, *values: object, width: int = 80) -> str:
    out = io.StringIO()
    console = terminal.console_for(out)
    console.width = width
    show(console, *values)  # type: ignore[operator]
    assert not re.search(r" $", out.getvalue(), flags=re.M), "blanks at the end of a line"
    return out.getvalue()


@pytest.fixture(scope="module")
def page() -> str:
    return html.render(made_up.report(), made_up.plan().to_json(), COMMAND)


def test_html_is_one_well_formed_file_without_script_or_network(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == []
    assert parsed.addresses == ["data:,"]
    assert "script" not in parsed.tags
    assert not re.search(r"url\(|@import|https?://", page)
    assert len(page.encode()) < 5_000_000


def test_html_shows_names_as_text_never_as_markup(page: str) -> None:
    assert "<script>" not in page
    assert "<script>alert(1)</script>" in Page(page).text


def test_html_tells_the_whole_story(page: str) -> None:
    text = Page(page).text
    report = made_up.report()
    assert wording.verdict(report) in text
    for wanted in (COMMAND, made_up.LOCK, report.notes[0], report.choices[0], "onnxruntime", "peak memory"):
        assert wanted in text
    for row in report.groups:
        assert row.name in text
    assert "prefers-color-scheme: dark" in page
    assert 'name="viewport"' in page


def test_html_plan_can_be_copied_and_replayed(page: str) -> None:
    plan = re.search(r'<pre class="plan">(.*?)</pre>', page, flags=re.S)
    assert plan is not None
    assert made_up.Plan.from_json(unescape(plan[1])) == made_up.plan()


def test_html_of_the_barest_report_leaves_out_what_is_not_there() -> None:
    bare = replace(
        made_up.report(2),
        output=None,
        latency_ms=None,
        latency_spread=None,
        drop=None,
        accuracy=None,
        groups=(),
        choices=(),
        notes=(),
        settings={},
        curves=(),
        search=(),
        refits=(),
        seconds={},
    )
    text = Page(html.render(bare, made_up.Plan("x", ()).to_json())).text
    assert "not measured" in text
    for absent in ("Sensitivity", "Drop against budget", "Refitted", "Locked", "Channels"):
        assert absent not in text


def test_html_is_the_same_every_time(page: str) -> None:
    assert html.render(made_up.report(), made_up.plan().to_json(), COMMAND) == page


@pytest.mark.parametrize("value", [made_up.report(2), made_up.result(2), made_up.inspection(2), made_up.comparison()])
def test_notebooks_show_a_page_in_a_frame(value: object) -> None:
    shown = value._repr_html_()  # type: ignore[attr-defined]
    assert shown.replace("\n", "").startswith('<iframe srcdoc="&lt;!doctype')
    assert shown.count('"') == 4
    page = Page(unescape(shown.split('"')[1]))
    assert page.open == []
    assert "script" not in page.tags
    assert "MACs" in page.text


def test_a_tuning_shows_its_curve_in_a_frame() -> None:
    points = tuple(TuningPoint(float(k), k, math.nan if not k else 4.0, 2.0 - k / 4, 0.9) for k in range(3))
    tuning = Tuning(2.0, 1.5, True, points, 3.0, 4, 4, 1, "cpu", stages=(Stage("before", Drop("top-1 changed", 0.1, 4), None),))
    tuned = Tuned(onnx.ModelProto(), tuning)
    page = Page(unescape(tuned._repr_html_().split('"')[1]))
    assert page.open == [] and "script" not in page.tags and page.tags.count("polyline") == 4
    assert wording.gain(tuning)[1:] in page.text and wording.effort_of(tuning) in page.text
    assert repr(tuned) == f"<onnxprune.Tuned {wording.gain(tuning)}>"


@pytest.mark.parametrize("width", [plots.NARROW, plots.WIDE])
def test_both_curves_of_a_tuning_begin_at_one_height_and_stay_inside_the_plot(width: float) -> None:
    """The loss adds up many errors, so on one scale the held-out error would be a line at zero."""
    heights = [(math.nan, 2.0), (40.0, 3.0), (30.0, math.nan), (20.0, 1.0)]
    points = tuple(TuningPoint(float(k), k, loss, held) for k, (loss, held) in enumerate(heights))
    plot = learning_curve(Tuning(2.0, 1.0, True, points, 3.0, 4, 4, 1, "cpu"), width)
    lines = [[tuple(map(float, dot.split(","))) for dot in line.split()] for line in (plot.held, plot.loss)]
    assert [len(line) for line in lines] == [3, 3] and lines[0][0][1] == lines[1][0][1]
    assert lines[0][-1][1] == lines[1][-1][1] > lines[0][0][1]
    assert all(plot.left <= x <= plot.right and plot.top <= y <= plot.bottom for line in lines for x, y in line)


def test_a_result_tells_its_verdict_in_one_line() -> None:
    assert repr(made_up.result(2)) == f"<onnxprune.Result {wording.verdict(made_up.report(2))}>"


def test_plots_stay_inside_their_frame_whatever_the_numbers() -> None:
    steps = (SearchStep(1.0, 0.0), SearchStep(0.4, 3.0), SearchStep(0.2, float("nan")))
    for limit in (None, 0.01, 5.0):
        curve = plots.search_curve(steps, SearchStep(0.5, 0.02), limit, False, plots.NARROW)
        assert len(curve.dots) == 2
        for dot in (*curve.dots, curve.chosen):
            assert dot is not None
            assert curve.left <= dot.x <= curve.right
            assert curve.top <= dot.y <= curve.bottom
    whole = plots.search_curve((SearchStep(1.0, 0.0),), None, None, True, plots.WIDE)
    assert whole.dots[0].x == whole.right
    report = made_up.report()
    for panel in plots.sensitivity_panels(report.curves, report.groups):
        assert panel.curve.chosen is not None
        points = [tuple(map(float, p.split(","))) for p in panel.curve.line.split()]
        assert len(points) == 8
        assert all(panel.curve.left <= x <= panel.curve.right for x, _ in points)
        assert all(panel.curve.top <= y <= panel.curve.bottom for _, y in points)
    flat = (GroupCurve("flat", tuple(plots_point(k, 0.0) for k in (1, 2))),)
    assert len(plots.sensitivity_panels(flat, ())) == 1
    bars = plots.channel_bars(made_up.groups(400), plots.NARROW)
    assert bars.width > plots.NARROW
    assert max(bar.x + bar.width for bar in bars.bars) <= bars.width
    assert min(bar.before_y for bar in bars.bars) >= 10


def test_the_chosen_point_lies_on_its_curve() -> None:
    report = made_up.report(4)
    for panel in plots.sensitivity_panels(report.curves, report.groups):
        points = sorted(tuple(map(float, p.split(","))) for p in panel.curve.line.split())
        chosen = panel.curve.chosen
        assert chosen is not None
        left = max(p for p in points if p[0] <= chosen.x)
        right = min(p for p in points if p[0] >= chosen.x)
        share = 0.0 if left == right else (chosen.x - left[0]) / (right[0] - left[0])
        assert chosen.y == pytest.approx(left[1] + share * (right[1] - left[1]), abs=0.5)


def test_a_panel_is_not_mistaken_for_a_lock_of_the_same_name() -> None:
    report = made_up.report(4)
    name = report.groups[0].name
    lock = made_up.GroupRow(9, name, 3, 3, 0.1, "'x' is an input of the model")
    panels = plots.sensitivity_panels(report.curves, (*report.groups, lock))
    assert panels == plots.sensitivity_panels(report.curves, report.groups)


def plots_point(kept: int, damage: float) -> made_up.CurvePoint:
    return made_up.CurvePoint(kept, damage)


def test_json_document_has_the_promised_form() -> None:
    told = json.loads(document.to_text(document.of_report(made_up.report(3))))
    assert told["macs"] == {"before": 4_089_184_256, "after": 2_012_340_224}
    assert isinstance(told["params"]["after"], int)
    assert isinstance(told["bytes"]["before"], int)
    assert told["latency_ms"] == {"before": 41.3, "after": 24.6}
    assert told["drop"] == {"metric": "top-1 changed", "value": 0.0093, "samples": 1024}
    assert told["accuracy"] == {"before": 0.8012, "after": 0.7958}
    assert set(told["groups"][0]) == {"id", "name", "before", "after", "macs_share", "locked"}
    assert told["groups"][0]["locked"] is None
    assert told["groups"][3]["locked"] == made_up.LOCK
    verify = {"checker": True, "onnxruntime": True, "signature": True, "masked_max_rel_err": 3.1e-07}
    assert verify.items() <= told["verify"].items()
    assert {"load", "couple", "calibrate", "select", "refit", "verify", "total"} <= set(told["seconds"])
    assert told["peak_rss_bytes"] == 2_310_000_000


def test_json_says_null_for_what_was_not_measured_or_is_no_number() -> None:
    report = replace(made_up.report(1), latency_ms=None, accuracy=None, drop=Drop("mine", float("nan"), 4), search=())
    told = json.loads(document.to_text(document.of_report(report)))
    assert told["latency_ms"] is None
    assert told["accuracy"] is None
    assert told["drop"]["value"] is None


def test_a_narrow_terminal_gets_numbers_without_bars() -> None:
    for show, value in ((terminal.print_report, made_up.report(8)), (terminal.print_inspection, made_up.inspection(8))):
        text = in_terminal(show, value, terminal.View(), width=44)
        assert max(len(line) for line in text.splitlines()) <= 44
        assert "█" not in text
        assert "█" in in_terminal(show, value, terminal.View(), width=80)


@pytest.mark.parametrize("width", [80, 60, 120])
def test_terminal_report_fits_its_width_and_has_no_escapes(width: int) -> None:
    text = in_terminal(terminal.print_report, made_up.report(), terminal.View(), width=width)
    assert "\x1b" not in text
    assert max(len(line) for line in text.splitlines()) <= width
    assert "qkv/MatMul" in text
    assert "32 more" in text
    joined = " ".join(text.split())
    assert wording.verdict(made_up.report()) in joined
    assert "models/resnet50.pruned.onnx" in text


def test_terminal_folds_to_the_biggest_groups_and_unfolds() -> None:
    folded = in_terminal(terminal.print_report, made_up.report(), terminal.View())
    whole = in_terminal(terminal.print_report, made_up.report(), terminal.View(None, None))
    assert folded.count("conv") == terminal.FOLDED
    assert whole.count("conv") == 52
    assert "more" not in whole.split("locked")[0].split("kept")[1]


def test_terminal_tells_failures_and_does_not_repeat_notes() -> None:
    report = made_up.report(2)
    failed = replace(report.verify, checker=False, complaints=("onnx.checker: bad shape of 'w'",))
    report = replace(report, verify=failed)
    text = in_terminal(terminal.print_report, report, terminal.View(seen=report.notes))
    assert "FAILED" in text
    assert "bad shape of 'w'" in text
    assert "first sample fed" not in text


def test_terminal_inspection_and_comparison() -> None:
    text = in_terminal(terminal.print_inspection, made_up.inspection(), terminal.View())
    assert "97.8% of the MACs" in text
    assert "Softmax" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    text = in_terminal(terminal.print_comparison, made_up.comparison())
    assert "not measured" in text
    assert "boxes" in text
    assert "relative L2 error" in text


def test_folding_keeps_the_order_and_names_the_largest_hidden_share() -> None:
    groups = made_up.groups(10)
    shown = rows.biggest(groups, 4)
    assert [row.id for row in shown] == sorted(row.id for row in shown)
    hidden = [row.macs_share for row in groups if row not in shown]
    assert min(row.macs_share for row in shown) >= max(hidden)
    text = rows.left_out(groups, shown)
    assert text is not None
    cut = sum(row.after < row.before for row in groups if row not in shown)
    assert f"{len(hidden)} more ({cut} of them narrowed), " in text
    whole = [replace(row, after=row.before) for row in groups]
    assert "narrowed" not in str(rows.left_out(whole, rows.biggest(whole, 4)))
    assert wording.percent(max(hidden)) in text
    assert rows.left_out(groups, groups) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (999, "999"), (1234, "1.23 k"), (125_700_000, "125.7 M"), (999_600, "1.00 M")],
)
def test_si(value: float, text: str) -> None:
    assert wording.si(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0%"), (0.47, "47.0%"), (0.0004, "0.04%"), (1e-9, "<0.001%"), (float("inf"), "n/a")],
)
def test_percent(share: float, text: str) -> None:
    assert wording.percent(share) == text


def test_seconds_are_worded_as_people_say_them() -> None:
    worded = [wording.duration(seconds) for seconds in (8.44, 59.96, 125.2, 3725)]
    assert worded == ["8.4 s", "1 min 0 s", "2 min 5 s", "1 h 2 min"]


def test_verdict_is_honest() -> None:
    report: Report = made_up.report(1)
    same = replace(report, macs=Change(5, 5), params=Change(5, 5))
    assert "nothing was cut" in wording.verdict(same)
    noisy = replace(report, latency_ms=Change(10.0, 9.8), latency_spread=(0.1, 0.3))
    assert "within the measurement error" in wording.verdict(noisy)
    # Runs that drift together say nothing against a ratio that every pair agrees on.
    drifting = replace(report, latency_ms=Change(34.1, 27.8), latency_spread=(6.0, 0.5))
    assert ", 1.23× faster" in wording.verdict(drifting)
    busy = replace(report, latency_ms=Change(34.1, 9.2), latency_spread=(9.0, 3.4))
    assert ", about 3.71× faster" in wording.verdict(busy)
    slower = replace(report, latency_ms=Change(10.0, 15.0))
    assert "1.50× slower" in wording.verdict(slower)
    unmeasured = replace(report, drop=None, latency_ms=None, accuracy=None)
    assert "not measured" in wording.verdict(unmeasured)
    assert "faster" not in wording.verdict(unmeasured)


def test_few_samples_tell_a_drop_only_roughly() -> None:
    assert wording.could_be(Drop(wording.TOP1, 0.0, 12)) == pytest.approx((0.0, 0.242), abs=1e-3)
    assert wording.could_be(Drop(wording.TOP1, 0.1, 1000)) == pytest.approx((0.083, 0.120), abs=1e-3)
    assert wording.could_be(Drop("relative L2 error", 0.1, 1000)) is None
    report = replace(made_up.report(2), drop=Drop(wording.TOP1, 0.0, 12))
    assert "0% to 24% (12 samples)" in in_terminal(terminal.print_report, report, terminal.View())
    assert "changes in none of 12 held-out samples" in wording.verdict(report)


def test_a_drop_on_made_up_samples_is_not_sold_as_one() -> None:
    report = replace(made_up.report(2), drop_source="made up")
    assert "made-up samples, which tells little about real ones" in wording.verdict(report)
    assert "held-out" not in wording.verdict(report)
    assert json.loads(document.to_text(document.of_report(report)))["synthetic_data"] is True
    text = in_terminal(terminal.print_comparison, replace(made_up.comparison(), drop_source="made up"))
    assert "on 256 made-up samples" in text


def test_locks_of_one_kind_are_told_once() -> None:
    def row(number: int, reason: str) -> made_up.GroupRow:
        return made_up.GroupRow(number, f"/block{number}/Conv", 8, 8, 0.1 / (number + 1), reason)

    alike = tuple(row(k, f"Conv '/block{k}/Conv' splits this axis") for k in range(5))
    others = (row(7, "'x' is an input"), row(8, "'y' is an input"))
    found = rows.locks((*others, *alike))
    assert [(lock.row.id, lock.reason, lock.alike) for lock in found] == [
        (0, "it splits this axis", 4),
        (7, "'x' is an input", 0),
        (8, "'y' is an input", 0),
    ]
    report = replace(made_up.report(2), groups=(*others, *alike))
    assert "/block0/Conv and 4 more like it" in in_terminal(terminal.print_report, report, terminal.View())
    whole = in_terminal(terminal.print_report, report, terminal.View(None, None))
    assert whole.count("splits this axis") == 5
    page = Page(html.render(report, None)).text
    assert "and 4 more like it" in page
    assert "all 7" in page


def test_inspection_tells_where_the_macs_are_and_how_much_could_go() -> None:
    text = in_terminal(terminal.print_inspection, made_up.inspection(), terminal.View())
    assert "Conv 97.8%, MatMul 2.2%" in text
    assert re.search(r"MACs left +56% +25%", text)
    page = Page(html.render_inspection(made_up.inspection())).text
    assert "Conv 97.8%, MatMul 2.2%" in page
    assert "if every group keeps" in page
    told = document.of_inspection(made_up.inspection())
    assert told["outlook"] == [
        {"kept": 0.75, "macs": 0.56, "params": 0.57},
        {"kept": 0.5, "macs": 0.25, "params": 0.26},
    ]
