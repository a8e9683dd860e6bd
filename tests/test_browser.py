"""The report in headless Chromium: it fits a phone and a desktop, light and dark, and the console stays empty.

The page is put into a frame of the width to try, and a script around it writes down what it measures: the report
itself has none.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import made_up
import pytest
from test_outline import random_rows

from onnxprune.report import html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")

MEASURE = """
const page = document.querySelector('iframe').contentDocument;
const root = page.documentElement, style = (e) => page.defaultView.getComputedStyle(e);
const shown = [...page.querySelectorAll('svg')].filter((e) => e.getBoundingClientRect().width);
const label = page.querySelector('.why');
label.focus();
const bubble = page.defaultView.getComputedStyle(label, '::after');
const told = document.createElement('pre');
told.id = 'told';
told.textContent = JSON.stringify({
  wide: root.scrollWidth, sections: page.querySelectorAll('section').length, plots: shown.length,
  page: style(page.body).backgroundColor, ink: style(page.body).color,
  smallest: Math.min(...[...page.querySelectorAll('p, td, li, text, span')].map((e) => parseFloat(style(e).fontSize))),
  reason: bubble.content, title: page.title,
});
document.body.append(told);
"""


def look(page: str, width: int, dark: bool, folder: Path) -> tuple[dict[str, object], str]:
    """What the frame measures, and what Chromium's console said."""
    assert CHROMIUM is not None
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{escape(page)}"></iframe>'
    harness = folder / "harness.html"
    harness.write_text(
        f"<!doctype html><title>harness</title><body>{frame}<script>onload = () => {{{MEASURE}}}</script></body>",
        encoding="utf-8",
    )
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    flags += [f"--user-data-dir={folder / 'profile'}", f"--window-size={width + 100},1000"]
    flags += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=4000"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", harness.as_uri()], capture_output=True, text=True, timeout=120
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, flags=re.S)
    assert told is not None, done.stderr[-2000:]
    return json.loads(unescape(told[1])), "\n".join(x for x in done.stderr.splitlines() if "CONSOLE" in x)


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_the_report_fits_and_the_console_is_empty(width: int, dark: bool, tmp_path: Path) -> None:
    rows = random_rows(1, 200)
    rows = (*rows[:-1], replace(rows[-1], locked=made_up.LOCK))
    page = html.render(replace(made_up.report(), layers=rows), made_up.plan().to_json(), "onnxprune net.onnx")
    told, console = look(page, width, dark, tmp_path)
    assert console == ""
    assert told["wide"] == width, "the page scrolls sideways"
    assert told["sections"] == page.count("<section>")
    assert made_up.LOCK in str(told["reason"])
    assert str(told["title"]).startswith("resnet50.onnx: ")
    assert isinstance(told["smallest"], float | int)
    assert told["smallest"] >= 11
    light = [sum(map(int, re.findall(r"\d+", str(told[part]))[:3])) for part in ("page", "ink")]
    assert (light[0] < light[1]) == dark


@needs_chromium
def test_the_console_check_sees_an_error(tmp_path: Path) -> None:
    page = "<!doctype html><section></section><p class='why'>x</p><script>nowhere()</script>"
    _, console = look(page, 390, False, tmp_path)
    assert "nowhere is not defined" in console
